"""Figures of resampled images are those of COCO's evaluation of the resampled set."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.coco_cases import random_case

from negvision.bootstrap import bootstrap
from negvision.detection.metrics.coco_evaluation import evaluate_coco
from negvision.detection.metrics.coco_statistics import CocoStatistics


def copied(ground_truth, detections, times):
    """The set in which the n-th image, by id, occurs ``times[n]`` times."""
    images, annotations, found = [], [], []
    for image, count in zip(
        sorted(ground_truth["images"], key=lambda one: one["id"]), times, strict=True
    ):
        for _ in range(count):
            number = len(images)
            images.append({**image, "id": number})
            for source, target in ((ground_truth["annotations"], annotations), (detections, found)):
                target += [
                    {**one, "image_id": number, "id": len(target) + place}
                    for place, one in enumerate(source, start=1)
                    if one["image_id"] == image["id"]
                ]
    for number, one in enumerate(annotations, start=1):
        one["id"] = number
    return {**ground_truth, "images": images, "annotations": annotations}, found


@pytest.mark.parametrize("seed", range(8))
def test_figures_of_a_sample_equal_those_of_a_set_with_copies(seed):
    ground_truth, detections = random_case(
        seed, crowd=(0.0, 0.3)[seed % 2], most_detections=(10, 120)[seed // 2 % 2]
    )
    categories = [category["id"] for category in ground_truth["categories"]]
    statistics = CocoStatistics(ground_truth, detections, categories)
    weights = np.random.default_rng(seed).integers(0, 3, (2, 8))
    weights[0] = 1
    for row, found in zip(weights, statistics.figures(weights), strict=True):
        result = evaluate_coco(*copied(ground_truth, detections, row), categories)
        expected = [
            *result.metrics().values(),
            *(result.average_precision(category_id=one) for one in sorted(categories)),
        ]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert len(statistics.names) == len(expected)


def test_without_objects_nothing_is_defined():
    ground_truth, detections = random_case(0)
    ground_truth["annotations"] = []
    statistics = CocoStatistics(ground_truth, detections, [1, 3])
    assert np.isnan(bootstrap(statistics.figures, np.arange(8), resamples=3)).all()
