"""A calibrated model: what is stored, and the same scores in tests, predictions and exports."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from helpers.commands import command
from helpers.small_models import load_named_config

from negvision import Inferencer
from negvision.data import reliability
from negvision.data.score_calibration import ScoreCalibration
from negvision.engine.calibration import class_scores
from negvision.engine.config.data_files import replace_data_root
from negvision.engine.config.reading import load_config
from negvision.errors import CheckpointError, DatasetError
from negvision.export.graphs.choice import graph_and_metadata
from negvision.inference.runtime import ExportedModel
from negvision.inference.weights import load_model

calibrate, run_test, train = command("calibrate"), command("test"), command("train")
export = command("export")

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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["images", "pixels"])
def test_a_calibrated_classifier_and_segmentor(
    name, digits, checkpoints, tmp_path, capsys, monkeypatch
):
    config, path, target = (tmp_path / one for one in ("c.py", "a.pth", "a_calibrated.pth"))
    cfg = load_named_config(name)
    replace_data_root(cfg, str(digits))
    cfg.work_dir = str(tmp_path / "work")
    cfg.dump(config)
    shutil.copy(checkpoints(name), path)
    monkeypatch.setattr(reliability, "_FEWEST", 5)
    assert calibrate(config, path) == 0
    printed = capsys.readouterr().out
    meta = torch.load(target, weights_only=False)["meta"]
    own = ScoreCalibration.of_meta(meta, "")
    assert f"temperature {own.temperatures[0]:.3f}\n" in printed and not any(own.offsets)
    assert any(abs(value - 1) > 0.01 for value in own.temperatures)
    assert re.search(r"ECE +\S+ before, \S+ after, on the same images", printed)

    # A test, a prediction and an exported model give the same scores.
    kinds = {"images": "negvision.AccuracyMetric", "pixels": "negvision.IoUMetric"}
    evaluator = [f"test_evaluator={{'type':'{kinds[name]}'}}"]
    errors = []
    for model in (path, target):
        assert run_test(config, model, "--cfg-options", *evaluator) == 0
        errors.append(float(re.search(r"calibration: ECE (\S+) of", capsys.readouterr().out)[1]))
    assert errors[0] != errors[1]
    image = next(digits.rglob("*.png"))
    [plain], [found] = (Inferencer(config, one).predict([image]) for one in (path, target))
    file = tmp_path / "model.onnx"
    assert export(config, target, "--out", file, "--legacy") == 0
    [exported] = ExportedModel(str(file)).predict([image])
    if name == "images":
        expected = own.of_probabilities(plain.probabilities)
        assert found.probabilities == pytest.approx(expected, abs=1e-6)
        assert exported.probabilities == pytest.approx(expected, abs=1e-4)
        assert not np.allclose(expected, plain.probabilities, atol=1e-4)
    else:
        assert plain.scores is None and (found.labels == plain.labels).all()
        same = exported.labels == found.labels
        assert exported.scores[same] == pytest.approx(found.scores[same], abs=1e-3)


def test_scores_of_labels_are_the_calibrated_probabilities():
    logits = torch.from_numpy(np.random.default_rng(0).normal(0, 3, (2, 4, 5, 6)))
    own = ScoreCalibration((0.5, 1.0, 2.0, 4.0), (0.0,) * 4)
    expected = own.of_probabilities(logits.softmax(1).movedim(1, -1).numpy()).max(-1)
    found = class_scores(logits, torch.tensor(own.temperatures))
    assert found.numpy() == pytest.approx(expected, rel=1e-5)
    plain = class_scores(logits)
    assert plain.numpy() == pytest.approx(logits.softmax(1).amax(1).numpy(), rel=1e-5)


def test_temperatures_of_classes_are_found():
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (40_000, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (probabilities.cumsum(1) < generator.random((len(logits), 1))).sum(1)
    truth = np.array([2.0, 1.0, 0.5])
    scaled = logits * truth[logits.argmax(1)][:, None]
    found = reliability.fit_temperatures(scaled, labels)
    assert found.temperatures == pytest.approx(truth, rel=0.1)
    biased = np.exp(scaled) / np.exp(scaled).sum(1, keepdims=True)
    hits = labels == scaled.argmax(1)
    before, after = (
        reliability.reliability(one.max(1), hits, from_score=0).error
        for one in (biased, found.of_probabilities(biased))
    )
    assert after < before / 3
    with pytest.raises(DatasetError, match="at least 50 predictions, right and wrong ones"):
        reliability.fit_temperatures(scaled, scaled.argmax(1))


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
