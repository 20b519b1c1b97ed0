"""Exported models of every kind beside PyTorch, on 64 embedded pictures."""

import numpy as np
import pytest

from negvision.export.parity import pictures
from negvision.export.parity.compare import TOLERANCES, compare
from negvision.inference.runtime import ExportedModel
from negvision.inference.torch_model import TorchModel

COUNT = 64


@pytest.fixture(scope="module")
def scenes():
    return pictures.scenes(COUNT)


def test_pictures_differ_and_fewer_are_the_first(scenes):
    crops = pictures.crops(COUNT, (32, 32))
    assert len(scenes) == len(crops) == COUNT
    for drawn, fewer in ((scenes, pictures.scenes(10)), (crops, pictures.crops(10, (32, 32)))):
        assert len({pixels.tobytes() for pixels in drawn.values()}) == COUNT
        assert list(fewer) == list(drawn)[:10]
        for name, pixels in fewer.items():
            np.testing.assert_array_equal(pixels, drawn[name])
    heights, widths = zip(*(pixels.shape[:2] for pixels in scenes.values()), strict=True)
    assert any(h > w for h, w in zip(heights, widths, strict=True)) and min(heights) < 100


@pytest.mark.parametrize("name", ["atss", "faster_abet", "pixels", "face"])
def test_exports_say_what_torch_says(built, exported, scenes, tmp_path, name):
    cfg, model = built(name)
    runner = ExportedModel(exported(name))
    size = runner.metadata.preprocessing.size
    drawn = pictures.crops(COUNT, size) if size else scenes
    files = pictures.write_into(tmp_path, drawn)
    found = compare(runner, TorchModel(cfg, model), files, batch_sizes=(8,))
    assert found.beyond(TOLERANCES["fp32"]) == []
    assert found.compared >= COUNT and found.unmatched == 0
    assert found.line().startswith("64 images, batches of 8: ")
