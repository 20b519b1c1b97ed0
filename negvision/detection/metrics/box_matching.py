"""Greedy matching of detections with objects, as in COCO: confusion matrix and best F1 score."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from negvision.errors import OODDataError
from negvision.ops import pairwise_box_iou


def box_confusion(
    ground_truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    category_ids: Sequence[int],
    score: float = 0.3,
    iou: float = 0.5,
) -> np.ndarray:
    """Count boxes by true and predicted class, with background as the last of both.

    In each image, detections with at least ``score`` choose in descending order of score. Each
    takes the free object of any class with the highest overlap of at least ``iou`` and counts for
    the two classes. Objects left over count as predicted background. Detections left over count as
    true background, unless at least ``iou`` of their area lies on a crowd: those are ignored.
    Crowds are not objects.

    Unlike in COCO's AP, an object detected with another class is one error rather than two.

    Args:
        ground_truth: From :func:`.coco_annotations.load_coco_annotations`.
        detections: ``image_id``, ``category_id``, ``bbox`` (x, y, width, height) and ``score``.
        category_ids: The K classes, in the order of the matrix.
        score: Detections below it are ignored.
        iou: Minimum overlap of a match.

    Returns:
        (K + 1, K + 1) int64: rows are the truth, columns the prediction.

    Example:
        >>> truth = {"annotations": [
        ...     {"image_id": 1, "category_id": 7, "bbox": [0, 0, 10, 10], "iscrowd": 0}]}
        >>> found = [{"image_id": 1, "category_id": 9, "bbox": [0, 0, 10, 9], "score": 0.8}]
        >>> box_confusion(truth, found, [7, 9]).tolist()
        [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    """
    place = {category_id: index for index, category_id in enumerate(category_ids)}
    background = len(place)
    counts = np.zeros((background + 1, background + 1), dtype=np.int64)
    objects, found = defaultdict(list), defaultdict(list)
    for annotation in ground_truth["annotations"]:
        if annotation["category_id"] in place:
            objects[annotation["image_id"]].append(annotation)
    for detection in detections:
        if detection["score"] >= score:
            found[detection["image_id"]].append(detection)
    for image_id in objects.keys() | found.keys():
        # By identity, since two annotations may be equal.
        left = {id(item): item for item in objects[image_id] if not item["iscrowd"]}
        for detection, item in _matches(objects[image_id], found[image_id], iou):
            row = background if item is None else place[left.pop(id(item))["category_id"]]
            counts[row, place[detection["category_id"]]] += 1
        for item in left.values():
            counts[place[item["category_id"]], background] += 1
    return counts


def f1_threshold(
    ground_truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    category_ids: Sequence[int],
    iou: float = 0.5,
) -> float:
    """Mean over classes of the score at which each has its best F1.

    VOS filters boxes this way (Du et al., ICLR 2022, section 4.1 and its code); here every score
    that occurs is a candidate, at one IoU.

    Arguments are as in :func:`box_confusion`.

    Raises:
        OODDataError: No class has a threshold; see :func:`f1_thresholds`.
    """
    thresholds = f1_thresholds(ground_truth, detections, category_ids, iou)
    if not thresholds:
        raise OODDataError(
            f"no class score is best by F1: of {len(detections):,} detections on in-distribution "
            f"images none finds an object of its class at IoU {iou:g}. Is the checkpoint trained? "
            "Otherwise set score_thr of negvision.OODBoxMetric to a number"
        )
    return float(np.mean(list(thresholds.values())))


def f1_thresholds(
    ground_truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    category_ids: Sequence[int],
    iou: float = 0.5,
) -> dict[int, float]:
    """The score of each class (by category id) with the best F1; the highest of several.

    In each image, the detections of a class are matched with its objects as in
    :func:`box_confusion`; those on a crowd are ignored. Classes without a match are left out.
    """
    objects, found, outcomes = defaultdict(list), defaultdict(list), defaultdict(list)
    totals: dict[int, int] = defaultdict(int)
    for annotation in ground_truth["annotations"]:
        objects[annotation["category_id"], annotation["image_id"]].append(annotation)
        totals[annotation["category_id"]] += not annotation["iscrowd"]
    for detection in detections:
        found[detection["category_id"], detection["image_id"]].append(detection)
    for key, of_image in found.items():
        matches = _matches(objects.get(key, []), of_image, iou)
        outcomes[key[0]] += [(one["score"], item is not None) for one, item in matches]
    thresholds = {}
    for category_id in category_ids:
        best = _best_by_f1(outcomes[category_id], totals[category_id])
        if best is not None:
            thresholds[category_id] = best
    return thresholds


def _matches(
    objects: Sequence[Mapping[str, Any]], detections: Sequence[Mapping[str, Any]], iou: float
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any] | None]]:
    """Each detection, by descending score, with its object or None; without those on a crowd."""
    ordered = sorted(detections, key=lambda detection: -detection["score"])
    own, boxes = _corners(ordered), _corners(objects)
    crowd = np.array([bool(item["iscrowd"]) for item in objects], dtype=bool)
    overlaps = pairwise_box_iou(own, boxes).numpy()
    on_crowd = (pairwise_box_iou(own, boxes, "iof").numpy()[:, crowd] >= iou).any(1)
    free = ~crowd
    for detection, row, ignored in zip(ordered, overlaps, on_crowd, strict=True):
        best = int(np.where(free, row, -1).argmax()) if len(objects) else -1
        if best >= 0 and free[best] and row[best] >= iou:
            free[best] = False
            yield detection, objects[best]
        elif not ignored:
            yield detection, None


def _best_by_f1(outcomes: list[tuple[float, bool]], total: int) -> float | None:
    if not total or not any(hit for _, hit in outcomes):
        return None
    scores, hits = (np.array(column) for column in zip(*outcomes, strict=True))
    order = np.argsort(-scores, kind="stable")
    scores, found = scores[order], hits[order].cumsum()
    # 2 TP / (2 TP + FP + FN), after all detections of a score.
    f1 = 2 * found / (np.arange(1, len(scores) + 1) + total)
    ends = np.append(scores[1:] != scores[:-1], True)
    return float(scores[ends][f1[ends].argmax()])


def _corners(items: Sequence[Mapping[str, Any]]) -> torch.Tensor:
    boxes = torch.tensor([item["bbox"] for item in items], dtype=torch.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes
