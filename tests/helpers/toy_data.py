"""Tiny data in the place of a config's own, and a tiny network of the same kind in that of its own.

Pipelines, loaders, samplers, hooks and metrics stay those of the config, with smaller images.
"""

import copy
import itertools
import json
import pickle
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config

from negvision.data.images.packs import write_pack
from negvision.engine.config.data_files import leaf_datasets
from negvision.segmentation.datasets import DigitsSegDataset

SIDE = 64  # of the largest image
SPLITS = ("train", "val", "test")
# Data that is generated at first use has no files to change.
_NOT_GENERATED = {
    "DigitsDataset": "CocoDataset",
    "OODDigitsDataset": "OODCocoDataset",
    "DigitsCropDataset": "PackedImageDataset",
    "DigitsSegDataset": "SegDataset",
    "GlyphListDataset": "FaceListDataset",
    "GlyphPairDataset": "FacePairDataset",
}
_HELD_OUT = {"camvid": ("pedestrian", "bicyclist"), "digits": ("seven", "nine")}


@dataclass
class Toy:
    """What the files of the training set hold; those of val and test are in order.

    Attributes:
        images: Their number.
        shown: Classes, or identities, of which there are objects; None: all.
        classes: Names in all files; identities are numbered.
        own_classes: Names in the files of the training set; None: ``classes``.
    """

    classes: tuple[str, ...]
    images: int = 8
    shown: int | None = None
    own_classes: tuple[str, ...] | None = None

    def names(self, split: str) -> tuple[str, ...]:
        return self.own_classes if split == "train" and self.own_classes else self.classes

    def number(self, split: str) -> int:
        return self.images if split == "train" else 8

    def labels(self, split: str) -> list[int]:
        """A label for each image; each class has one image before another has two."""
        shown = self.shown if split == "train" and self.shown else len(self.names(split))
        return [k % shown for k in range(self.number(split))]


def parts(cfg: Config) -> list[tuple[str, dict]]:
    """(split, data set) of all parts of all sets."""
    return [
        (split, dataset)
        for split in SPLITS
        for dataset in leaf_datasets(cfg[f"{split}_dataloader"].dataset)
    ]


def kind_of(dataset: dict) -> str:
    return dataset["type"].removeprefix("negvision.")


def in_files(cfg: Config) -> None:
    """Read from files what the config generates, with few images in a batch and small images."""
    for split, dataset in parts(cfg):
        kind = kind_of(dataset)
        if kind == "DigitsSegDataset":
            names, own = DigitsSegDataset.METAINFO["classes"], dataset.pop("split")
            known = tuple(name for name in names if name not in _HELD_OUT["digits"])
            dataset["metainfo"] = {"classes": known}
            dataset["classes_file"] = "classes.txt"
            dataset["data_prefix"] = {"img_path": own, "seg_map_path": f"masks/{own}"}
        if kind in _NOT_GENERATED:
            dataset["type"] = f"negvision.{_NOT_GENERATED[kind]}"
        if split == "train" or "pipeline" in dataset:
            _shrink_steps(dataset["pipeline"])
    for split in SPLITS:
        cfg[f"{split}_dataloader"].update(batch_size=4, num_workers=0)
    for split in SPLITS[1:]:
        if cfg[f"{split}_evaluator"]["type"].startswith("negvision.OOD"):
            cfg[f"{split}_evaluator"].update(resamples=5)
        if cfg[f"{split}_evaluator"]["type"] == "negvision.OODBoxMetric":
            # The best threshold needs a network that finds something.
            cfg[f"{split}_evaluator"].update(score_thr=0.0)


def _shrink_steps(pipeline: list[dict]) -> None:
    keys = ("scale", "scales", "crop_size", "size")
    sizes = [step[key] for step in pipeline for key in keys if key in step]
    largest = max((np.max(size) for size in sizes), default=0)
    if largest <= SIDE:
        return
    for step in pipeline:
        for key in keys:
            if key in step:
                step[key] = _scaled(step[key], SIDE / largest)


def _scaled(size, factor: float):
    if isinstance(size, int):
        return max(round(size * factor), 24)
    return type(size)(_scaled(part, factor) for part in size)


def class_names(cfg: Config) -> tuple[str, ...]:
    """Names of the classes that the config has, or as many as its head."""
    dataset = next(leaf_datasets(cfg.train_dataloader.dataset))
    names = dataset.get("metainfo", {}).get("classes")
    return tuple(names or (f"class {k}" for k in range(head_of(cfg.model)["num_classes"])))


def is_faces(cfg: Config) -> bool:
    """Whether identities are told apart, which have numbers instead of names."""
    return "num_classes" in next(leaf_datasets(cfg.train_dataloader.dataset))


def head_of(model: dict) -> dict:
    """The part of a model's config that has ``num_classes``."""
    for key in ("decode_head", "bbox_head", "head"):
        if key in model:
            return model[key]
    if "roi_head" in model:
        head = model["roi_head"]["bbox_head"]
        return head[0] if isinstance(head, list) else head
    return model


