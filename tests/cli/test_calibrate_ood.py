"""A threshold from the command line: chosen, stored, applied, refused where it makes no sense."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commands import command
from mmengine.config import Config

from negvision.inference.weights import ood_quantiles
from negvision.ood import OODThreshold

calibrate = command("calibrate-ood")
evaluate = command("test")
train = command("train")

SLIM = Path(__file__).parents[2] / "configs/_base_/models/faster_rcnn_r18_slim.py"


@pytest.fixture
def config_of(tiny_config, tmp_path):
    """Function from arguments of the box head to a config with a small Faster R-CNN."""

    def write(**head):
        cfg = Config.fromfile(tiny_config, format_python_code=False)
        cfg.model = model = Config.fromfile(SLIM).model
        model.backbone.base_channels, model.neck.in_channels = 8, [8, 16, 32]
        model.roi_head.bbox_head.update(
            {"type": "negvision.AbeTBBoxHead", "num_classes": 2, **head}
        )
        model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=10)
        cfg.randomness = {"seed": 0}
        cfg.custom_hooks = [{"type": "negvision.PredictionSheetHook", "score_thr": 0.0}]
        path = tmp_path / "abet.py"
        cfg.dump(path)
        return path

    return write


@pytest.fixture(scope="module")
def first_run() -> list[Path]:
    """The checkpoint of the first test that trained, which the others copy."""
    return []


@pytest.fixture
def trained(config_of, tmp_path, tmp_path_factory, first_run):
    config = config_of()
    if not first_run:
        folder = tmp_path_factory.mktemp("first")
        assert train(config, "--work-dir", folder) == 0
        first_run.append(folder / "epoch_1.pth")
    (tmp_path / "run").mkdir()
    return config, Path(shutil.copy(first_run[0], tmp_path / "run"))


def load(path):
    return torch.load(path, weights_only=False)


def test_a_threshold_is_chosen_stored_and_applied(trained, tmp_path, capsys, monkeypatch):
    config, checkpoint = trained
    before = checkpoint.read_bytes()
    work = ["--work-dir", tmp_path / "w"]
    assert calibrate(config, checkpoint, "--tpr", 0.8, "--min-score", 0, *work) == 0
    printed = capsys.readouterr().out
    assert "score      abet, higher is more OOD" in printed
    assert checkpoint.read_bytes() == before
    written = load(checkpoint.with_name("epoch_1_ood.pth"))
    threshold = OODThreshold.of_checkpoint(written)
    assert (threshold.tpr, threshold.min_score) == (0.8, 0.0)
    count = threshold.num_samples
    # The threshold keeps 80 % of the scores that its quantiles describe.
    quantiles = np.array(threshold.quantiles)
    assert len(quantiles) == 101 and (np.diff(quantiles) >= 0).all()
    assert quantiles[78] <= threshold.value <= quantiles[82]
    assert ood_quantiles(written["meta"]) == threshold.quantiles
    assert 40 < count <= 80 and f"kept       80.00% of {count} in-distribution samples" in printed
    original = load(checkpoint)
    assert written["state_dict"].keys() == original["state_dict"].keys()
    assert all(
        torch.equal(value, original["state_dict"][key])
        for key, value in written["state_dict"].items()
    )
    assert set(written["meta"]) == {*original["meta"], "ood"}

    # negvision test marks a fifth of the same boxes.
    seen = record_flags(monkeypatch)
    assert evaluate(config, checkpoint.with_name("epoch_1_ood.pth"), *work) == 0
    flags = np.concatenate(seen)
    assert len(flags) == count and flags.sum() == count - math.ceil(0.8 * count)


def record_flags(monkeypatch):
    """What is_ood the metric gets."""
    from mmdet.evaluation import CocoMetric

    seen, process = [], CocoMetric.process

    def spy(self, batch, samples):
        seen.extend(s["pred_instances"]["is_ood"].numpy() for s in samples)
        return process(self, batch, samples)

    monkeypatch.setattr(CocoMetric, "process", spy)
    return seen


def test_another_threshold_from_the_command_line(trained, tmp_path, monkeypatch):
    config, checkpoint = trained
    seen = record_flags(monkeypatch)
    pictures = {}
    for threshold, expected in (("-1000.5", True), ("1e9", False)):
        argv = [config, checkpoint, "--work-dir", tmp_path / "w", "--ood-threshold", threshold]
        argv += ["--out", tmp_path / "found.json", "--drawings", tmp_path / threshold]
        assert evaluate(*argv) == 0
        flags = np.concatenate(seen)
        assert (flags == expected).all()
        found = json.loads((tmp_path / "found.json").read_text())
        assert len(found) == len(flags)
        assert all(box["is_ood"] is expected and "ood_score" in box for box in found)
        sheet = (tmp_path / "w" / "predictions.png").read_bytes()
        pictures[expected] = [sheet, (tmp_path / threshold / "0.png").read_bytes()]
        seen.clear()
    # Unknown boxes are drawn otherwise, on the sheet and on single pictures.
    assert all(one != other for one, other in zip(*pictures.values(), strict=True))


def test_statistics_of_shapings_travel_too(trained, config_of, tmp_path, capsys):
    config = config_of(shaping={"type": "react", "percentile": 80})
    assert train(config, "--work-dir", tmp_path / "shaped") == 2
    assert "Train without it" in capsys.readouterr().err
    checkpoint = trained[1]
    out = tmp_path / "new" / "c.pth"
    work = ["--work-dir", tmp_path / "w"]
    assert calibrate(config, checkpoint, "--min-score", 0, "--out", out, *work) == 0
    weights = load(out)["state_dict"]
    (limit,) = (key for key in weights if key.endswith("shaping.limit"))
    assert weights[limit].isfinite() and limit not in load(checkpoint)["state_dict"]
    assert evaluate(config, out, *work) == 0


@pytest.mark.parametrize("head", ["negvision.AbeTBBoxHead", "negvision.OODBBoxHead"])
def test_a_score_of_features_travels_with_its_statistics(config_of, tmp_path, capsys, head):
    config = config_of(type=head)
    assert train(config, "--work-dir", tmp_path / "run") == 0
    checkpoint, work = tmp_path / "run" / "epoch_1.pth", ["--work-dir", tmp_path / "w"]
    if head == "negvision.OODBBoxHead":  # after so few steps, all proposals are background
        content = load(checkpoint)
        content["state_dict"]["roi_head.bbox_head.fc_cls.bias"][-1] -= 10
        torch.save(content, checkpoint)
    options = ["--min-score", 0, "--score", "mahalanobis"]
    assert calibrate(config, checkpoint, *options, *work) == 0
    assert "score      mahalanobis, higher is more OOD" in capsys.readouterr().out
    calibrated = checkpoint.with_name("epoch_1_ood.pth")
    written, before = load(calibrated)["state_dict"], load(checkpoint)["state_dict"]
    added = {key for key in written if ".feature_score." in key}
    assert written.keys() - added == before.keys() and len(added) == 4
    assert all(torch.equal(written[key], before[key]) for key in before)
    # The file alone computes it; the config has another score.
    assert evaluate(calibrated, *work) == 0
    assert evaluate(config, calibrated, *work) == 2
    assert "calibrated for the score 'mahalanobis'" in capsys.readouterr().err
    assert evaluate(config_of(type=head, score="mahalanobis"), checkpoint, *work) == 2
    assert "Mahalanobis has no statistics of in-distribution" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--score", "knnn"], "--score: score must be one of"),
        (["--score", "auto"], "needs negvision.OODBoxMetric"),
        (["--tpr", "95"], "--tpr: '95' is not a number above 0 and at most 1"),
        (["--min-score", "0", "--tpr", "0.99"], "at least 100 are needed"),
        (["--min-score", "1.1"], "nothing was predicted on the in-distribution images"),
        (["--out", "{tmp}/file/below/c.pth"], "cannot be written"),
    ],
)
def test_errors_of_options(trained, tmp_path, capsys, argv, message):
    (tmp_path / "file").write_text("")
    argv = [arg.format(tmp=tmp_path) for arg in argv]
    assert calibrate(*trained, "--work-dir", tmp_path / "w", *argv) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*_ood.pth")) and not list(tmp_path.rglob(".*.pth.*"))


def test_a_model_without_a_score(tiny_config, tmp_path, capsys):
    assert train(tiny_config, "--work-dir", tmp_path / "run") == 0
    argv = [tiny_config, tmp_path / "run" / "epoch_1.pth", "--work-dir", tmp_path / "w"]
    for run, options in (
        (calibrate, []), (calibrate, ["--score", "knn"]), (evaluate, ["--ood-threshold", "1"])
    ):  # fmt: skip
        assert run(*argv, *options) == 2
        assert re.search("(RetinaNet|the config) has no OOD score", capsys.readouterr().err)


def test_thresholds_that_a_model_cannot_use(trained, config_of, tmp_path, capsys):
    config, checkpoint = trained
    work = ["--work-dir", tmp_path / "w"]
    assert calibrate(config, checkpoint, "--min-score", 0, *work) == 0
    other, calibrated = config_of(score="msp"), checkpoint.with_name("epoch_1_ood.pth")
    for argv, message in (
        ([other, calibrated], "calibrated for the score 'abet'"),
        ([other, checkpoint, "--ood-threshold", "checkpoint"], "epoch_1.pth has no OOD threshold"),
        ([other, checkpoint, "--ood-threshold", "high"], "'high' is not a number or the word"),
    ):
        assert evaluate(*argv, *work) == 2
        assert message in capsys.readouterr().err
