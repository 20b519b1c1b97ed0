"""What ``benchmarks/audit.py`` plants and measures."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score


@pytest.fixture
def parts(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("audit_parts")


def test_average_precision_of_resamples_is_that_of_scikit_learn(parts):
    random = np.random.default_rng(0)
    for _ in range(20):
        right = random.random(200) < 0.1
        scores = random.random(200) + 0.3 * right
        weights = np.stack([np.ones(200, np.int64), random.integers(0, 4, 200)])
        order = np.argsort(-scores, kind="stable")
        found = parts.average_precision(weights[:, order], right[order], np.zeros(0))
        slow = [average_precision_score(right, scores, sample_weight=one) for one in weights]
        np.testing.assert_allclose(found[:, 0], slow)
        assert found[0, 1] == right[order][:20].mean()


def test_errors_that_no_row_finds_cost_average_precision_and_recall(parts):
    right = np.array([True, False, True])
    whole, lost = (
        parts.average_precision(np.ones((1, 3 + n)), right, np.zeros(n))[0] for n in (0, 2)
    )
    np.testing.assert_allclose(lost[[0, -1]], whole[[0, -1]] / 2)
    assert not parts.average_precision(np.ones((1, 2)), np.zeros(0, bool), np.zeros(2)).any()


def test_planted_errors_are_shares_of_the_boxes_and_all_else_stays(parts):
    content = {
        "images": [{"id": 7, "width": 100, "height": 80}],
        "categories": [{"id": 3, "name": "a"}, {"id": 9, "name": "b"}],
        "annotations": [
            {"id": n, "image_id": 7, "category_id": 3, "bbox": [9.0 * n, 60, 8, 20]}
            for n in range(10)
        ],
    }
    kinds = ("missing", "class", "location")
    changed, planted = parts.plant(content, kinds, 0.6, "random", 0)
    assert {kind: len(planted[kind]) for kind in kinds} == dict.fromkeys(kinds, 2)
    rows = {one["id"]: one for one in changed["annotations"]}
    gone = [one for one in content["annotations"] if one["id"] not in rows]
    assert [tuple(one["bbox"]) for one in gone] == [planted["missing"].xywh(n) for n in (0, 1)]
    others = [one for one in content["annotations"] if one["id"] in rows]
    swapped = [one for one in others if rows[one["id"]]["category_id"] == 9]
    moved = [one for one in others if list(rows[one["id"]]["bbox"]) != one["bbox"]]
    assert len(swapped) == len(moved) == 2
    for one in moved:
        x, y, w, h = rows[one["id"]]["bbox"]
        assert x >= 0 and y >= 0 and x + w <= 100 and y + h <= 80
