"""The part of a config that reads a folder of data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from negvision.data.formats.contents import SPLITS, FolderData
from negvision.data.formats.datasets import dataset_configs

_LOAD = {"type": "negvision.LoadImageFromFile"}
FLIPS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "horizontal": {"prob": 0.5},
    "any": {"prob": [0.25] * 3, "direction": ["horizontal", "vertical", "diagonal"]},
}
_META = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")


def set_data(cfg: Config, data: FolderData, folder: Path, side: int, batch: int, flip: str) -> None:
    """Set the dataloaders and evaluators of ``cfg``, and write the files that they read.

    Args:
        cfg: Changed.
        data: With the splits "train" and "val"; without "test", val is the test set too.
        folder: Where lists and annotations are written.
        side: Longer side of the images in pixels.
        batch: Images in a batch.
        flip: "none", "horizontal" or "any".
    """
    train, test = _PIPELINES[data.task](side, flip)
    datasets = dataset_configs(data, folder)
    for split in SPLITS:
        dataset = datasets.get(split) or datasets["val"]
        dataset = {**dataset, "pipeline": train if split == "train" else test}
        if data.task == "detection":
            # Images without an object teach what is background.
            dataset["filter_cfg"] = {"filter_empty_gt": False}
        _set_split(cfg, split, dataset, batch, data.task == "faces", data.task == "detection")
        if split != "train":
            cfg[f"{split}_evaluator"] = _evaluator(data.task, dataset)


def _detection(side: int, flip: str) -> tuple[list[dict], list[dict]]:
    boxes = {"type": "LoadAnnotations", "with_bbox": True}
    scale = (side, side)
    train = [
        _LOAD,
        boxes,
        {"type": "Resize", "scale": scale, "keep_ratio": True},
        {"type": "negvision.RandomZoom"},
        *_flips(flip, "RandomFlip"),
        {"type": "PhotoMetricDistortion"},
        {"type": "negvision.PackDetInputs"},
    ]
    test = [
        _LOAD,
        {"type": "Resize", "scale": scale, "keep_ratio": True},
        # After Resize: metrics are computed on the original image.
        boxes,
        {"type": "negvision.PackDetInputs", "meta_keys": _META},
    ]
    return train, test


def _classification(side: int, flip: str) -> tuple[list[dict], list[dict]]:
    resize = {"type": "Resize", "scale": (side, side)}
    pack = {"type": "negvision.PackImageInputs"}
    shift = {"type": "negvision.RandomPadCrop", "padding": side // 8}
    return [_LOAD, resize, shift, *_flips(flip), pack], [_LOAD, resize, pack]


def _faces(side: int, flip: str) -> tuple[list[dict], list[dict]]:
    resize = {"type": "Resize", "scale": (side, side)}
    pack = {"type": "negvision.PackFaceInputs"}
    return [_LOAD, resize, *_flips(flip), pack], [_LOAD, resize, pack]


def _segmentation(side: int, flip: str) -> tuple[list[dict], list[dict]]:
    masks = {"type": "negvision.LoadSegAnnotations"}
    scale, pack = (side, side), {"type": "negvision.PackSegInputs"}
    train = [
        _LOAD,
        masks,
        {"type": "RandomResize", "scale": scale, "ratio_range": (0.8, 1.6), "keep_ratio": True},
        {"type": "negvision.SegRandomCrop", "crop_size": scale, "cat_max_ratio": 0.9},
        *_flips(flip),
        {"type": "negvision.SegPhotoMetricDistortion"},
        pack,
    ]
    # Metrics are computed on the original image.
    return train, [_LOAD, {"type": "Resize", "scale": scale, "keep_ratio": True}, masks, pack]


_PIPELINES = {
    "detection": _detection,
    "classification": _classification,
    "faces": _faces,
    "segmentation": _segmentation,
}


def _evaluator(task: str, dataset: dict) -> dict:
    return {
        "detection": {"type": "negvision.CocoMetric", "ann_file": dataset["ann_file"]},
        "classification": {"type": "negvision.AccuracyMetric"},
        "faces": {"type": "negvision.VerificationMetric"},
        "segmentation": {
            "type": "negvision.IoUMetric",
            "iou_metrics": ["mIoU"],
            "prefix": "segmentation",
        },
    }[task]


def _flips(flip: str, kind: str = "negvision.RandomFlip") -> list[dict]:
    arguments = FLIPS[flip]
    return [] if arguments is None else [{"type": kind, **arguments}]


def _set_split(
    cfg: Config, split: str, dataset: dict, batch: int, whole: bool, boxes: bool
) -> None:
    training = split == "train"
    sampler = "InfiniteSampler" if training else "DefaultSampler"
    cfg[f"{split}_dataloader"] = {
        "batch_size": batch,
        # Reading takes a small part of a step on a CPU; a GPU waits for it.
        "num_workers": 4 if torch.cuda.is_available() else 0,
        # Margins compare the samples of a batch.
        **({"drop_last": True} if training and whole else {}),
        "sampler": {"type": sampler, "shuffle": training},
        **({"batch_sampler": {"type": "AspectRatioBatchSampler"}} if training and boxes else {}),
        "dataset": dataset if training else {**dataset, "test_mode": True},
    }
