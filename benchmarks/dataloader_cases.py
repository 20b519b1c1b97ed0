"""The cases of benchmarks/dataloader.py: a floor, the usual pipeline and negvision's, by task."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import negvision.ops

# isort: split
# mmdet needs mmcv._ext, which negvision provides.
import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.registry import DATASETS, FUNCTIONS, DefaultScope
from PIL import Image

assert negvision.ops  # the import is for its effect
DATA = Path(os.environ.get("NEGVISION_DATA", "data"))
BASES = Path(__file__).parents[1] / "configs/_base_/datasets"


@dataclass
class Case:
    """One task.

    Attributes:
        title: With the sizes.
        usual: The package whose pipeline is the usual one.
        floor: The last of ``plain``, which every pipeline must do.
        plain: Name -> function of a sample.
        build: The usual or negvision's dataset, with the probability of flips or the config's.
        tensors: The tensors of a packed sample that must be equal.
        batch: Batch size of the config.
        collate: How the config makes batches in a worker; MMEngine's default keeps lists.
        tolerance: Allowed mean difference of two tensors, in gray levels.
    """

    title: str
    usual: str
    floor: str
    plain: dict[str, Callable[[dict], Any]]
    build: Callable[[bool, float | None], BaseDataset]
    tensors: Callable[[dict], Iterable[torch.Tensor]]
    batch: int
    collate: Callable[[list], Any] = pseudo_collate
    tolerance: float = 0.0


class PlainPack(BaseTransform):
    """Pack an image and its label as ImageToTensor of OpenMMLab does."""

    def transform(self, results: dict) -> dict:
        image = np.ascontiguousarray(results["img"].transpose(2, 0, 1))
        label = torch.tensor(results["label"])
        return {"inputs": torch.from_numpy(image), "data_samples": {"label": label}}


def detection() -> Case:
    """COCO images at 1333 x 800, as in configs/_base_/datasets/coco_detection.py."""
    root = require("coco128/annotations/instances_train.json").parents[1]
    loader = Config.fromfile(BASES / "coco_detection.py").train_dataloader
    ours = loader.dataset.pipeline
    usual = [{**ours[0], "type": "LoadImageFromFile"}, *ours[1:-1], {"type": "PackDetInputs"}]
    content = json.loads((root / "annotations/instances_train.json").read_text())
    common = {
        "data_root": f"{root}/",
        "ann_file": "annotations/instances_train.json",
        "data_prefix": {"img": "train/"},
        "metainfo": {"classes": tuple(category["name"] for category in content["categories"])},
    }
    scale = ours[2]["scale"]

    def build(negvision_one: bool, flip: float | None) -> BaseDataset:
        kind, pipeline = ("negvision.", ours) if negvision_one else ("", usual)
        return _build("mmdet", {"type": f"{kind}CocoDataset", **common}, pipeline, flip)

    def tensors(packed: dict) -> Iterable[torch.Tensor]:
        sample = packed["data_samples"]
        for instances in (sample.gt_instances, sample.ignored_instances):
            yield from (instances.bboxes.tensor, instances.labels)

    plain = {
        "decode": _decode,
        "decode + resize": lambda info: mmcv.imrescale(_decode(info), scale),
    }
    title = f"detection, {scale[0]} x {scale[1]}"
    return Case(title, "mmdet", "decode + resize", plain, build, tensors, batch=loader.batch_size)


def faces() -> Case:
    """Aligned faces of 112 x 112, as in configs/_base_/datasets/ms1mv2_face.py."""
    root = require("lfw112/train.txt").parent
    loader = Config.fromfile(BASES / "ms1mv2_face.py").train_dataloader
    ours = loader.dataset.pipeline
    usual = [
        {"type": "mmcv.LoadImageFromFile"},
        {**ours[1], "type": "mmcv.RandomFlip"},
        {"type": PlainPack},
    ]
    common = {
        "type": "negvision.FaceListDataset",
        "data_root": f"{root}/",
        "ann_file": "train.txt",
        "num_classes": 547,
    }

    def build(negvision_one: bool, flip: float | None) -> BaseDataset:
        return _build("mmengine", common, ours if negvision_one else usual, flip)

    def tensors(packed: dict) -> Iterable[torch.Tensor]:
        sample = packed["data_samples"]
        yield sample["label"] if isinstance(sample, dict) else sample.label

    collate, batch = FUNCTIONS.get(loader.collate_fn.type), loader.batch_size
    plain = {"decode": _decode}
    return Case("faces, 112 x 112", "mmcv", "decode", plain, build, tensors, batch, collate)


def segmentation(photometric: bool = True, zoom: int = 2) -> Case:
    """CamVid as in configs/_base_/datasets/camvid_ood_segmentation.py, with all classes.

    Args:
        photometric: Keep the photometric distortion.
        zoom: The config trains at half the size of the images; 2 is their own size.
    """
    root = require("camvid/classes.txt").parent
    loader = Config.fromfile(BASES / "camvid_ood_segmentation.py").train_dataloader
    ours = loader.dataset.pipeline
    ours = [step for step in ours if photometric or "PhotoMetric" not in step["type"]]
    for step in ours:
        step.update({key: _times(step[key], zoom) for key in ("scale", "crop_size") if key in step})
    usual = [{**step, "type": _without_ours(step["type"])} for step in ours]
    classes = [line.split()[1] for line in (root / "classes.txt").read_text().splitlines()]
    common = {
        "data_root": f"{root}/",
        "metainfo": {"classes": tuple(classes)},
        "data_prefix": {"img_path": "img/train", "seg_map_path": "ann/train"},
    }
    scale, (low, high) = ours[2]["scale"], ours[2]["ratio_range"]
    middle = tuple(round(side * (low + high) / 2) for side in scale)

    def build(negvision_one: bool, flip: float | None) -> BaseDataset:
        kind = (
            {"type": "negvision.SegDataset", "classes_file": "classes.txt"}
            if negvision_one
            else {"type": "BaseSegDataset", "img_suffix": ".jpg", "seg_map_suffix": ".png"}
        )
        return _build("mmseg", {**kind, **common}, ours if negvision_one else usual, flip)

    def decode_both(info: dict) -> tuple[np.ndarray, np.ndarray]:
        # Pillow, as in mmseg and negvision: OpenCV would return the colors of a palette.
        with Image.open(io.BytesIO(Path(info["seg_map_path"]).read_bytes())) as labels:
            return _decode(info), np.array(labels)

    def resize_both(info: dict) -> None:
        image, labels = decode_both(info)
        mmcv.imrescale(image, middle)
        mmcv.imrescale(labels, middle, interpolation="nearest")

    return Case(
        f"segmentation, {scale[0]} x {scale[1]}" + ("" if photometric else ", colors unchanged"),
        "mmseg",
        "decode + resize both",
        {"decode both": decode_both, "decode + resize both": resize_both},
        build,
        lambda packed: [packed["data_samples"].gt_sem_seg.data],
        batch=loader.batch_size,
        tolerance=2.0 if photometric else 0.0,
    )


def require(name: str) -> Path:
    """A file of the data folder.

    Raises:
        FileNotFoundError: It is not there.
    """
    path = DATA / name
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; NEGVISION_DATA names the folder of the data")
    return path


def _without_ours(kind: str) -> str:
    other = {"LoadSegAnnotations": "LoadAnnotations"}
    name = kind.removeprefix("negvision.")
    return other.get(name, name.removeprefix("Seg"))


def _times(sides: tuple[int, int], factor: int) -> tuple[int, int]:
    return sides[0] * factor, sides[1] * factor


def _decode(info: dict) -> np.ndarray:
    data = np.frombuffer(Path(info["img_path"]).read_bytes(), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def _build(scope: str, dataset: dict, pipeline: list[dict], flip: float | None) -> BaseDataset:
    steps = [dict(step) for step in pipeline]
    for step in steps:
        if flip is not None and str(step["type"]).endswith("RandomFlip"):
            step["prob"] = flip
    # pycocotools prints.
    silence = contextlib.redirect_stdout(io.StringIO())
    with DefaultScope.overwrite_default_scope(scope), silence:
        return DATASETS.build({**dataset, "pipeline": steps})
