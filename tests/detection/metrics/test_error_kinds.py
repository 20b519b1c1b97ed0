"""The kinds of errors on constructed sets, and the costs that TIDE's own code gives."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.coco_cases import random_case

from negvision.detection.metrics.coco_evaluation import evaluate_coco
from negvision.detection.metrics.error_kinds import KINDS, error_kinds


def case(objects, detections):
    """One image: objects ``(category, box)`` and detections ``(category, box, score)``."""
    truth = {
        "images": [{"id": 1, "width": 500, "height": 500}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": category, "bbox": list(box), "iscrowd": 0}
            | {"area": box[2] * box[3]}
            for number, (category, box) in enumerate(objects, start=1)
        ],
    }
    found = [
        {"image_id": 1, "category_id": category, "bbox": list(box), "score": score}
        for category, box, score in detections
    ]
    return truth, found


OBJECT, HALF, FAR = (0, 0, 100, 100), (0, 0, 100, 30), (300, 300, 50, 50)


@pytest.mark.parametrize(
    ("detection", "kind"),
    [
        ((2, OBJECT), "classification"),
        ((1, HALF), "localization"),
        ((2, HALF), "both"),
        ((1, FAR), "background"),
    ],
)
def test_each_kind_alone(detection, kind):
    # The second object is found, so that both classes have a detection.
    objects = [(1, OBJECT), (2, (200, 0, 50, 50))]
    found = [(*detection, 0.9), (2, (200, 0, 50, 50), 0.8)]
    errors = error_kinds(*case(objects, found), [1, 2])
    assert {name: int(count.sum()) for name, count in errors.counts.items() if count.any()} == {
        kind: 1,
        **({"missed": 1} if kind in ("both", "background") else {}),
    }
    costs = errors.mean_costs()
    # Class a has no detection right (0 of 1), class b precision 1/2 if the wrong one is of it.
    of_b = 0.5 if detection[0] == 2 else 0.0
    expected = {
        "classification": 0.5 + of_b / 2,
        "localization": 0.5,
        "both": of_b / 2,
        "background": 0.0,
    }[kind]
    assert costs[kind] == pytest.approx(expected, abs=1e-9)


def test_a_duplicate_costs_what_comes_after_it():
    objects = [(1, OBJECT), (1, (200, 0, 50, 50))]
    found = [(1, OBJECT, 0.9), (1, (0, 0, 100, 90), 0.8), (1, (200, 0, 50, 50), 0.7)]
    errors = error_kinds(*case(objects, found), [1, 2])
    assert errors.counts["duplicate"].tolist() == [1, 0]
    # Precision 1 up to recall 0.5 (51 of 101 points), then 2/3.
    before = (51 + 50 * 2 / 3) / 101
    assert errors.average_precision[0] == pytest.approx(before)
    assert errors.mean_costs()["duplicate"] == pytest.approx(1 - before)
    assert sum(errors.mean_costs()[name] for name in KINDS) == pytest.approx(1 - before)
    assert np.isnan(errors.costs["duplicate"][1])


def test_of_two_errors_on_an_object_one_corrects_it():
    found = [(1, HALF, 0.9), (1, (0, 0, 100, 40), 0.8)]
    errors = error_kinds(*case([(1, OBJECT)], found), [1, 2])
    assert errors.counts["localization"].tolist() == [2, 0]
    assert errors.mean_costs()["localization"] == pytest.approx(1.0)
    assert errors.counts["missed"].sum() == 0


def test_detections_on_crowds_are_no_errors():
    truth, found = case([(1, OBJECT), (1, FAR)], [(1, (10, 10, 20, 20), 0.9), (1, FAR, 0.8)])
    truth["annotations"][0]["iscrowd"] = 1
    errors = error_kinds(truth, found, [1, 2])
    assert all(not count.any() for count in errors.counts.values())
    assert all(cost == 0 for cost in errors.mean_costs().values())


def test_costs_are_those_of_the_published_code():
    # tidecv 1.0.1 on the same set, in percent.
    expected = {
        "classification": 0.41, "localization": 14.07, "both": 0.55, "duplicate": 0.07,
        "background": 7.75, "missed": 4.38, "false positives": 27.82, "false negatives": 15.16,
    }  # fmt: skip
    truth, found = random_case(0, crowd=0.0, most_detections=40)
    ids = [category["id"] for category in truth["categories"]]
    errors = error_kinds(truth, found, ids)
    costs = {name: round(100 * cost, 2) for name, cost in errors.mean_costs().items()}
    assert costs == expected
    average = evaluate_coco(truth, found, ids).average_precision(iou=0.5)
    assert np.nanmean(errors.average_precision) == pytest.approx(average, abs=1e-12)


def test_masks_and_sizes():
    truth, found = random_case(4, crowd=0.0, most_detections=40)
    ids = [category["id"] for category in truth["categories"]]
    for one in (*truth["annotations"], *found):
        x, y, width, height = one["bbox"]
        one["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    from pycocotools import mask as mask_api

    for one in found:
        [run] = mask_api.frPyObjects(one["segmentation"], 250, 250)
        one["segmentation"] = run
    boxes, masks = (error_kinds(truth, found, ids, kind) for kind in ("bbox", "segm"))
    # Pixels round, and masks end at the border: nearly the same errors.
    assert masks.mean_costs() == pytest.approx(boxes.mean_costs(), abs=0.08)
    sizes = [error_kinds(truth, found, ids, area=size) for size in ("small", "medium", "large")]
    result = evaluate_coco(truth, found, ids)
    for size, one in zip(("small", "medium", "large"), sizes, strict=True):
        average = result.average_precision(iou=0.5, area=size)
        assert np.nanmean(one.average_precision) == pytest.approx(average, abs=1e-12)


@pytest.mark.parametrize("found", [[], [(1, OBJECT, 0.5)]])
def test_empty_sets(found):
    truth, detections = case([(1, OBJECT)] if not found else [], found)
    errors = error_kinds(truth, detections, [1, 2])
    if not found:
        assert errors.mean_costs()["missed"] == 0 and errors.counts["missed"].tolist() == [1, 0]
        assert errors.mean_costs()["false negatives"] == 0
    else:
        assert np.isnan(list(errors.mean_costs().values())).all()
        assert errors.counts["background"].tolist() == [1, 0]
