"""Over two and three gloo processes, metrics count repeated samples once."""

import json
import multiprocessing
import os

import pytest
import torch.multiprocessing
from helpers.metrics_on_ranks import cases, evaluated, run

from negvision.detection.metrics.coco_evaluation import evaluate_coco


def test_ranks_equal_one_process(tmp_path, monkeypatch):
    # Ranks exchange their parts in the current folder.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__), prepend=os.pathsep)
    multiprocessing.set_forkserver_preload(["metrics_on_ranks"])
    context = torch.multiprocessing.start_processes(
        run, (str(tmp_path),), nprocs=3, join=False, start_method="forkserver"
    )
    alone = evaluated(tmp_path / "alone")
    while not context.join():
        pass
    for ranks in (2, 3):
        of_ranks = [
            json.loads((tmp_path / f"found_{ranks}_{rank}.json").read_text())
            for rank in range(ranks)
        ]
        for name, one in alone.items():
            # Some sample must be repeated, or this tests nothing.
            assert sum(found[name]["dealt"] for found in of_ranks) > one["dealt"], name
            for found in of_ranks:
                values = found[name]["values"]
                assert values == pytest.approx(one["values"], abs=1e-12, nan_ok=True), name


def test_an_image_that_comes_twice_counts_once_for_coco(tmp_path):
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
    # Counted twice, it would change the AP.
    assert counted[0].average_precision() != counted[1].average_precision()
