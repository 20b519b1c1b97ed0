"""The data sets of _base_ use the suite's quicker transforms wherever there is one."""

from pathlib import Path

import pytest
from mmengine.config import Config

FOLDER = Path(__file__).parents[2] / "configs/_base_/datasets"
BASES = sorted(path for path in FOLDER.glob("*.py") if path.stem != "small_detection")
QUICKER = {
    "detection": {"PackDetInputs": "negvision.PackDetInputs"},
    "segmentation": {
        "RandomCrop": "negvision.SegRandomCrop",
        "RandomFlip": "negvision.RandomFlip",
        "PhotoMetricDistortion": "negvision.SegPhotoMetricDistortion",
        "PackSegInputs": "negvision.PackSegInputs",
    },
    "others": {"RandomFlip": "negvision.RandomFlip"},
}
ENDS = {"negvision.PackDetInputs": "detection", "negvision.PackSegInputs": "segmentation"}


def pipelines(node):
    """All lists of steps in a config."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key.endswith("pipeline"):
                yield value
            else:
                yield from pipelines(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from pipelines(value)


@pytest.mark.parametrize("path", BASES, ids=lambda path: path.stem)
def test_steps_are_the_quicker_ones(path):
    found = [
        [step["type"] for step in steps] for steps in pipelines(Config.fromfile(path).to_dict())
    ]
    assert found
    for steps in found:
        assert steps[0] == "negvision.LoadImageFromFile"
        assert steps[-1].startswith("negvision.Pack"), steps
        slower = QUICKER[ENDS.get(steps[-1], "others")]
        assert not [step for step in steps if step in slower], steps
