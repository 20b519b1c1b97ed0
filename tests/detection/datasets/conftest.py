"""A tiny COCO data set on disk that tests damage in one place each."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

PIPELINE = [
    {"type": "negvision.LoadImageFromFile"},
    {"type": "mmdet.LoadAnnotations", "with_bbox": True},
    {"type": "mmdet.PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape")},
]


class CocoFolder:
    """Four images of 100 x 80 pixels, two boxes each; ``content`` is what ``write`` writes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = root / "images"
        self.images.mkdir()
        rng = np.random.default_rng(0)
        names = ["a.jpg", "b.jpg", "c.jpg", "d.png"]
        for name in names:
            noise = rng.integers(0, 256, size=(80, 100, 3), dtype=np.uint8)
            cv2.imwrite(str(self.images / name), noise)
        self.content: dict = {
            "images": [
                {"id": i, "file_name": name, "width": 100, "height": 80}
                for i, name in enumerate(names, 1)
            ],
            "annotations": [
                {
                    "id": 10 * i + k,
                    "image_id": i,
                    "category_id": (3, 7)[k],
                    "bbox": [5.0 + 30 * k, 10.0, 20.0, 30.0],
                    "area": 600.0,
                    "iscrowd": 0,
                }
                for i in range(1, 5)
                for k in range(2)
            ],
            "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        }

    @property
    def first(self) -> dict:
        """Annotation 10, the first of image a.jpg."""
        return self.content["annotations"][0]

    @property
    def ann_file(self) -> Path:
        return self.root / "labels.json"

    def write(self) -> None:
        self.ann_file.write_text(json.dumps(self.content))

    def truncate(self, name: str) -> None:
        path = self.images / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def dataset(self, **kwargs):
        """Write the annotations and build the dataset on them."""
        from negvision.registry import DATASETS

        if not self.ann_file.exists():
            self.write()
        config = {
            "type": "negvision.CocoDataset",
            "data_root": str(self.root),
            "ann_file": "labels.json",
            "data_prefix": {"img": "images/"},
            "pipeline": PIPELINE,
        }
        return DATASETS.build({**config, **kwargs})


@pytest.fixture
def coco(tmp_path: Path) -> CocoFolder:
    return CocoFolder(tmp_path)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the dataset logs, as a list of messages."""
    messages: list[str] = []
    monkeypatch.setattr(
        "negvision.data.images.bad_samples.print_log",
        lambda message, **_: messages.append(message),
    )
    return messages
