"""The class score that is best by F1, against every threshold tried one by one."""

from __future__ import annotations

import numpy as np
import pytest
from coco_cases import random_case

from negvision.detection.metrics.f1_threshold import f1_threshold, f1_thresholds
from negvision.errors import OODDataError


def overlap(a, b, over_first=False):
    """IoU of two boxes (x, y, width, height), or intersection over the first."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / (a[2] * a[3] if over_first else a[2] * a[3] + b[2] * b[3] - both)


def counts(ground_truth, detections, category, threshold):
    """TP, FP and objects of a class with the detections of at least ``threshold`` alone."""
    hits = misses = objects = 0
    for image in ground_truth["images"]:
        here = [
            a
            for a in ground_truth["annotations"]
            if a["image_id"] == image["id"] and a["category_id"] == category
        ]
        crowds = [a for a in here if a["iscrowd"]]
        free = [a for a in here if not a["iscrowd"]]
        objects += len(free)
        found = [
            d
            for d in detections
            if d["image_id"] == image["id"]
            and d["category_id"] == category
            and d["score"] >= threshold
        ]
        for detection in sorted(found, key=lambda d: -d["score"]):
            best = max(free, key=lambda a: overlap(detection["bbox"], a["bbox"]), default=None)
            if best is not None and overlap(detection["bbox"], best["bbox"]) >= 0.5:
                free.remove(best)
                hits += 1
            elif all(overlap(detection["bbox"], a["bbox"], True) < 0.5 for a in crowds):
                misses += 1
    return hits, misses, objects


def slow_threshold(ground_truth, detections, category):
    best, at = 0.0, None
    scores = {d["score"] for d in detections if d["category_id"] == category}
    for threshold in sorted(scores, reverse=True):
        hits, misses, objects = counts(ground_truth, detections, category, threshold)
        f1 = 2 * hits / (hits + misses + objects) if objects else 0
        if f1 > best:
            best, at = f1, threshold
    return at


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tied", [False, True])
def test_equals_every_threshold_tried(seed, tied):
    ground_truth, detections = random_case(seed, most_detections=40, tied_scores=tied)
    categories = [c["id"] for c in ground_truth["categories"]]
    slow = {c: slow_threshold(ground_truth, detections, c) for c in categories}
    fast = f1_thresholds(ground_truth, detections, categories)
    assert fast == {c: value for c, value in slow.items() if value is not None}
    assert len(fast) > 1
    mean = f1_threshold(ground_truth, detections, categories)
    assert mean == pytest.approx(np.mean(list(fast.values())), abs=1e-15)


def one_image(*objects):
    return {
        "images": [{"id": 1}],
        "annotations": [
            {"image_id": 1, "category_id": c, "bbox": [x, 0, 10, 10], "iscrowd": crowd}
            for c, x, crowd in objects
        ],
    }


def found(category, x, score):
    return {"image_id": 1, "category_id": category, "bbox": [x, 0, 10, 10], "score": score}


def test_by_hand():
    ground_truth = one_image((1, 0, 0), (1, 20, 0))
    # 0.9 finds one of two: F1 2/3. Two false ones at 0.8: 2/5. The second object at 0.3: 4/6.
    detections = [found(1, 0, 0.9), found(1, 50, 0.8), found(1, 70, 0.8), found(1, 20, 0.3)]
    # Of equal F1 the higher score counts.
    assert f1_thresholds(ground_truth, detections, [1]) == {1: 0.9}
    assert f1_thresholds(ground_truth, [*detections[:2], detections[3]], [1]) == {1: 0.3}


def test_overlap_of_one_half_is_enough():
    ground_truth = one_image((1, 0, 0))
    half = {**found(1, 0, 0.7), "bbox": [0, 0, 10, 5]}
    assert f1_thresholds(ground_truth, [half], [1]) == {1: 0.7}
    assert f1_thresholds(ground_truth, [half], [1], iou=0.51) == {}


def test_detections_on_a_crowd_are_set_aside():
    detections = [found(1, 0, 0.9), *[found(1, 40, 0.8)] * 9, found(1, 20, 0.5)]
    # As false ones the nine make 0.9 the best, which misses the second object.
    assert f1_thresholds(one_image((1, 0, 0), (1, 20, 0)), detections, [1]) == {1: 0.9}
    assert f1_thresholds(one_image((1, 0, 0), (1, 20, 0), (1, 40, 1)), detections, [1]) == {1: 0.5}


def test_classes_without_objects_detections_or_success_are_left_out():
    ground_truth = one_image((1, 0, 0), (2, 20, 0), (3, 40, 0))
    detections = [found(1, 0, 0.6), found(3, 90, 0.9), found(4, 0, 0.8)]
    assert f1_thresholds(ground_truth, detections, [1, 2, 3, 4]) == {1: 0.6}
    assert f1_threshold(ground_truth, detections, [1, 2, 3, 4]) == 0.6


@pytest.mark.parametrize("detections", [[], [found(1, 90, 0.9)]])
def test_no_class_at_all_is_an_error(detections):
    with pytest.raises(OODDataError, match=f"of {len(detections)} detections .* none finds"):
        f1_threshold(one_image((1, 0, 0)), detections, [1])
