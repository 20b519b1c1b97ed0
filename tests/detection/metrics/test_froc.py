"""False positives per image, against a slow oracle, and where they are undefined."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.coco_cases import random_case
from oracles.f1 import counts

from negvision.detection.metrics.error_kinds import error_kinds
from negvision.detection.metrics.fppi_metric import FPPIMetric
from negvision.detection.metrics.froc import FROC

RECALLS, RATES = [0.2, 0.5, 1.0], [0.25, 1, 4]


def slow(truth, detections, weights):
    """The figures, by counting at every threshold."""
    ids = {one["id"] for one in truth["categories"]}
    annotated = {one["image_id"] for one in truth["annotations"]}
    ordered = sorted(truth["images"], key=lambda one: one["id"])
    rows = [(0.0, 0.0, 0.0)]
    for threshold in sorted({one["score"] for one in detections}, reverse=True):
        sums = np.zeros(4)
        for image, weight in zip(ordered, weights, strict=True):
            for category in ids:
                one = {**truth, "images": [image]}
                hits, misses, objects = counts(one, detections, category, threshold)
                alone = misses * (image["id"] not in annotated)
                sums += weight * np.array([hits, objects, misses, alone])
        background = sum(
            w for i, w in zip(ordered, weights, strict=True) if i["id"] not in annotated
        )
        nan = float("nan")
        rows.append(
            (sums[0] / sums[1], sums[2] / sum(weights), sums[3] / background if background else nan)
        )
    reached = [next((r[2] for r in rows if r[0] >= v - 1e-9), float("nan")) for v in RECALLS]
    return reached + [max(r[0] for r in rows if r[1] <= v + 1e-9) for v in RATES]


@pytest.mark.parametrize("seed", range(4))
def test_figures_of_any_weights_equal_those_of_counting(seed):
    truth, detections = random_case(seed, (1, 2), crowd=0, tied_scores=seed % 2 == 1)
    ids = [one["id"] for one in truth["images"]]
    emptied = ids[:2] if seed < 3 else []  # images without objects
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] not in emptied]
    weights = np.random.default_rng(seed).integers(0, 3, (2, len(ids)))
    weights[0] = 1
    froc = FROC.of(error_kinds(truth, detections, [1, 2]))
    found = froc.figures(weights, RECALLS, RATES)
    expected = [slow(truth, detections, row) for row in weights]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    recall, rate = froc.curve()
    assert recall[0] == rate[0] == 0 and (np.diff(recall) >= 0).all() and (np.diff(rate) >= 0).all()


def test_without_objects_background_or_detections_figures_are_undefined_or_0():
    truth, detections = random_case(0)
    froc = FROC.of(error_kinds(truth, [], [1]))
    assert froc.figures(np.ones((1, 8)), [0.5], [1]).tolist()[0][1:] == [0]
    assert np.isnan(froc.figures(np.ones((1, 8)), [0.5], [])).all()
    crowds = [{**one, "iscrowd": 1} for one in truth["annotations"]]
    only_crowds = FROC.of(error_kinds({**truth, "annotations": crowds}, detections, [1, 3, 12, 90]))
    shown = {one["image_id"] for one in crowds}
    assert only_crowds.background.sum() == 8 - len(shown)  # what is ignored is no background
    assert np.isnan(only_crowds.figures(np.ones((2, 8)))).all()
    without = {**truth, "images": [one for one in truth["images"] if one["id"] in shown]}
    assert (
        "there is no such image"
        in FROC.of(error_kinds(without, [], [1, 3, 12, 90])).measured(np.arange(8))[1]
    )


def metric(tmp_path, **options) -> FPPIMetric:
    """Two images with an object that is found, one without and with a false positive."""
    box = [10.0, 10.0, 30.0, 30.0]
    truth = {
        "images": [
            {"id": n, "file_name": f"{n}.jpg", "width": 99, "height": 99} for n in range(1, 5)
        ],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": box, "area": 900.0} for n in (1, 2)
        ],
        "categories": [{"id": 1, "name": "cell"}],
    }
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(truth))
    made = FPPIMetric(str(file), **options)
    made.dataset_meta = {"classes": ("cell",)}
    for number, score in ((1, 0.9), (2, 0.5), (3, 0.7), (4, 0.1)):
        corners = np.array([[10.0, 10, 40, 40]])
        predicted = {"bboxes": corners, "scores": np.array([score]), "labels": np.array([0])}
        sample = {"img_id": number, "img_path": f"{number}.jpg", "pred_instances": predicted}
        made.process(None, [sample])
    return made


def test_the_metric_returns_its_names_with_intervals(tmp_path):
    made = metric(tmp_path, recalls=[0.5, 1.0], rates=[0.25], resamples=20)
    names = [f"negatives/{name}" for name in made.names()]
    values = made.evaluate(4)
    assert sorted(values) == sorted(names)
    assert values["negatives/fppi@0.5"] == 0 and values["negatives/fppi@1"] == 0.5
    assert values["negatives/froc@0.25"] == 1
    assert values["negatives/fppi@1_low"] <= 0.5 <= values["negatives/fppi@1_high"]


@pytest.mark.parametrize("options", [{"recalls": [0]}, {"recalls": [1.1]}, {"rates": [0]}])
def test_levels_that_cannot_be_reached_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match="must be above 0"):
        metric(tmp_path, **options)
