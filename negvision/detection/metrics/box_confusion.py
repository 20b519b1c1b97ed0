"""Which classes a detector takes for which: the confusion matrix of boxes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from negvision.ops import pairwise_box_iou


def box_confusion(
    ground_truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    category_ids: Sequence[int],
    score: float = 0.3,
    iou: float = 0.5,
) -> np.ndarray:
    """Count boxes by true and by predicted class, with background as the last of both.

    In each image the detections of at least ``score`` choose in the order of their scores, the
    highest first and of equal ones the first: each takes the free object that it overlaps most,
    of whatever class, if that is at least ``iou``; of equal overlaps the first. It counts at its
    object's class and its own. An object that nobody took counts as found to be background, a
    detection that got none as background taken for an object; unless it lies on a crowd by at
    least ``iou`` of its area, where it counts for nothing. Crowds themselves are no objects.

    Unlike in COCO's AP, an object that was found under another class is one error, not two.

    Args:
        ground_truth: As :func:`negvision.detection.metrics.coco_annotations.load_coco_annotations`
            returns it.
        detections: ``image_id``, ``category_id``, ``bbox`` (x, y, width, height) and ``score``.
        category_ids: The K classes, in the order of the matrix.
        score: Detections of less do not count.
        iou: Overlap from which on an object is found.

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
    counts = np.zeros((len(place) + 1, len(place) + 1), dtype=np.int64)
    objects, found = defaultdict(list), defaultdict(list)
    for annotation in ground_truth["annotations"]:
        if annotation["category_id"] in place:
            objects[annotation["image_id"]].append(annotation)
    for detection in detections:
        if detection["score"] >= score:
            found[detection["image_id"]].append(detection)
    for image_id in objects.keys() | found.keys():
        _count_image(counts, place, objects[image_id], found[image_id], iou)
    return counts


def _count_image(
    counts: np.ndarray, place: Mapping[int, int], objects: list, found: list, iou: float
) -> None:
    background = len(place)
    found = sorted(found, key=lambda detection: -detection["score"])
    crowds = [item for item in objects if item["iscrowd"]]
    objects = [item for item in objects if not item["iscrowd"]]
    own = _corners(found)
    overlaps = pairwise_box_iou(own, _corners(objects)).numpy()
    on_crowd = (pairwise_box_iou(own, _corners(crowds), "iof").numpy() >= iou).any(1)
    free = np.ones(len(objects), dtype=bool)
    for detection, row, aside in zip(found, overlaps, on_crowd, strict=True):
        predicted = place[detection["category_id"]]
        best = int(np.where(free, row, -1).argmax()) if len(objects) else -1
        if best >= 0 and free[best] and row[best] >= iou:
            free[best] = False
            counts[place[objects[best]["category_id"]], predicted] += 1
        elif not aside:
            counts[background, predicted] += 1
    for item, missed in zip(objects, free, strict=True):
        counts[place[item["category_id"]], background] += missed


def _corners(items: Sequence[Mapping[str, Any]]) -> torch.Tensor:
    boxes = torch.tensor([item["bbox"] for item in items], dtype=torch.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes
