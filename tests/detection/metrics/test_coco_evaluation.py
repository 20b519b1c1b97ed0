"""Both evaluators against each other, pycocotools itself, and cases worked out by hand."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from helpers.coco_cases import random_case
from oracles.coco import direct_stats

from negvision.detection.metrics.coco_evaluation import BACKENDS, evaluate_coco


def one_image(annotations, detections):
    """Ground truth of one class and its detections from ``(x, y, w, h)`` boxes."""
    truth = {
        "images": [{"id": 5, "width": 200, "height": 200}],
        "annotations": [
            {
                "id": number,
                "image_id": 5,
                "category_id": 2,
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": crowd,
            }
            for number, (box, crowd) in enumerate(annotations, start=1)
        ],
        "categories": [{"id": 2, "name": "thing"}],
    }
    found = [
        {"image_id": 5, "category_id": 2, "bbox": list(box), "score": score}
        for box, score in detections
    ]
    return truth, found


@pytest.mark.parametrize("seed", range(24))
def test_backends_and_direct_call_agree(seed):
    ground_truth, detections = random_case(
        seed,
        crowd=(0.0, 0.2, 0.6, 1.0)[seed % 4],
        most_detections=(5, 40, 150)[seed % 3],
        integer=bool(seed % 2),
        tied_scores=seed % 5 < 2,
    )
    categories = [category["id"] for category in ground_truth["categories"]]
    results = {
        name: evaluate_coco(ground_truth, detections, categories, backend=name) for name in BACKENDS
    }
    fast, slow = results["ultrafast"], results["pycocotools"]
    np.testing.assert_array_equal(fast.precision, slow.precision)
    np.testing.assert_array_equal(fast.recall, slow.recall)

    expected = direct_stats(ground_truth, detections, categories)
    for result in results.values():
        metrics = np.array(list(result.metrics().values()))
        np.testing.assert_allclose(np.nan_to_num(metrics, nan=-1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
class TestByHand:
    def test_overlap_at_the_threshold_counts(self, backend):
        # Intersection 50, union 100: exactly 0.5.
        truth, found = one_image([((0, 0, 10, 10), 0)], [((0, 0, 10, 5), 0.9)])
        result = evaluate_coco(truth, found, [2], backend=backend)
        assert result.average_precision(iou=0.5) == pytest.approx(1.0, abs=1e-12)
        assert result.average_precision() == pytest.approx(0.1, abs=1e-12)

    def test_crowd_matches_any_number_of_detections(self, backend):
        truth, found = one_image(
            [((0, 0, 100, 100), 1), ((120, 120, 50, 50), 0)],
            [((0, 0, 20, 20), 0.9), ((30, 30, 20, 20), 0.8), ((120, 120, 50, 50), 0.7)],
        )
        result = evaluate_coco(truth, found, [2], backend=backend)
        assert result.average_precision() == pytest.approx(1.0, abs=1e-12)
        truth["annotations"][0]["iscrowd"] = 0
        assert evaluate_coco(truth, found, [2], backend=backend).average_precision() < 0.5

    def test_no_detection_gives_zero_and_no_ground_truth_nan(self, backend):
        truth, _ = one_image([((10, 10, 20, 20), 0)], [])
        metrics = evaluate_coco(truth, [], [2], backend=backend).metrics()
        assert metrics["mAP"] == metrics["mAP_s"] == metrics["AR@100"] == 0
        assert math.isnan(metrics["mAP_l"])
        truth["annotations"] = []
        metrics = evaluate_coco(truth, [], [2], backend=backend).metrics()
        assert all(math.isnan(value) for value in metrics.values())

    def test_input_is_unchanged(self, backend):
        truth, found = random_case(3)
        before = copy.deepcopy((truth, found))
        evaluate_coco(truth, found, [3, 1], backend=backend)
        assert (truth, found) == before
