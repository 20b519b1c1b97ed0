"""kill -9 at any moment, and the resumed run ends with the bits of one that was never killed."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from helpers.tiny_training import assert_same, make_runner, outcome
from mmengine.hooks import Hook

from negvision.engine.checkpoints.finding import find_resume_checkpoint

KILLS = 20
SETTINGS = {"by_epoch": False, "workers": 0, "ema": True, "accumulate": 2}
CHECKPOINT = {"type": "CheckpointHook", "interval": 2, "by_epoch": False, "max_keep_ckpts": 2}


class Slow(Hook):
    """So that a kill finds the run at work, as often writing a checkpoint as training."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        time.sleep(0.01)


def train(folder: Path, result: Path | None) -> None:
    """One attempt, from the newest whole checkpoint on."""
    torch.set_num_threads(1)
    newest = find_resume_checkpoint(folder)
    runner = make_runner(
        folder,
        **SETTINGS,
        resume=newest is not None,
        load_from=None if newest is None else str(newest),
        custom_hooks=[Slow()],
        default_hooks={"checkpoint": CHECKPOINT},
    )
    runner.train()
    torch.save(outcome(runner), result)


def start(folder: Path, result: Path) -> int:
    """The process id of an attempt. A fork has all modules loaded, so it begins at once."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            train(folder, result)
            status = 0
        finally:
            os._exit(status)
    return child


def wait(child: int, seconds: float) -> bool:
    """Whether it has ended by itself within the time, and well."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, f"the run failed by itself (status {status})"
            return True
        time.sleep(0.002)
    return False


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments(tmp_path):
    expected = tmp_path / "expected.pt"
    begun = time.monotonic()
    assert wait(start(tmp_path / "whole", expected), 100)
    seconds = time.monotonic() - begun

    rng = random.Random(0)
    partial = []
    killed = 0
    attempt = 0
    while killed < KILLS:
        # One run after another, each killed until it ends or all kills are spent.
        attempt += 1
        folder, result = tmp_path / f"run{attempt}", tmp_path / f"result{attempt}.pt"
        folder.mkdir()
        while not result.exists():
            child = start(folder, result)
            if killed >= KILLS:
                assert wait(child, 100)
                break
            in_writing = killed % 4 == 3
            ended = (
                wait_for_partial(child, folder)
                if in_writing
                else wait(child, rng.uniform(0.2, 0.8) * seconds)
            )
            if ended:
                break
            kill(child)
            killed += 1
            partial += [bool(list(folder.glob(".*.partial")))]
        assert_same(torch.load(result), torch.load(expected))
    assert sum(partial) >= 3, "no kill met a checkpoint that was being written"


def wait_for_partial(child: int, folder: Path) -> bool:
    """Until a checkpoint is being written; whether the run has ended before."""
    for _ in range(100_000):
        if list(folder.glob(".*.partial")):
            return False
        if wait(child, 0.0005):
            return True
    raise AssertionError("no checkpoint was ever written")
