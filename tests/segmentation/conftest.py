"""Small segmentors, and a small data set on disk that tests damage in one place."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

NORM = {"type": "BN"}
LOSS = {"type": "CrossEntropyLoss", "avg_non_ignore": True}
_HEAD = {"channels": 16, "num_classes": 4, "norm_cfg": NORM, "loss_decode": LOSS}
HEADS = {
    "fcn": {"type": "FCNHead", "in_channels": 32, "num_convs": 1, **_HEAD},
    "psp": {"type": "PSPHead", "in_channels": 32, "pool_scales": (1, 2), **_HEAD},
    "deeplab": {
        "type": "DepthwiseSeparableASPPHead",
        "in_channels": 32,
        "dilations": (1, 3),
        "c1_in_channels": 8,
        "c1_channels": 4,
        **_HEAD,
    },
    "uper": {
        "type": "UPerHead",
        "in_channels": [8, 16, 32],
        "in_index": [0, 1, 2],
        "pool_scales": (1, 2),
        **_HEAD,
    },
}


@pytest.fixture
def build():
    """Build a segmentor of four classes: ``build("fcn", type="...", test_cfg=..., ...)``."""

    def build_segmentor(head="fcn", head_options=None, **options):
        cfg = {
            "type": "negvision.AbeTEncoderDecoder",
            "data_preprocessor": {
                "type": "SegDataPreProcessor",
                "mean": [120.0] * 3,
                "std": [60.0] * 3,
                "size_divisor": 16,
            },
            "backbone": {
                "type": "ResNetV1c",
                "depth": 18,
                "num_stages": 3,
                "stem_channels": 8,
                "base_channels": 8,
                "strides": (1, 2, 2),
                "dilations": (1, 1, 1),
                "out_indices": (0, 1, 2),
                "norm_cfg": NORM,
            },
            "decode_head": {**HEADS[head], **(head_options or {})},
            "train_cfg": {},
            "test_cfg": {"mode": "whole"},
            **options,
        }
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope("mmseg"):
            model = MODELS.build(ConfigDict(cfg))
            model.init_weights()
        return model

    return build_segmentor


@pytest.fixture
def batch():
    """Two images of 48 x 64 pixels with labels, as from a data loader."""
    generator = torch.Generator().manual_seed(1)
    inputs, samples = [], []
    for index in range(2):
        inputs.append(torch.randint(0, 256, (3, 48, 64), generator=generator).byte())
        labels = torch.randint(0, 4, (1, 6, 8), generator=generator)
        labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
        labels[:, :4] = 255
        sample = SegDataSample(gt_sem_seg=PixelData(data=labels))
        shape = (48, 64)
        sample.set_metainfo({"img_path": f"{index}.png", "ori_shape": (60, 80), "img_shape": shape})
        samples.append(sample)
    return {"inputs": inputs, "data_samples": samples}


class SegFolder:
    """Four images of 40 x 32 (width x height) with the classes sky, road, car, cow and unknown.

    Ids are 0, 1, 2, 5 and 7.
    """

    classes = ("sky", "road", "car")

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "img").mkdir()
        (root / "ann").mkdir()
        rng = np.random.default_rng(0)
        self.names = ["a", "b", "c", "d"]
        self.ids = {}
        for name in self.names:
            cv2.imwrite(str(root / "img" / f"{name}.jpg"), rng.integers(0, 255, (32, 40, 3)))
            ids = rng.choice([0, 1, 2, 5, 7], (32, 40)).astype(np.uint8)
            self.write(name, ids)
        (root / "classes.txt").write_text("0 sky\n1 road\n2 car\n5 cow\n7 unknown thing\n")

    def write(self, name: str, ids: np.ndarray) -> None:
        self.ids[name] = ids
        cv2.imwrite(str(self.root / "ann" / f"{name}.png"), ids)

    def config(self, pipeline=(), **options) -> dict:
        return {
            "type": "negvision.SegDataset",
            "data_root": str(self.root),
            "classes_file": "classes.txt",
            "metainfo": {"classes": self.classes},
            "data_prefix": {"img_path": "img", "seg_map_path": "ann"},
            "pipeline": list(pipeline),
            **options,
        }


@pytest.fixture
def seg_folder(tmp_path) -> SegFolder:
    return SegFolder(tmp_path)
