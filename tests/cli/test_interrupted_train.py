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


def test_resume_without_checkpoint(tiny_config, tmp_path, capsys):
    assert run(tiny_config, tmp_path / "none", "--resume") == 2
    message = capsys.readouterr().err
    assert "no checkpoint (*.pth)" in message and "--resume auto" in message


def test_work_dir_that_is_a_file(tiny_config, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(tiny_config, tmp_path / "file") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_published_weights_cannot_be_resumed(tiny_config, tmp_path, capsys):
    (tmp_path / "a.safetensors").touch()
    assert run(tiny_config, tmp_path / "run", "--resume", str(tmp_path / "a.safetensors")) == 2
    assert "--cfg-options load_from=" in capsys.readouterr().err
