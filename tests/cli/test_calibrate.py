"""A calibrated detector: what is stored, and the same scores in tests, predictions and exports."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.commands import command

from negvision import Inferencer
from negvision.data.score_calibration import ScoreCalibration
from negvision.detection.metrics import reliability
from negvision.engine.config.reading import load_config
from negvision.errors import CheckpointError
from negvision.export.graphs.choice import graph_and_metadata
from negvision.inference.runtime import ExportedModel
from negvision.inference.weights import load_model

calibrate, run_test, train = command("calibrate"), command("test"), command("train")

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_calibrated_detector(tiny_config, coco_root, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    assert train(tiny_config, "--work-dir", folder) == 0
    # As if it had learned something: scores in the middle, and objects where it finds boxes.
    path = folder / "epoch_1.pth"
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["state_dict"]["bbox_head.retina_cls.bias"] += 4
    torch.save(checkpoint, path)
    first = tmp_path / "first.json"
    assert run_test(path, "--out", first, "--work-dir", tmp_path / "test") == 0
    truth = json.loads((coco_root / "annotations" / "all.json").read_text())
    truth["annotations"] = [
        {"id": number, **one, "area": one["bbox"][2] * one["bbox"][3], "iscrowd": 0}
        for number, one in enumerate(json.loads(first.read_text())[::3], start=1)
    ]
    (tmp_path / "found.json").write_text(json.dumps(truth))
    option = ["--cfg-options", f"val_evaluator.ann_file={tmp_path / 'found.json'}"]
    capsys.readouterr()
    monkeypatch.setattr(reliability, "_FEWEST", 1000)
    assert calibrate(path, *option) == 2
    assert "a calibration needs at least 1000 detections" in capsys.readouterr().err
    target = path.with_name("epoch_1_calibrated.pth")
    assert not target.exists()

    monkeypatch.setattr(reliability, "_FEWEST", 10)
    assert calibrate(path, *option) == 0
    printed = capsys.readouterr().out
    meta = torch.load(target, weights_only=False)["meta"]
    own = ScoreCalibration.of_meta(meta, "")
    assert (
        f"temperature {own.temperatures[0]:.3f}  offset" in printed and "after, on the" in printed
    )
    assert any(abs(value - 1) > 0.01 for value in own.temperatures)

    # A test and predictions give the same scores.
    results = []
    for model in (path, target):
        file = tmp_path / f"{model.stem}.json"
        assert run_test(model, "--out", file, "--work-dir", tmp_path / "test") == 0
        results.append(json.loads(file.read_text()))
    labels = np.array([[7, 3].index(one["category_id"]) for one in results[0]])
    scores = np.array([one["score"] for one in results[0]], np.float32)
    tested = np.sort([one["score"] for one in results[1]])
    assert tested == pytest.approx(np.sort(own.apply(scores, labels)), abs=1e-6)
    image = coco_root / "images" / "3.png"
    [plain], [found] = (list(Inferencer(model).predict([image])) for model in (path, target))
    assert np.sort(found.scores) == pytest.approx(
        np.sort(own.apply(plain.scores, plain.labels)), abs=1e-6
    )
    assert (np.diff(found.scores) <= 0).all() and not (found.scores == plain.scores).all()

    # The exported file has them too, but the graph does not.
    cfg = load_config(target)
    network, stored = load_model(cfg, target)
    _, metadata = graph_and_metadata(cfg, network, stored)
    assert (metadata.temperatures, metadata.offsets) == (own.temperatures, own.offsets)
    rows = {
        "boxes": np.zeros((1, 2, 4), np.float32),
        "scores": np.array([[0.9, 0.8]], np.float32),
        "labels": np.array([[0, 1]]),
        "counts": np.array([2]),
    }
    exported = ExportedModel.of_graph(lambda inputs: rows, metadata)
    [found] = exported.predict([image])
    expected = own.apply(rows["scores"][0], rows["labels"][0])
    assert found.scores == pytest.approx(np.sort(expected)[::-1])

    assert calibrate(target) == 2
    assert "is calibrated already" in capsys.readouterr().err


def test_the_scale_of_scores_is_found():
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 1.5, 20_000)
    labels = generator.integers(0, 3, len(logits))
    hits = generator.random(len(logits)) < 1 / (1 + np.exp(-logits))
    # Class 0 is too sure, class 1 honest, class 2 timid and too low.
    temperature, offset = np.array([2.0, 1.0, 0.6]), np.array([0.0, 0.0, 1.5])
    scores = 1 / (1 + np.exp(-(logits - offset[labels]) * temperature[labels]))
    found = reliability.fit_calibration(scores, hits, labels, 4)
    assert found.temperatures[:3] == pytest.approx(temperature, rel=0.15)
    assert found.offsets[:3] == pytest.approx(offset, abs=0.15)
    # A class without detections takes the scale of all.
    assert 0 < found.offsets[3] < 1.5
    before, after = (
        reliability.reliability(one, hits) for one in (scores, found.apply(scores, labels))
    )
    assert after.error < before.error / 3


@pytest.mark.parametrize(
    "stored",
    [
        {"temperatures": [0.0, 1.0], "offsets": [0, 0]},
        {"temperatures": [1.0], "offsets": [float("nan")]},
        {"temperatures": [1.0], "offsets": []},
        {"temperatures": [], "offsets": []},
        {"temperatures": [1.0]},
        "text",
        [None],
    ],
)
def test_a_malformed_calibration_is_refused(stored):
    with pytest.raises(CheckpointError, match=r"x\.pth: the calibration .* is malformed"):
        ScoreCalibration.of_meta({"calibration": stored}, "x.pth")
    assert ScoreCalibration.of_meta({}, "x.pth") is None


def test_scores_outside_0_to_1_stay():
    scores = np.array([0.0, 1.0, -2.0, 7.0], np.float32)
    found = ScoreCalibration((3.0,), (1.0,)).apply(scores, np.zeros(4, int))
    assert found.tolist() == scores.tolist() and found.dtype == np.float32
