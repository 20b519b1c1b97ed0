"""Figures of groups against sklearn and against COCO's evaluation of the group alone."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.coco_cases import random_case
from sklearn.metrics import average_precision_score, roc_auc_score

from negvision.detection.metrics.coco_evaluation import CocoDetections, evaluate_coco
from negvision.detection.metrics.coco_statistics import CocoStatistics
from negvision.detection.metrics.error_kinds import error_kinds
from negvision.detection.metrics.groups import GroupFigures, Groups, trade
from negvision.errors import ConfigError


def grouped(key: str):
    truth, results = random_case(3, images=30)
    for number, image in enumerate(truth["images"]):
        image["light"] = ("day", "day", "night")[number % 3]
    ids = [one["id"] for one in truth["categories"]]
    detections = CocoDetections.of_results(results)
    statistics = CocoStatistics(truth, detections, ids)
    groups = Groups.of(truth, ids, key, "truth.json")
    return truth, results, ids, groups, GroupFigures(groups, statistics, truth, detections, ids)


def test_images_of_a_group():
    truth, results, ids, groups, found = grouped("light")
    images = len(truth["images"])
    # Images that are drawn twice or not at all count so.
    weights = np.stack([np.ones(images), np.random.default_rng(0).integers(0, 3, images)])
    values = found.figures(weights)
    assert groups.names == ["day", "night"] and values.shape == (2, 12)
    order = sorted(truth["images"], key=lambda one: one["id"])
    for row, weight in enumerate(weights):
        for place, name in enumerate(groups.names):
            own = [(row, one["id"]) for row, one in enumerate(order) if one["light"] == name]
            copies = [(copy, one) for number, one in own for copy in range(int(weight[number]))]
            # The group as an annotation file of its own, with copies of what is drawn again.
            numbers = {one: new for new, one in enumerate(copies, start=1)}
            parts: dict[str, list] = {"annotations": [], "results": []}
            for kind, entries in (("annotations", truth["annotations"]), ("results", results)):
                for entry in entries:
                    for (_, image), new in numbers.items():
                        if image == entry["image_id"]:
                            identity = {"id": len(parts[kind]) + 1} if kind != "results" else {}
                            parts[kind].append({**entry, "image_id": new, **identity})
            alone = {
                "images": [{"id": new, "width": 250, "height": 250} for new in numbers.values()],
                "categories": truth["categories"], "annotations": parts["annotations"],
            }  # fmt: skip
            expected = evaluate_coco(alone, parts["results"], ids).metrics()["mAP"]
            kinds = error_kinds(alone, parts["results"], ids)
            ap, auroc, auprc, at = values[row, 4 * (place + 1) : 4 * (place + 2)]
            assert ap == pytest.approx(expected, abs=1e-6)
            assert auroc == pytest.approx(roc_auc_score(kinds.hits, kinds.scores))
            assert auprc == pytest.approx(average_precision_score(kinds.hits, kinds.scores))
            weight_of = np.where(kinds.hits, 0.1 / kinds.hits.sum(), 0.9 / (~kinds.hits).sum())
            expected = average_precision_score(kinds.hits, kinds.scores, sample_weight=weight_of)
            assert at == pytest.approx(expected)
        gaps = np.ptp(values[row, 4:].reshape(2, 4), axis=0)
        assert values[row, :4] == pytest.approx(gaps)


def test_sizes():
    truth, results, ids, groups, found = grouped("size")
    values = found.figures(np.ones((1, len(truth["images"]))))[0, 4:].reshape(3, 4)
    metrics = evaluate_coco(truth, results, ids).metrics()
    counted = [one for one in truth["annotations"] if not one["iscrowd"]]
    assert groups.objects.sum() == len(counted)
    for place, size in enumerate(groups.names):
        assert values[place, 0] == pytest.approx(metrics[f"mAP_{size[0]}"], nan_ok=True)
        kinds = error_kinds(truth, results, ids, area=size)
        if kinds.hits.any() and not kinds.hits.all():
            assert values[place, 1] == pytest.approx(roc_auc_score(kinds.hits, kinds.scores))


def test_nothing_found():
    truth, _, ids, groups, _ = grouped("light")
    none = CocoDetections.of_results([])
    found = GroupFigures(groups, CocoStatistics(truth, none, ids), truth, none, ids)
    values = found.figures(np.ones((1, len(truth["images"]))))[0].reshape(3, 4)
    assert (values[:, 0] == 0).all() and np.isnan(values[:, 1:]).all()
    figures, table = found.measured(np.arange(len(truth["images"])), 20)
    assert figures["group/day/AP"] == 0 and "night" in table


def test_what_is_no_group_is_refused():
    truth, *_ = random_case(3, images=30)
    ids = [one["id"] for one in truth["categories"]]
    with pytest.raises(ConfigError, match="have no 'light'"):
        Groups.of(truth, ids, "light", "truth.json")
    with pytest.raises(ConfigError, match="has 30 values, and groups need 2 to 20"):
        Groups.of(truth, ids, "file_name", "truth.json")


def test_a_loss_of_the_frequent_group_is_no_trade():
    p_values = np.array([0.001, 0.001])
    names, objects, change = ["day", "night"], np.array([90, 4]), np.array([0.1, -0.1])
    assert not trade(names, objects, -np.abs(change), p_values)
    assert not trade(names, objects, change, np.array([0.001, 0.2]))
    assert "night (4 objects) -0.100" in trade(names, objects, change, p_values)
