"""PackDetInputs gives mmdet's tensors under the same seed."""

import copy

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import PackDetInputs as MMDetPackDetInputs
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from negvision.detection.datasets import PackDetInputs

RNG = np.random.default_rng(0)
SIZES = [(1, 1), (1, 9), (7, 1), (5, 8), (31, 17), (40, 64)]


def same(got, want):
    """Whether two packed values are equal, tensors in layout too."""
    assert type(got) is type(want)
    if isinstance(want, torch.Tensor):
        alike = got.dtype == want.dtype and got.is_contiguous() == want.is_contiguous()
        return alike and torch.equal(got, want)
    if isinstance(want, dict):
        return got.keys() == want.keys() and all(same(got[key], want[key]) for key in want)
    if hasattr(want, "metainfo"):
        return same(got.metainfo, want.metainfo) and same(dict(got.items()), dict(want.items()))
    if hasattr(want, "tensor"):
        return same(got.tensor, want.tensor)
    if hasattr(want, "to_ndarray"):
        return np.array_equal(got.to_ndarray(), want.to_ndarray())
    return got == want


def sample(size, boxes, masks=False, gray=False):
    height, width = size
    corners = RNG.uniform(0, 1, (boxes, 2, 2)) * (width, height)
    instances = []
    for box in np.concatenate([corners.min(1), corners.max(1)], 1):
        left, top, right, bottom = box.tolist()
        instances.append(
            {
                "bbox": [left, top, right, bottom],
                "bbox_label": int(RNG.integers(0, 80)),
                "ignore_flag": int(RNG.random() < 0.3),
                "mask": [[left, top, right, top, right, bottom, left, bottom]],
            }
        )
    return {
        "img": RNG.integers(0, 256, (*size, 3)[: 2 if gray else 3], dtype=np.uint8),
        "img_shape": size,
        "ori_shape": size,
        "img_id": 7,
        "img_path": "a.jpg",
        "instances": instances,
    }


def pipeline(pack, flip, masks, size):
    with DefaultScope.overwrite_default_scope("mmdet"):
        return Compose(
            [
                {"type": "LoadAnnotations", "with_bbox": True, "with_mask": masks},
                {"type": "Resize", "scale": (size[1] * 2, size[0] * 2), "keep_ratio": True},
                flip,
                {"type": pack},
            ]
        )


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("direction", ["horizontal", "vertical", "diagonal"])
@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_packed_inputs_equal_mmdet(masks, direction, chance):
    flip = {"type": "RandomFlip", "prob": chance, "direction": direction}
    for seed, size in enumerate(SIZES * 3):
        results = sample(size, boxes=seed % 4)
        packed = []
        for pack in ("negvision.PackDetInputs", "PackDetInputs"):
            np.random.seed(seed)  # noqa: NPY002
            packed.append(pipeline(pack, flip, masks, size)(copy.deepcopy(results)))
        assert same(*packed)
        assert list(packed[0]) == list(packed[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda results: results.update(img=results["img"][..., 0]),
        lambda results: results.update(img=results["img"].astype(np.float32)),
        lambda results: results.pop("img"),
        lambda results: results.update(gt_seg_map=np.ones((5, 8), np.uint8)),
    ],
    ids=["gray", "float32", "no image", "label image"],
)
def test_other_contents_equal_mmdet(change):
    results = sample((5, 8), boxes=0)
    change(results)
    options = {"meta_keys": ("img_id", "img_path")}
    ours = PackDetInputs(**options)(copy.deepcopy(results))
    assert same(ours, MMDetPackDetInputs(**options)(copy.deepcopy(results)))
