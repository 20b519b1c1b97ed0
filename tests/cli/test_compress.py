"""``negvision compress``: rounds, what is kept, interruptions, and what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, toy_data
from helpers.commands import command
from mmengine.config import Config

from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.engine.config.reading import load_config
from negvision.engine.interruption import EXIT_INTERRUPTED
from negvision.engine.pruning import KeepZerosHook, prunable
from negvision.errors import UserError
from negvision.inference.weights import build_model
from negvision.report import compression
from negvision.report.class_outcomes import Outcomes, figures_of
from negvision.report.compression import Compression, Plan

compress, train, run_test = command("compress"), command("train"), command("test")
_cache = {}

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def speed_not_measured(monkeypatch):
    """It takes seconds, and is another one each time."""
    rates = lambda subjects, *_: {name: [1.0] for name in subjects}  # noqa: E731
    monkeypatch.setattr(compression, "images_per_second", rates)


@pytest.fixture
def trained(tiny_config, tmp_path_factory):
    """A detector that finds all squares and bars, with a checkpoint from its beginning."""
    if "run" not in _cache:
        text = tiny_config.read_text().replace('"SGD", lr=0.01', '"AdamW", lr=0.002')
        text = text.replace("max_epochs=1, val_interval=1", "max_epochs=30, val_interval=30")
        checkpoint = 'checkpoint=dict(type="CheckpointHook", interval=3),\n    logger='
        tiny_config.write_text(text.replace("    logger=", f"    {checkpoint}", 1))
        folder = tmp_path_factory.mktemp("run")
        assert train(tiny_config, "--work-dir", folder) == 0
        for file in folder.glob("epoch_*.pth"):
            if file.name not in ("epoch_3.pth", "epoch_27.pth", "epoch_30.pth"):
                file.unlink()
        _cache["run"] = folder
    return _cache["run"] / "epoch_30.pth"


def weights(file):
    return load_checkpoint_file(file, "cpu")["state_dict"]


def test_an_interrupted_compression_ends_in_the_same_bits(trained, tmp_path, capsys, monkeypatch):
    argv = [trained, "--protect", "square=0.1", "bar=0.1", "--sparsity", "0.3", "--rounds", "2"]
    argv += ["--iters", "20"]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert compress(*argv, "--out", whole) == 0
    printed = capsys.readouterr().out
    assert "protected: square, recall 1.000" in printed and "at least 0.100 is to stay" in printed
    assert "growth of the magnitude since" in printed and "epoch_3.pth" in printed
    assert "from the weights of" in printed and "epoch_27.pth" in printed
    assert "round 2 of 2: " in printed and "30.0% of the weights are 0" in printed

    after = KeepZerosHook.after_train_iter

    def interrupt(self, runner, *args, **kwargs):
        after(self, runner, *args, **kwargs)
        if runner.iter == 4 and "round_2" in runner.work_dir:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(KeepZerosHook, "after_train_iter", interrupt)
        assert compress(*argv, "--out", halves) == EXIT_INTERRUPTED
    assert "run the same command with --resume" in capsys.readouterr().out
    assert not (halves / "compressed.pth").exists()
    assert compress(*argv, "--out", halves) == 2
    assert "continue it with --resume" in capsys.readouterr().err
    assert compress(*argv[:-1], "21", "--out", halves, "--resume") == 2
    assert "has another iters" in capsys.readouterr().err
    assert compress(*argv, "--out", halves, "--resume") == 0

    ended, expected = weights(halves / "compressed.pth"), weights(whole / "compressed.pth")
    assert ended.keys() == expected.keys()
    assert all(torch.equal(ended[name], expected[name]) for name in expected)
    for name in prunable(build_model(load_config(str(whole / "compressed.pth")))):
        assert abs(float((expected[name] == 0).float().mean()) - 0.3) < 0.02
    page = (whole / "compression.html").read_text()
    assert "square (protected)" in page and "false negatives, compressed" in page


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_fewer_channels_export_and_run_without_torch(precision, trained, tmp_path, capsys):
    pytest.importorskip("torch_pruning", reason="torch-pruning is not installed")
    out, onnx = tmp_path / "out", tmp_path / "small.onnx"
    argv = ["--protect", "square", "--flops", "0.6", "--rounds", "2", "--iters", "40"]
    argv += ["--out", out, "--export", onnx]
    calibration = [] if precision == "fp32" else ["--calibration", Path(_image_of(trained)).parent]
    assert compress(trained, *argv, *calibration) == 0
    printed = capsys.readouterr().out
    assert "compared with PyTorch" in printed and f"2 classes, {precision}" in printed
    assert run_test(onnx, "--work-dir", tmp_path / "test") == 0
    assert "bbox_mAP_50 1.0" in capsys.readouterr().out
    small = out / "compressed.pth"
    content = json.loads((out / "rounds.json").read_text())
    ratio = content["rounds"][1]["operations"] / content["original"]["operations"]
    assert 0.5 < ratio <= 0.6 and content["rounds"][1]["bytes"] < content["original"]["bytes"]
    assert run_test(small, "--work-dir", tmp_path / "test") == 0
    capsys.readouterr()
    given = _config_of(trained, tmp_path)
    assert run_test(given, small, "--work-dir", tmp_path / "test") == 2
    assert "holds a pruned model" in capsys.readouterr().err
    assert load_config(str(small)).test_evaluator == load_config(str(trained)).test_evaluator
    image = tmp_path / "a.png"
    shutil.copyfile(_image_of(trained), image)
    code = (
        "import sys; from negvision.inference.runtime import ExportedModel; "
        f"[one] = ExportedModel({str(onnx)!r}).predict([{str(image)!r}]); "
        "assert 'torch' not in sys.modules; print(len(one))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and int(done.stdout) > 0, done.stderr


def _config_of(trained, folder):
    path = folder / "given.py"
    load_config(str(trained)).dump(path)
    return path


def _image_of(trained):
    dataset = load_config(str(trained)).test_dataloader.dataset
    return f"{dataset.data_root}/images/0.png"


def test_a_round_that_loses_the_protected_class_is_not_kept(trained, tmp_path, capsys, monkeypatch):
    found = compression.outcomes_of

    def blind(cfg, checkpoint, folder):
        outcomes, size = found(cfg, checkpoint, folder)
        if folder.name == "round_2":
            outcomes.hit[:] = False
        return outcomes, size

    monkeypatch.setattr(compression, "outcomes_of", blind)
    out = tmp_path / "out"
    argv = ["--protect", "bar", "--sparsity", "0.5", "--rounds", "3", "--iters", "12"]
    assert compress(trained, *argv, "--out", out) == 2
    printed = capsys.readouterr().out
    assert "--sparsity 0.5 was not reached: recall of bar 0.000, below 0.980" in printed
    assert "The best round that holds is kept" in printed and "round 3" not in printed
    kept, first = weights(out / "compressed.pth"), weights(out / "round_1.pth")
    assert all(torch.equal(kept[name], first[name]) for name in first)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--sparsity", "0.5", "--protect", "squares"], "no such class; nearest: 'square'"),
        (["--sparsity", "0.5", "--protect", "bar=1.5"], "a recall is above 0 and at most 1"),
        (["--sparsity", "0.9999"], "leaves nothing of the layer"),
        (["--size", "99"], "nothing to prune"),
        (["--flops", "0.000001"], "cannot be reached: a channel of every layer must stay"),
        (["--flops", "0.5", "--rewind", "a.pth"], "--rewind is of --sparsity"),
        (["--sparsity", "0.5", "--calibration", "."], "--calibration is of --export"),
        (["--sparsity", "2"], "is not a number between 0 and 1"),
        ([], "one of the arguments --sparsity --flops --size is required"),
    ],
)
def test_what_cannot_be_is_refused_before_training(argv, words, trained, tmp_path, capsys):
    if {"--flops", "--size"} & {*argv} and "--rewind" not in argv:
        pytest.importorskip("torch_pruning", reason="torch-pruning is not installed")
    assert compress(trained, *argv, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error
    assert not list((tmp_path / "out").glob("*.pth"))


def test_a_recall_above_that_of_the_original_is_refused(trained, tmp_path, monkeypatch):
    found = compression.figures_of

    def worse(*args):
        figures = found(*args)
        figures["bar"]["recall"][0], figures["square"]["recall"] = 0.7, [None, None, None]
        return figures

    monkeypatch.setattr(compression, "figures_of", worse)
    for protect, words in (({"bar": 0.8}, "recall of 0.7000 itself"), ({"square": None}, "has no")):
        cfg = load_config(str(trained))
        plan = Plan("sparsity", 0.5, tmp_path / words[:3], protect, iters=4)
        with pytest.raises(UserError, match=words):
            Compression(cfg, trained, plan, print).run()


@pytest.mark.parametrize("name", ["quickstart/abet_images.py", "quickstart/abet_pixels.py"])
@pytest.mark.parametrize("goal", ["sparsity", "flops"])
def test_classifiers_and_segmentors(name, goal, tmp_path, monkeypatch):
    if goal == "flops":
        pytest.importorskip("torch_pruning", reason="torch-pruning is not installed")
    monkeypatch.setenv("NEGVISION_DATA", str(tmp_path / "data"))
    cfg = Config.fromfile(ROOT / "configs" / name)
    toy_data.in_files(cfg)
    toy_data.shrink_model(cfg)
    classes = toy_data.class_names(cfg)
    toy_data.set_classes(cfg, classes)
    toy_data.write(cfg, toy_data.Toy(classes))
    model = build_model(cfg)
    file = tmp_path / "first.pth"
    torch.save({"state_dict": model.state_dict(), "meta": {}}, file)
    plan = Plan(goal, 0.6, tmp_path / "out", rounds=1, iters=2, resamples=20)
    lines = []
    assert Compression(cfg, file, plan, lines.append).run() == 0
    assert "GFLOP" in lines[-1]
    row = json.loads((tmp_path / "out" / "rounds.json").read_text())["rounds"][0]
    assert [*row["classes"]] == list(classes)
    assert sum(one["objects"] for one in row["classes"].values()) > 0


def test_recall_at_the_false_positives_of_the_original():
    """Against a loop over thresholds, with ties, weights, and a class without objects."""
    rng = np.random.default_rng(0)
    count, images, classes = 60, 5, ("a", "b", "none")
    objects = np.column_stack([rng.integers(1, 9, (images, 2)), np.zeros((images, 1), int)])

    def outcomes():
        columns = rng.integers(2, size=count), rng.integers(images, size=count)
        scores = rng.integers(6, size=count) / 6
        return Outcomes(
            classes,
            *columns,
            scores,
            np.ones(count),
            rng.random(count) < 0.5,
            scores > 0.5,
            objects,
        )

    original, now = outcomes(), outcomes()
    weights = rng.integers(3, size=(4, images))
    limits = original.false_positives(weights)
    found = now.figures(weights, limits)
    for row, weight in enumerate(weights):
        for place in range(2):
            mine = original.label == place
            wrong = mine & original.shown & ~original.hit
            assert limits[row, place] == weight[original.image[wrong]].sum()
            best = 0
            for least in [2, *now.score]:
                kept = (now.label == place) & (now.score >= least)
                if weight[now.image[kept & ~now.hit]].sum() <= limits[row, place]:
                    best = max(best, weight[now.image[kept & now.hit]].sum())
            total = weight @ objects[:, place]
            assert found[row, 2, place] == total - best
            assert total == 0 or found[row, 0, place] == pytest.approx(best / total)
    figures = figures_of(now, original, resamples=50)
    assert figures["none"]["recall"] == [None] * 3 and figures["none"]["objects"] == 0
    value, low, high = figures["a"]["recall"]
    assert 0 <= low <= high <= 1 and value == pytest.approx(found_at_once(now, original))


def found_at_once(now, original):
    ones = np.ones((1, len(now.objects)))
    return now.figures(ones, original.false_positives(ones))[0, 0, 0]
