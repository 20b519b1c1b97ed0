"""A signal during training: the exit status, and a resumed run that ends with the same weights."""

import os
import signal

import torch
from helpers.commands import command

from negvision.engine.interruption import EXIT_INTERRUPTED, InterruptionHook

train = command("train")


def weights(path):
    return torch.load(path, weights_only=False)["state_dict"]


def run(config, work_dir, *argv):
    options = ["--cfg-options", "randomness.seed=3"]
    return train(config, "--work-dir", work_dir, *argv, *options)


def test_exit_code_and_resume(tiny_config, tmp_path, monkeypatch, capsys):
    """The options of real life: auto from the start, a signal, and auto again to the end."""
    assert run(tiny_config, tmp_path / "whole", "--resume", "auto") == 0

    def signaled(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return in_order(self, runner, batch_idx, data_batch, outputs)

    in_order = InterruptionHook.after_train_iter
    monkeypatch.setattr(InterruptionHook, "after_train_iter", signaled)
    assert EXIT_INTERRUPTED == 75
    assert run(tiny_config, tmp_path / "cut", "--resume", "auto") == EXIT_INTERRUPTED
    printed = capsys.readouterr()
    assert "SIGTERM" in printed.out and "interrupted.pth" in printed.out
    assert not (tmp_path / "cut" / "epoch_1.pth").exists()

    monkeypatch.setattr(InterruptionHook, "after_train_iter", in_order)
    assert run(tiny_config, tmp_path / "cut", "--resume", "auto") == 0
    expected, found = (weights(tmp_path / name / "epoch_1.pth") for name in ("whole", "cut"))
    assert all(torch.equal(found[key], value) for key, value in expected.items())
