"""The class score that is best by F1, against every threshold tried one by one."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.coco_cases import random_case
from oracles.f1 import slow_threshold

from negvision.detection.metrics.f1_threshold import f1_threshold, f1_thresholds
from negvision.errors import OODDataError


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
