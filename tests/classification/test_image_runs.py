"""The recipe's configs on a tiny set: training, test, threshold, and unknown images."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commands import command

from negvision.classification.ood_image_metric import OODImageMetric
from negvision.ood import FEATURE_SCORE_NAMES, SCORE_NAMES, OODThreshold
from negvision.ood.records import OODRecords

calibrate = command("calibrate-ood")
evaluate = command("test")
train = command("train")

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = [f"stripes {number}" for number in range(10)]
SHORT = """
_base_ = "{base}"
model = dict(backbone=dict(widths=[4, 8, 8]), in_features=8)
train_dataloader = dict(batch_size=8)
val_dataloader = dict(batch_size=16)
test_dataloader = dict(batch_size=16)
train_cfg = dict(max_epochs=2)
val_evaluator = dict(resamples=10)
test_evaluator = dict(resamples=10)
default_hooks = dict(logger=dict(interval=5))
# Visualizers are global by name, so each run needs its own.
visualizer = dict(name="{name}")
"""


def stripes(label, rng, side=32):
    """Noisy horizontal stripes with a different period for each class."""
    rows = np.sin(np.arange(side) * (label + 1) * 0.3)[:, None, None]
    noise = rng.normal(0, 20, (side, side, 3))
    return np.clip(128 + 90 * rows + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_pack):
    """Packs named as in the recipe: 40 training images, 20 test images, 20 unknown each."""
    root, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)

    def save(name, pictures, labels, classes):
        write_pack(root / "cifar" / f"{name}.npz", pictures, labels, classes)

    for name, count in {"cifar10_train": 40, "cifar10_test": 20}.items():
        labels = [number % 10 for number in range(count)]
        save(name, [stripes(label, rng) for label in labels], labels, CLASSES)
    for name, side in {"cifar100_test": 32, "mnist_test": 28}.items():
        noise = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(20)]
        save(name, noise, [number % 4 for number in range(20)], ["noise"] * 4)
    return root


@pytest.fixture
def config_of(data, tmp_path, monkeypatch):
    monkeypatch.setenv("NEGVISION_DATA", str(data))

    def write(name="cifar10_abet.py", options=""):
        path = tmp_path / name
        base = CONFIGS / "abet" / name
        path.write_text(SHORT.format(base=base, name=f"{tmp_path.name}-{name}") + options)
        return path

    return write


def run(command, *argv):
    return command([str(arg) for arg in argv])


def record(monkeypatch):
    """Record the predictions passed to the metric."""
    seen, process = [], OODImageMetric.process

    def spy(self, batch, samples):
        seen.extend(dict(sample) for sample in samples)
        return process(self, batch, samples)

    monkeypatch.setattr(OODImageMetric, "process", spy)
    return seen


def test_runs_that_begin_in_one_second_write_into_their_own_folders(
    config_of, tmp_path, monkeypatch
):
    monkeypatch.setattr("time.strftime", lambda *args: "20260101_000000")
    config = config_of()
    assert run(train, config, "--work-dir", tmp_path / "run") == 0
    checkpoint = tmp_path / "run" / "epoch_2.pth"
    assert run(evaluate, config, checkpoint, "--work-dir", tmp_path / "t") == 0
    assert len(list((tmp_path / "t").glob("**/ood_scores.npz"))) == 1
    assert len(list((tmp_path / "t").glob("**/*.log"))) == 1


def test_training_testing_and_a_threshold(config_of, tmp_path, capsys, monkeypatch):
    config, work = config_of(), ["--work-dir", tmp_path / "run"]
    assert run(train, config, *work) == 0
    printed = capsys.readouterr().out
    assert "warning:" not in printed, printed
    assert "AbeTClassifier" in printed and "40 images, 8 per batch" in printed
    assert "epoch 2/2  iter 5/5" in printed and "val  after 2 epochs" in printed
    # The AUROC of every epoch, which shows a collapse.
    (scalars,) = (tmp_path / "run").glob("*/vis_data/scalars.json")
    entries = [json.loads(line) for line in scalars.read_text().splitlines()]
    for name in ("auroc", "accuracy", "cifar100/auroc", "mnist/fpr95_ood", "msp/auroc"):
        values = [entry[f"ood/{name}"] for entry in entries if f"ood/{name}" in entry]
        assert len(values) == 2 and all(0 <= value <= 1 for value in values), name
    trained = [entry for entry in entries if "loss" in entry]
    assert all(0 <= entry["accuracy"] <= 100 and entry["loss"] > 0 for entry in trained)

    checkpoint, seen = tmp_path / "run" / "epoch_2.pth", record(monkeypatch)
    work = ["--work-dir", tmp_path / "t"]
    assert run(evaluate, config, checkpoint, *work) == 0
    printed = capsys.readouterr().out
    assert "warning:" not in printed, printed
    assert "40 OOD and 20 ID on 60 images, prevalence 0.6667" in printed
    for source in ("cifar100", "mnist"):
        assert sum(line.startswith(f"{source} ") for line in printed.splitlines()) == 5
    (scores,) = (tmp_path / "t").glob("**/ood_scores.npz")
    records = OODRecords.load(scores)
    assert records.classes == CLASSES and len(records.paths) == 60
    assert len(seen) == 60 and not any("pred_is_ood" in sample for sample in seen)
    known = np.array([s["ood_score"].item() for s in seen if not s["is_ood"]])
    np.testing.assert_allclose(records.scores["abet"][~records.is_ood], known)

    before = checkpoint.read_bytes()
    seen.clear()
    assert run(calibrate, config, checkpoint, "--tpr", 0.8, *work) == 0
    printed = capsys.readouterr().out
    assert "kept       80.00% of 20 in-distribution samples" in printed
    assert "warning:" not in printed, printed
    assert checkpoint.read_bytes() == before
    calibrated = checkpoint.with_name("epoch_2_ood.pth")
    threshold = OODThreshold.of_checkpoint(torch.load(calibrated, weights_only=False))
    assert (threshold.score, threshold.num_samples, threshold.tpr) == ("abet", 20, 0.8)
    # Other batches, so the last bits of the scores differ.
    assert threshold.value == pytest.approx(np.sort(known)[15:17].mean(), rel=1e-4)

    seen.clear()
    assert run(evaluate, config, calibrated, *work) == 0
    assert "warning:" not in capsys.readouterr().out
    assert len(seen) == 60
    for sample in seen:
        assert bool(sample["pred_is_ood"]) == (sample["ood_score"].item() > threshold.value)
    assert sum(bool(s["pred_is_ood"]) for s in seen if not s["is_ood"]) == 4


@pytest.mark.parametrize("name", ["cifar10_plain.py", "cifar10_abet_inner.py"])
def test_the_other_configs_run(config_of, tmp_path, capsys, name):
    config = config_of(name, "train_cfg = dict(max_epochs=1)\n")
    assert run(train, config, "--work-dir", tmp_path / "run") == 0
    printed = capsys.readouterr().out
    assert "warning:" not in printed, printed
    own = "msp" if "plain" in name else "abet"
    assert f"cifar100  {own}" in printed and "val  after 1 epochs" in printed
    argv = [config, tmp_path / "run" / "epoch_1.pth", "--work-dir", tmp_path / "t"]
    assert run(evaluate, *argv) == 0
    assert "40 OOD and 20 ID" in capsys.readouterr().out

    # The best of all scores that 40 training images allow, stored with what it needs.
    assert run(calibrate, *argv, "--score", "auto", "--tpr", 0.8) == 0
    said = capsys.readouterr().out
    table = said[said.index("score ") :].splitlines()
    ranks = [line.split() for line in table[1 : 1 + len(SCORE_NAMES) + 4]]
    assert {row[0] for row in ranks} == {*SCORE_NAMES, *FEATURE_SCORE_NAMES} - {"knn", "nnguide"}
    aurocs = [float(row[1]) for row in ranks]
    assert aurocs == sorted(aurocs, reverse=True)
    assert "knn: KNN compares with 50 neighbors, but only 40" in said
    calibrated = tmp_path / "run" / "epoch_1_ood.pth"
    assert torch.load(calibrated, weights_only=False)["meta"]["ood"]["score"] == ranks[0][0]
    assert run(evaluate, calibrated, "--work-dir", tmp_path / "t") == 0
    [auroc] = re.findall(r"^test +auroc ([\d.]+)", capsys.readouterr().out, re.MULTILINE)
    assert 100 * float(auroc) == pytest.approx(float(ranks[0][1]), abs=0.06)


def test_data_that_is_missing_or_damaged(config_of, data, tmp_path, capsys, monkeypatch):
    config = config_of()
    monkeypatch.setenv("NEGVISION_DATA", str(tmp_path / "nowhere"))
    assert run(train, config, "--work-dir", tmp_path / "run") == 2
    assert f"{tmp_path}/nowhere/cifar/cifar10_train.npz" in capsys.readouterr().err
    folder = tmp_path / "nowhere" / "cifar"
    folder.mkdir(parents=True)
    for path in (data / "cifar").iterdir():
        (folder / path.name).write_bytes(path.read_bytes()[: 500 if "train" in path.name else None])
    assert run(train, config, "--work-dir", tmp_path / "run") == 2
    message = capsys.readouterr().err
    assert "cifar10_train.npz: not a pack of images, or a damaged one" in message
    assert "Traceback" not in message
