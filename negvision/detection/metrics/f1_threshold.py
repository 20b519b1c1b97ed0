"""The class score from which on a detection is taken seriously: the best by F1."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from negvision.errors import OODDataError
from negvision.ops import pairwise_box_iou


def f1_threshold(
    ground_truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    category_ids: Sequence[int],
    iou: float = 0.5,
) -> float:
    """Mean over classes of the score at which each has its best F1.

    This is how VOS filters boxes (Du et al., ICLR 2022, section 4.1 and its code), with every
    score that occurs as a candidate and one IoU.

    Args:
        ground_truth: As :func:`load_coco_annotations` returns it.
        detections: As of :func:`evaluate_coco`: ``image_id``, ``category_id``, ``bbox`` and
            ``score`` each.
        category_ids: The classes.
        iou: Overlap from which on a detection may find an object.

    Raises:
        OODDataError: No class has a threshold; see :func:`f1_thresholds`.
    """
    thresholds = f1_thresholds(ground_truth, detections, category_ids, iou)
    if not thresholds:
        raise OODDataError(
            f"no class score is best by F1: of {len(detections):,} detections on in-distribution "
            f"images none finds an object of its class at IoU {iou:g}. Is the checkpoint trained? "
            "A number as score_thr of negvision.OODBoxMetric does without"
        )
    return float(np.mean(list(thresholds.values())))


def f1_thresholds(
    ground_truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    category_ids: Sequence[int],
    iou: float = 0.5,
) -> dict[int, float]:
    """The score of each class at which F1 is best; the highest of several.

    Detections are matched in the order of their scores as COCO does, each with the free object
    that it overlaps most; those on a crowd are set aside. All detections of an image take part.

    Args:
        ground_truth, detections, category_ids, iou: As of :func:`f1_threshold`.

    Returns:
        Category id to score. Classes without objects, without detections or without a single
        detection that finds an object have none.
    """
    objects, found, outcomes = defaultdict(list), defaultdict(list), defaultdict(list)
    totals: dict[int, int] = defaultdict(int)
    for annotation in ground_truth["annotations"]:
        objects[annotation["category_id"], annotation["image_id"]].append(annotation)
        totals[annotation["category_id"]] += not annotation["iscrowd"]
    for detection in detections:
        found[detection["category_id"], detection["image_id"]].append(detection)
    for key, of_image in found.items():
        outcomes[key[0]] += _match(objects.get(key, []), of_image, iou)
    thresholds = {}
    for category_id in category_ids:
        best = _best_by_f1(outcomes[category_id], totals[category_id])
        if best is not None:
            thresholds[category_id] = best
    return thresholds


def _match(objects: list, detections: list, iou: float) -> list[tuple[float, bool]]:
    """Score and success of each detection of one class and image that is not set aside."""
    ordered = sorted(detections, key=lambda detection: -detection["score"])
    if not objects:
        return [(detection["score"], False) for detection in ordered]
    boxes, own = _corners(objects), _corners(ordered)
    crowd = np.array([bool(item["iscrowd"]) for item in objects])
    overlaps = pairwise_box_iou(own, boxes).numpy()
    on_crowd = (pairwise_box_iou(own, boxes, "iof").numpy()[:, crowd] >= iou).any(1)
    free = ~crowd
    outcomes = []
    for detection, row, aside in zip(ordered, overlaps, on_crowd, strict=True):
        best = int(np.where(free, row, -1).argmax())
        hit = bool(free[best] and row[best] >= iou)
        free[best] &= not hit
        if hit or not aside:
            outcomes.append((detection["score"], hit))
    return outcomes


def _best_by_f1(outcomes: list[tuple[float, bool]], total: int) -> float | None:
    if not total or not any(hit for _, hit in outcomes):
        return None
    scores, hits = (np.array(column) for column in zip(*outcomes, strict=True))
    order = np.argsort(-scores, kind="stable")
    scores, found = scores[order], hits[order].cumsum()
    # 2 TP / (2 TP + FP + FN), once all detections of a score are in.
    f1 = 2 * found / (np.arange(1, len(scores) + 1) + total)
    ends = np.append(scores[1:] != scores[:-1], True)
    return float(scores[ends][f1[ends].argmax()])


def _corners(items: list) -> torch.Tensor:
    boxes = torch.tensor([item["bbox"] for item in items], dtype=torch.float64)
    boxes[:, 2:] += boxes[:, :2]
    return boxes
