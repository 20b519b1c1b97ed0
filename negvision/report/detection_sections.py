"""What the page of a run tells of a detector: COCO figures, errors between classes, bad images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from negvision.detection.metrics.box_confusion import box_confusion
from negvision.detection.metrics.coco_annotations import category_ids_of, load_coco_annotations
from negvision.detection.metrics.coco_evaluation import evaluate_coco
from negvision.detection.visualization.predictions import draw_predictions
from negvision.errors import DatasetError
from negvision.report.detection_metrics import (
    IOU,
    SCORE,
    coco_parts,
    confusion_matrix,
    count_objects,
    precision_parts,
)
from negvision.report.image_losses import loss_of_image, why_no_loss
from negvision.report.pictures import WrongSample, embedded, read_picture
from negvision.report.run_parts import Gallery, Section

_WORST, _SIDE = 12, 480


@dataclass(frozen=True)
class _Seen:
    """What is kept of one image: its detections, the truth, and its losses (or why none)."""

    image_id: int
    path: str
    is_ood: bool
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    unknown: np.ndarray | None
    truth: np.ndarray
    ignored: np.ndarray
    losses: Mapping[str, float]
    problem: str


class DetectionCollector:
    """Keeps what a detector predicts in a test, with the loss of each image.

    Args:
        model: The detector.
        classes: Names, by label.
        evaluator: Arguments of the test evaluator that names an ``ann_file``; {} without one.
    """

    def __init__(self, model: nn.Module, classes: Sequence[str], evaluator: Mapping) -> None:
        self.model = model
        self.classes = tuple(classes)
        self.evaluator = evaluator
        self._images: list[_Seen] = []

    def add(self, inputs: Sequence[torch.Tensor], samples: Sequence) -> None:
        """Keep a batch: the images as packed, and their predicted data samples."""
        for image, sample in zip(inputs, samples, strict=True):
            is_ood = bool(sample.get("is_ood", False))
            problem = "the image is OOD" if is_ood else why_no_loss(self.model, sample)
            found = sample.pred_instances
            self._images.append(
                _Seen(
                    image_id=sample.img_id,
                    path=str(sample.get("img_path", "")),
                    is_ood=is_ood,
                    boxes=found.bboxes.cpu().numpy().reshape(-1, 4),
                    scores=found.scores.cpu().numpy(),
                    labels=found.labels.cpu().numpy(),
                    unknown=found.is_ood.cpu().numpy() if "is_ood" in found else None,
                    truth=_boxes_of(sample, "gt_instances"),
                    ignored=_boxes_of(sample, "ignored_instances"),
                    losses={} if problem else loss_of_image(self.model, image, sample),
                    problem=problem,
                )
            )

    def sections(self) -> list[Section]:
        """Figures, curves, confusions and worst images."""
        known = [image for image in self._images if not image.is_ood]
        titles = {
            "figures": "Average precision",
            "precision": "Precision and recall",
            "confusion": "Confused classes",
        }
        if "ann_file" not in self.evaluator:
            missing = "The config's test evaluator names no COCO annotations (ann_file)."
            found = [Section(name, title, missing=missing) for name, title in titles.items()]
            return [*found, _worst(known, self.classes)]
        path = self.evaluator["ann_file"]
        truth = load_coco_annotations(path)
        ids = category_ids_of(self.classes, truth["categories"], path)
        detections = [found for image in known for found in _detections(image, ids)]
        options = {
            name: self.evaluator[name]
            for name in ("max_dets", "area_limits")
            if name in self.evaluator
        }
        result = evaluate_coco(truth, detections, ids, **options)
        counts = box_confusion(truth, detections, ids, SCORE, IOU)
        parts = (
            coco_parts(result, self.classes, ids, count_objects(truth, ids)),
            precision_parts(result, self.classes, ids, count_objects(truth, ids)),
            [confusion_matrix(counts, self.classes)],
        )
        found = [
            Section(name, title, of_section)
            for (name, title), of_section in zip(titles.items(), parts, strict=True)
        ]
        return [*found, _worst(known, self.classes)]


def _worst(images: Sequence[_Seen], classes: Sequence[str]) -> Section:
    name, title = "worst", "Images of the highest loss"
    rated = [image for image in images if np.isfinite(image.losses.get("loss", np.nan))]
    if not rated:
        reason = images[0].problem if images else "no image was predicted"
        reason = reason or "no loss is a finite number"
        return Section(name, title, missing=f"There is no loss of single images: {reason}.")
    ranked = sorted(rated, key=lambda image: -image.losses["loss"])[:_WORST]
    losses = np.array([image.losses["loss"] for image in rated])
    caption = (
        f"The {len(ranked)} worst of {len(rated):,} images (median loss {np.median(losses):.3f}), "
        "each run by itself. White: ground truth. Coloured: detections of score "
        f"{SCORE:g} and more, dashed where the model calls them unknown."
    )
    samples = [_drawn(image, classes) for image in ranked]
    return Section(name, title, [Gallery("Ground truth and detections", samples, caption)])


def _drawn(image: _Seen, classes: Sequence[str]) -> WrongSample:
    kept = image.scores >= SCORE
    parts = [f"{key} {value:.3g}" for key, value in image.losses.items() if "loss_" in key]
    facts = [", ".join(parts), f"{len(image.truth)} objects, {int(kept.sum())} found"]
    tag = f"loss {image.losses['loss']:.3f}"
    try:
        pixels = read_picture(image.path)
    except DatasetError as error:
        problem = str(error).removeprefix(f"{image.path}: ")
        return WrongSample(image.path, facts, (), problem, tag)
    picture = draw_predictions(
        pixels,
        image.boxes[kept],
        image.labels[kept],
        image.scores[kept],
        classes,
        image.truth,
        image.ignored,
        _SIDE,
        None if image.unknown is None else image.unknown[kept],
    )
    return WrongSample(image.path, facts, [embedded(picture, f"{image.path}: {tag}")], tag=tag)


def _boxes_of(sample, name: str) -> np.ndarray:
    # Without LoadAnnotations the instances are there, and have no boxes.
    there = name in sample and "bboxes" in sample.get(name)
    boxes = sample.get(name).bboxes if there else torch.zeros(0, 4)
    return getattr(boxes, "tensor", boxes).cpu().numpy().reshape(-1, 4)


def _detections(image: _Seen, ids: Sequence[int]) -> list[dict]:
    finite = np.isfinite(image.boxes).all(1) & np.isfinite(image.scores)
    found = []
    for row in np.flatnonzero(finite):
        left, top, right, bottom = image.boxes[row].tolist()
        box = [left, top, right - left, bottom - top]
        score, label = float(image.scores[row]), ids[int(image.labels[row])]
        found.append(
            {"image_id": image.image_id, "category_id": label, "bbox": box, "score": score}
        )
    return found
