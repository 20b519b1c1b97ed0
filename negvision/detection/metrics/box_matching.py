"""Greedy matching of detections with objects, as in COCO: confusion matrix and best F1 score."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from negvision.data.score_threshold import ScoreThreshold
from negvision.errors import OODDataError
from negvision.ops import pairwise_box_iou

# Boxes that take no object, in match_boxes.
FREE, ON_CROWD = -1, -2


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
    totals: dict[int, int] = defaultdict(int)
    for annotation in ground_truth["annotations"]:
        totals[annotation["category_id"]] += not annotation["iscrowd"]
    outcomes = _outcomes(ground_truth, detections, iou)
    thresholds = {}
    for category_id in category_ids:
        scores, hits = _columns(outcomes[category_id])
        best = _best_by_f1(scores, hits, totals[category_id])
        if best is not None:
            thresholds[category_id] = best[0]
    return thresholds


def precision_threshold(
    ground_truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    precision: float,
    iou: float = 0.5,
) -> float | None:
    """The lowest score from which on detections of all classes together have a precision.

    Detections are matched with objects of their class as in :func:`f1_thresholds`.

    Args:
        ground_truth, detections, iou: As in :func:`box_confusion`.
        precision: Share of hits among the detections, in (0, 1].

    Returns:
        None if no score gives it.

    Example:
        >>> truth = {"annotations": [
        ...     {"image_id": 1, "category_id": 7, "bbox": [0, 0, 10, 10], "iscrowd": 0}]}
        >>> found = [{"image_id": 1, "category_id": 7, "bbox": [0, 0, 10, 9], "score": 0.8},
        ...          {"image_id": 1, "category_id": 7, "bbox": [30, 0, 9, 9], "score": 0.4}]
        >>> precision_threshold(truth, found, 0.9), precision_threshold(truth, found, 0.5)
        (0.8, 0.4)
    """
    outcomes = _outcomes(ground_truth, detections, iou)
    scores, hits = _columns([one for of_class in outcomes.values() for one in of_class])
    order = np.argsort(-scores, kind="stable")
    scores, found = scores[order], hits[order].cumsum()
    ends = np.append(scores[1:] != scores[:-1], True)[: len(scores)]
    reached = ends & (found >= precision * np.arange(1, len(scores) + 1))
    return float(scores[reached][-1]) if reached.any() else None


def _outcomes(
    ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], iou: float
) -> Mapping[int, list[tuple[float, bool]]]:
    """Score of each detection and whether it takes an object of its class, by category id."""
    objects, found, outcomes = defaultdict(list), defaultdict(list), defaultdict(list)
    for annotation in ground_truth["annotations"]:
        objects[annotation["category_id"], annotation["image_id"]].append(annotation)
    for detection in detections:
        found[detection["category_id"], detection["image_id"]].append(detection)
    for key, of_image in found.items():
        matches = _matches(objects.get(key, []), of_image, iou)
        outcomes[key[0]] += [(one["score"], item is not None) for one, item in matches]
    return outcomes


def _columns(outcomes: Sequence[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    columns = list(zip(*outcomes, strict=True)) or [(), ()]
    return np.array(columns[0]), np.array(columns[1], dtype=bool)


def _matches(
    objects: Sequence[Mapping[str, Any]], detections: Sequence[Mapping[str, Any]], iou: float
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any] | None]]:
    """Each detection, by descending score, with its object or None; without those on a crowd."""
    ordered = sorted(detections, key=lambda detection: -detection["score"])
    crowd = np.array([bool(item["iscrowd"]) for item in objects], dtype=bool)
    taken = match_boxes(_corners(ordered), _corners(objects), crowd, iou)
    for detection, index in zip(ordered, taken.tolist(), strict=True):
        if index != ON_CROWD:
            yield detection, None if index == FREE else objects[index]


def match_boxes(
    boxes: torch.Tensor,
    objects: torch.Tensor,
    crowd: np.ndarray,
    iou: float = 0.5,
    same: np.ndarray | None = None,
) -> np.ndarray:
    """The object that each box takes, in order.

    Args:
        boxes: (N, 4) x1 y1 x2 y2, by descending score.
        objects: (M, 4), those that can be taken once, and crowds.
        crowd: (M,) bool.
        iou: Minimum overlap of a match; on a crowd, minimum share of the box.
        same: (N, M) bool, the pairs that can match; None for all.

    Returns:
        (N,) index of the object, or ``FREE`` for a false positive, or ``ON_CROWD``.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [40, 0, 50, 10]])
        >>> objects = torch.tensor([[0.0, 0, 10, 10], [30, 0, 60, 30]])
        >>> match_boxes(boxes, objects, np.array([False, True])).tolist()
        [0, -1, -2]
    """
    taken = np.full(len(boxes), FREE)
    if not len(boxes) or not len(objects):
        return taken
    same = np.array(True) if same is None else same
    overlaps = np.where(same, pairwise_box_iou(boxes, objects).numpy(), -1)
    if crowd.any():
        shares = np.where(same, pairwise_box_iou(boxes, objects, "iof").numpy(), -1)
        taken[(shares[:, crowd] >= iou).any(1)] = ON_CROWD
    free = ~crowd
    for row in np.flatnonzero((overlaps[:, free] >= iou).any(1)):
        best = int(np.where(free, overlaps[row], -1).argmax())
        if free[best] and overlaps[row, best] >= iou:
            free[best] = False
            taken[row] = best
    return taken


def best_threshold(scores: np.ndarray, hits: np.ndarray, total: int) -> ScoreThreshold | None:
    """The threshold with the best F1 over all boxes; of several, the highest.

    It lies midway between the lowest score that it keeps and the next lower one, since the rounding
    of another batch size or runtime could flip a box on the threshold.

    Args:
        scores: (N,) in [0, 1], of boxes of all images.
        hits: (N,) bool: whether the box takes an object.
        total: Number of objects.

    Returns:
        None if no box takes an object.

    Example:
        >>> best_threshold(np.array([0.9, 0.8, 0.4]), np.array([True, True, False]), 2)
        ScoreThreshold(value=0.6000000000000001, f1=1.0, given=False)
    """
    best = _best_by_f1(scores, hits, total)
    if best is None:
        return None
    score, f1 = best
    lower = scores[scores < score]
    return ScoreThreshold((score + float(lower.max())) / 2 if len(lower) else score, f1)


def _best_by_f1(scores: np.ndarray, hits: np.ndarray, total: int) -> tuple[float, float] | None:
    """The score with the best F1, the highest of several, and that F1."""
    if not total or not hits.any():
        return None
    order = np.argsort(-scores, kind="stable")
    scores, found = scores[order], hits[order].cumsum()
    # 2 TP / (2 TP + FP + FN), after all detections of a score.
    f1 = 2 * found / (np.arange(1, len(scores) + 1) + total)
    ends = np.append(scores[1:] != scores[:-1], True)
    best = f1[ends].argmax()
    return float(scores[ends][best]), float(f1[ends][best])


def _corners(items: Sequence[Mapping[str, Any]]) -> torch.Tensor:
    boxes = torch.tensor([item["bbox"] for item in items], dtype=torch.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes
