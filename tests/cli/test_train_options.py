"""Options of training, from the command line to what they leave."""

import json

import pytest
import torch
from helpers.commands import command

run_train = command("train")


def test_all_from_the_command_line(tiny_config, tmp_path):
    options = ["--amp", "bf16", "--accumulate", "2", "--sync-bn", "--ema", "0.01"]
    options += ["--checkpoint-activations", "backbone.layer2", "neck", "--auto-scale-lr"]
    work = tmp_path / "run"
    assert run_train([str(tiny_config), "--work-dir", str(work), *options]) == 0
    (log,) = work.glob("*/*.log")
    text = log.read_text()
    assert "['backbone.layer2', 'neck']" in text and "EMAHook" in text
    (scalars,) = work.glob("*/vis_data/scalars.json")
    rates = [json.loads(line).get("lr") for line in scalars.read_text().splitlines()]
    assert [rate for rate in rates if rate][-1] == pytest.approx(0.01 * 2 * 2 / 4)
    assert "ema_state_dict" in torch.load(work / "epoch_1.pth", weights_only=False)


def test_compiled_from_the_command_line(tiny_config, tmp_path, monkeypatch, capsys):
    argv = [str(tiny_config), "--work-dir", str(tmp_path / "run"), "--compile"]
    eager = ["--cfg-options", "compile.backend=eager"]
    assert run_train([*argv, *eager]) == 0
    (log,) = (tmp_path / "run").glob("*/*.log")
    assert "compile: backbone, neck, bbox_head; the first iterations take" in log.read_text()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert run_train(argv) == 2
    message = capsys.readouterr().err
    assert "there is no no-such-compiler on PATH" in message and "without --compile" in message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--compile", "--checkpoint-activations"], "do not go together"),
        (["--checkpoint-activations", "bakbone"], "nearest: 'backbone'"),
        (["--cfg-options", "sync_bn=yes"], "it must be one of 'torch', 'mmcv'"),
    ],
)
def test_wrong_options(tiny_config, tmp_path, capsys, options, expected):
    assert run_train([str(tiny_config), "--work-dir", str(tmp_path / "run"), *options]) == 2
    assert expected in capsys.readouterr().err