# Networks.


def shrink_model(cfg: Config) -> None:
    """Replace backbone and widths, and mixed precision, which needs a GPU."""
    if cfg.optim_wrapper.type == "AmpOptimWrapper":
        cfg.optim_wrapper.type = "OptimWrapper"
    model = cfg.model
    if "decode_head" in model:
        _shrink_segmentor(model)
    elif "neck" in model and model.neck.type == "negvision.FaceEmbeddingNeck":
        side = _face_side(cfg)
        # With 8 channels, the gradient of a 1x1 convolution of stride 2 is a segmentation fault in
        # PyTorch 2.11 on CPUs with AVX-512.
        backbone = {"type": "negvision.IResNet", "depth": 18, "widths": (16, 16, 16, 16)}
        model.backbone = backbone
        model.neck.update(in_channels=16, spatial_size=side // 16, embedding_size=16)
        model.head.update(embedding_size=16)
    elif "neck" in model:
        _shrink_detector(model)
    else:
        model.backbone = {"type": "negvision.ResNetCIFAR", "depth": 20}
        model.in_features = 64


def _face_side(cfg: Config) -> int:
    pipeline = next(leaf_datasets(cfg.train_dataloader.dataset))["pipeline"]
    return next((step["scale"][0] for step in pipeline if "scale" in step), 32)


def _resnet(first: int, replaced: dict, **options) -> dict:
    return {
        "norm_eval": replaced.get("norm_eval", False),
        "type": "ResNet", "depth": 18, "stem_channels": 8, "base_channels": 8, "num_stages": 3,
        "strides": (first, 2, 2), "dilations": (1, 1, 1), "out_indices": (0, 1, 2), **options,
    }  # fmt: skip


def _shrink_segmentor(model: dict) -> None:
    model.backbone = _resnet(1, model.backbone, norm_cfg=model.decode_head.norm_cfg)
    head = model.decode_head
    many = isinstance(head.in_channels, list)
    head.update(in_channels=[8, 16, 32] if many else 32, in_index=[0, 1, 2] if many else 2)
    head.channels = 8
    if "c1_in_channels" in head:
        head.update(c1_in_channels=8, c1_channels=4)
    if model.get("auxiliary_head"):
        model.auxiliary_head.update(in_channels=16, in_index=1, channels=8)


def _shrink_detector(model: dict) -> None:
    two_stages = "roi_head" in model
    head = model.rpn_head if two_stages else model.bbox_head
    strides = head.anchor_generator.strides if "anchor_generator" in head else head.strides
    model.backbone = _resnet(strides[0] // 4, model.backbone)
    width = 64  # GroupNorm has 32 groups, and some levels one pixel
    model.neck.update(in_channels=[8, 16, 32], out_channels=width, start_level=0)
    head.update(in_channels=width, feat_channels=width)
    if not two_stages:
        head.update(stacked_convs=1)
        model.test_cfg.update(score_thr=0.0, nms_pre=50, max_per_img=10)
        return
    extractor, boxes = model.roi_head.bbox_roi_extractor, model.roi_head.bbox_head
    extractor.out_channels = width
    for box in boxes if isinstance(boxes, list) else [boxes]:
        box.update(in_channels=width, fc_out_channels=16)
    model.test_cfg.rpn.update(nms_pre=50, max_per_img=20)
    model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=10)
    model.train_cfg.rpn_proposal.update(nms_pre=50, max_per_img=20)


# Files.


def write(cfg: Config, toy: Toy) -> None:
    """Write the files of all sets of ``cfg``."""
    for _, dataset in parts(cfg):
        shutil.rmtree(dataset["data_root"], ignore_errors=True)
    for split, dataset in parts(cfg):
        kind = kind_of(dataset)
        _WRITERS[kind](dataset, toy, split)


def _place(dataset: dict, name: str) -> Path:
    path = Path(dataset["data_root"]) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _picture(seed: int, height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _encoded(seed: int, side: int = 32) -> bytes:
    return cv2.imencode(".png", _picture(seed, side, side))[1].tobytes()


def _write_coco(dataset: dict, toy: Toy, split: str) -> None:
    unknown = kind_of(dataset).startswith("OOD")
    names = ("something else",) if unknown else toy.names(split)
    content: dict = {"images": [], "annotations": []}
    content["categories"] = [{"id": 2 * k + 1, "name": name} for k, name in enumerate(names)]
    _place(dataset, f"{dataset['data_prefix']['img']}x")
    for number, label in enumerate(toy.labels(split)):
        name = f"{split}_{unknown}_{number}.png"
        path = _place(dataset, f"{dataset['data_prefix']['img']}{name}")
        cv2.imwrite(str(path), _picture(number, 48, SIDE))
        content["images"].append({"id": number, "file_name": name, "width": SIDE, "height": 48})
        for k in range(2):
            content["annotations"].append({
                "id": 2 * number + k + 1, "image_id": number, "iscrowd": 0,
                "category_id": 1 if unknown else 2 * label + 1,
                "bbox": [4 + 28 * k, 6 + 2 * k, 26, 30], "area": 780,
            })  # fmt: skip
    _place(dataset, dataset["ann_file"]).write_text(json.dumps(content))


def _write_pixels(dataset: dict, toy: Toy, split: str) -> None:
    names = [*toy.names(split)]
    if "classes_file" in dataset:
        held_out = next(v for key, v in _HELD_OUT.items() if key in dataset["data_root"])
        names += held_out
        if split == "train" or not toy.own_classes:
            lines = "".join(f"{k} {name}\n" for k, name in enumerate(names))
            _place(dataset, "classes.txt").write_text(lines)
    shown = toy.shown if split == "train" and toy.shown else len(names)
    prefix = dataset["data_prefix"]
    for folder in prefix.values():
        _place(dataset, f"{folder}/x")
    for number in range(toy.number(split)):
        labels = np.tile(np.arange(SIDE) * shown // SIDE, (48, 1)).astype(np.uint8)
        for folder, suffix, pixels in (
            (prefix["img_path"], dataset.get("img_suffix", ".jpg"), _picture(number, 48, SIDE)),
            (prefix["seg_map_path"], dataset.get("seg_map_suffix", ".png"), labels),
        ):
            cv2.imwrite(str(_place(dataset, f"{folder}/{number}{suffix}")), pixels)


def _write_images(dataset: dict, toy: Toy, split: str) -> None:
    labels = toy.labels(split)
    images = [_encoded(number) for number in range(len(labels))]
    write_pack(_place(dataset, dataset["ann_file"]), images, labels, toy.names(split))


def _faces(dataset: dict, toy: Toy, split: str) -> list[str]:
    """Names of the written images."""
    names = []
    for number in range(len(toy.labels(split))):
        names.append(f"{split}_{number}.png")
        path = _place(dataset, f"{dataset.get('data_prefix', {}).get('img', '')}{names[-1]}")
        path.write_bytes(_encoded(number))
    return names


def _write_face_list(dataset: dict, toy: Toy, split: str) -> None:
    lines = zip(_faces(dataset, toy, split), toy.labels(split), strict=True)
    text = "".join(f"{name} {label}\n" for name, label in lines)
    _place(dataset, dataset["ann_file"]).write_text(text)


def _write_pairs(dataset: dict, toy: Toy, split: str) -> None:
    names = _faces(dataset, toy, split)
    pairs = itertools.pairwise(names)
    text = "".join(f"{one} {two} {k % 2}\n" for k, (one, two) in enumerate(pairs))
    _place(dataset, dataset["ann_file"]).write_text(text)


def _write_records(dataset: dict, toy: Toy, split: str) -> None:
    content, index = bytearray(), []
    for number, label in enumerate(toy.labels(split)):
        record = struct.pack("<IfQQ", 0, label, number, 0) + _encoded(number)
        index.append(f"{number}\t{len(content)}\n")
        content += struct.pack("<II", 0xCED7230A, len(record)) + record
        content += bytes(-len(content) % 4)
    path = _place(dataset, dataset["ann_file"])
    path.write_bytes(content)
    path.with_suffix(".idx").write_text("".join(index))


def _write_bin(dataset: dict, toy: Toy, split: str) -> None:
    same = [k % 2 == 0 for k in range(8)]
    images = [_encoded(k) for k in range(2 * len(same))]
    _place(dataset, dataset["ann_file"]).write_bytes(pickle.dumps((images, same)))


_WRITERS = {
    "CocoDataset": _write_coco,
    "OODCocoDataset": _write_coco,
    "SegDataset": _write_pixels,
    "BaseSegDataset": _write_pixels,
    "PackedImageDataset": _write_images,
    "FaceListDataset": _write_face_list,
    "FacePairDataset": _write_pairs,
    "FaceRecordDataset": _write_records,
    "FaceBinDataset": _write_bin,
}


def set_classes(cfg: Config, names: tuple[str, ...]) -> None:
    """Write ``names`` where the config names its classes, or their number."""
    for split, dataset in parts(cfg):
        if "classes" in dataset.get("metainfo", {}):
            dataset["metainfo"]["classes"] = names
        if split == "train" and "num_classes" in dataset:
            dataset["num_classes"] = len(names)
    model = cfg.model
    heads = [model.get("decode_head"), model.get("auxiliary_head"), head_of(model)]
    boxes = model.get("roi_head", {}).get("bbox_head")
    heads += boxes if isinstance(boxes, list) else [boxes]
    for head in heads:
        if head and "num_classes" in head:
            head["num_classes"] = len(names)


def copied(cfg: Config) -> Config:
    return Config(copy.deepcopy(cfg.to_dict()))
