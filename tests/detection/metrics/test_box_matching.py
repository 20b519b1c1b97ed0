"""Box matching against the written-out definitions: best F1 score and confusion matrix."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.coco_cases import random_case
from oracles.f1 import overlap, slow_threshold

from negvision.detection.metrics.box_matching import box_confusion, f1_threshold, f1_thresholds
from negvision.errors import OODDataError

IDS = [4, 2, 9]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tied", [False, True])
def test_best_f1_equals_trying_every_threshold(seed, tied):
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


def test_best_f1_by_hand():
    ground_truth = one_image((1, 0, 0), (1, 20, 0))
    # 0.9 finds one of two: F1 2/3. Two false positives at 0.8: 2/5. The second object at 0.3: 4/6.
    detections = [found(1, 0, 0.9), found(1, 50, 0.8), found(1, 70, 0.8), found(1, 20, 0.3)]
    # Of equal F1 the higher score counts.
    assert f1_thresholds(ground_truth, detections, [1]) == {1: 0.9}
    assert f1_thresholds(ground_truth, [*detections[:2], detections[3]], [1]) == {1: 0.3}


def test_an_overlap_of_one_half_matches():
    ground_truth = one_image((1, 0, 0))
    half = {**found(1, 0, 0.7), "bbox": [0, 0, 10, 5]}
    assert f1_thresholds(ground_truth, [half], [1]) == {1: 0.7}
    assert f1_thresholds(ground_truth, [half], [1], iou=0.51) == {}


def test_detections_on_a_crowd_are_ignored():
    detections = [found(1, 0, 0.9), *[found(1, 40, 0.8)] * 9, found(1, 20, 0.5)]
    # As false positives, the nine make 0.9 the best score, which misses the second object.
    assert f1_thresholds(one_image((1, 0, 0), (1, 20, 0)), detections, [1]) == {1: 0.9}
    assert f1_thresholds(one_image((1, 0, 0), (1, 20, 0), (1, 40, 1)), detections, [1]) == {1: 0.5}


def test_classes_without_a_match_have_no_threshold():
    ground_truth = one_image((1, 0, 0), (2, 20, 0), (3, 40, 0))
    detections = [found(1, 0, 0.6), found(3, 90, 0.9), found(4, 0, 0.8)]
    assert f1_thresholds(ground_truth, detections, [1, 2, 3, 4]) == {1: 0.6}
    assert f1_threshold(ground_truth, detections, [1, 2, 3, 4]) == 0.6


@pytest.mark.parametrize("detections", [[], [found(1, 90, 0.9)]])
def test_no_threshold_is_an_error(detections):
    with pytest.raises(OODDataError, match=f"of {len(detections)} detections .* none finds"):
        f1_threshold(one_image((1, 0, 0)), detections, [1])


def slow_confusion(annotations, detections, score, iou):
    counts = [[0] * 4 for _ in range(4)]
    for image in {one["image_id"] for one in annotations + detections}:
        objects = [a for a in annotations if a["image_id"] == image]
        crowds = [a for a in objects if a["iscrowd"]]
        objects = [a for a in objects if not a["iscrowd"]]
        taken = set()
        mine = [d for d in detections if d["image_id"] == image and d["score"] >= score]
        for detection in sorted(mine, key=lambda d: -d["score"]):
            best, most = None, -1
            for index, item in enumerate(objects):
                shared = overlap(detection["bbox"], item["bbox"])
                if index not in taken and shared > most:
                    best, most = index, shared
            column = IDS.index(detection["category_id"])
            if most >= iou:
                taken.add(best)
                counts[IDS.index(objects[best]["category_id"])][column] += 1
            elif not any(overlap(detection["bbox"], c["bbox"], True) >= iou for c in crowds):
                counts[3][column] += 1
        for index, item in enumerate(objects):
            if index not in taken:
                counts[IDS.index(item["category_id"])][3] += 1
    return counts


def draw(rng, count, image_count=4):
    """Boxes on a coarse grid, so that many overlap and tie."""
    for _ in range(count):
        x, y = (rng.integers(0, 6, 2) * 4).tolist()
        width, height = (rng.integers(1, 4, 2) * 6).tolist()
        yield {
            "image_id": int(rng.integers(image_count)),
            "category_id": IDS[int(rng.integers(3))],
            "bbox": [x, y, width, height],
        }


@pytest.mark.parametrize("seed", range(20))
def test_confusion_equals_the_definition(seed):
    rng = np.random.default_rng(seed)
    annotations = [{**box, "iscrowd": int(rng.random() < 0.15)} for box in draw(rng, 25)]
    scores = (rng.integers(0, 10, 60) / 10).tolist()
    detections = [{**box, "score": score} for box, score in zip(draw(rng, 60), scores, strict=True)]
    for score, iou in ((0.3, 0.5), (0.0, 0.2), (0.6, 0.75)):
        found = box_confusion({"annotations": annotations}, detections, IDS, score, iou)
        assert found.tolist() == slow_confusion(annotations, detections, score, iou)
        # Each object counts once in its row.
        objects = [a["category_id"] for a in annotations if not a["iscrowd"]]
        assert found.sum(1)[:3].tolist() == [objects.count(category) for category in IDS]


def test_confusion_with_background():
    box = {"image_id": 1, "category_id": 9, "bbox": [0, 0, 5, 5]}
    missed = box_confusion({"annotations": [{**box, "iscrowd": 0}]}, [], IDS)
    assert missed[2, 3] == 1 == missed.sum()
    invented = box_confusion({"annotations": []}, [{**box, "score": 0.9}], IDS)
    assert invented[3, 2] == 1 == invented.sum()
    assert not box_confusion({"annotations": []}, [{**box, "score": 0.29}], IDS).any()


def test_wrong_class_is_one_error():
    box = {"image_id": 1, "category_id": 4, "bbox": [0, 0, 5, 5]}
    found = [{**box, "category_id": 2, "score": 0.9}, {**box, "score": 0.8}]
    counts = box_confusion({"annotations": [{**box, "iscrowd": 0}]}, found, IDS)
    assert counts[0, 1] == 1  # the higher score took it
    assert counts[3, 0] == 1 and counts.sum() == 2
