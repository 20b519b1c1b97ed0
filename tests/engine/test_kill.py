"""After kill -9 at any moment, the resumed run ends with the bits of an undisturbed run."""

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
from negvision.files import atomic_write

KILLS = 20
SETTINGS = {"by_epoch": False, "workers": 0, "ema": True, "accumulate": 2}
CHECKPOINT = {"type": "CheckpointHook", "interval": 2, "by_epoch": False, "max_keep_ckpts": 2}


class Slow(Hook):
    """Slow down the training, so that a kill is likely to meet it."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        time.sleep(0.01)


def train(folder: Path, result: Path) -> None:
    """One attempt, from the newest intact checkpoint on."""
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
    with atomic_write(result) as partial:
        torch.save(outcome(runner), partial)


def start(folder: Path, result: Path, dies_in_writing: bool = False) -> int:
    """The process id of an attempt. A fork has all modules loaded, so it starts at once."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            if dies_in_writing:
                # Called when the content is written and the file not yet renamed.
                os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
            train(folder, result)
            status = 0
        finally:
            os._exit(status)
    return child


def wait(child: int, seconds: float) -> bool:
    """Whether the child ended by itself within the time. Any error in it fails the test."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, f"the run failed (status {status})"
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
    assert wait(start(tmp_path / "undisturbed", expected), 100)
    seconds = time.monotonic() - begun

    rng = random.Random(0)
    killed = attempt = 0
    while killed < KILLS:
        # One run after another. Each is killed until it ends, or until all kills are spent.
        attempt += 1
        folder, result = tmp_path / f"run{attempt}", tmp_path / f"result{attempt}.pt"
        folder.mkdir()
        # A kill may also hit a child that has written its result and not ended yet.
        while not result.exists():
            if killed % 4 == 3:
                child = start(folder, result, dies_in_writing=True)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
                assert any(tmp_path.rglob(".*.partial"))
                killed += 1
                continue
            child = start(folder, result)
            if killed >= KILLS:
                assert wait(child, 100)
            elif not wait(child, rng.uniform(0.2, 0.8) * seconds):
                kill(child)
                killed += 1
        assert_same(torch.load(result), torch.load(expected))
