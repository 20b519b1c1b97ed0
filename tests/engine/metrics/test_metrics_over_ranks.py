"""Over two and three gloo processes no metric counts a repeated sample twice."""

import json

import pytest
from helpers.gloo import run_on_ranks
from helpers.metrics_on_ranks import cases, evaluated, save_evaluated

from negvision.detection.metrics.coco_evaluation import evaluate_coco


def test_results_over_ranks_equal_one_process(tmp_path, monkeypatch):
    # Ranks exchange their parts in the current folder.
    monkeypatch.chdir(tmp_path)
    alone = evaluated(tmp_path / "alone")
    for ranks in (2, 3):
        run_on_ranks(save_evaluated, ranks, tmp_path, tmp_path)
        of_ranks = [
            json.loads((tmp_path / f"found_{ranks}_{rank}.json").read_text())
            for rank in range(ranks)
        ]
        for name, one in alone.items():
            # The sampler repeated some sample.
            assert sum(found[name]["dealt"] for found in of_ranks) > one["dealt"], name
            for found in of_ranks:
                expected = pytest.approx(one["results"], abs=1e-12, nan_ok=True)
                assert found[name]["results"] == expected, name


def test_coco_metric_counts_a_repeated_image_once(tmp_path):
    build, samples = cases(tmp_path / "cases")["CocoMetric"]
    once, twice = build(), build()
    for metric, times in ((once, 1), (twice, 2)):
        for _ in range(times):
            metric.process({}, samples)
    counted = [
        evaluate_coco(metric.ground_truth, metric._detections(metric.results), metric._category_ids)
        for metric in (once, twice)
    ]
    assert twice.evaluate(2 * len(samples)) == pytest.approx(once.evaluate(7), nan_ok=True)
    # Counting it twice would change the result.
    assert counted[0].average_precision() != counted[1].average_precision()
