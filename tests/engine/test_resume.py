"""An interrupted and resumed run ends with the same bits as an uninterrupted one."""

import functools
import os
import signal

import pytest
import torch
from helpers.tiny_training import At, assert_same, make_runner, outcome

from negvision.engine.checkpoints.finding import find_resume_checkpoint
from negvision.engine.interruption import TrainingInterrupted

SETTINGS = [
    {"by_epoch": True},
    {"by_epoch": False},
    {"by_epoch": True, "workers": 2},
    {"by_epoch": False, "workers": 2},
    {"by_epoch": True, "accumulate": 4, "ema": True},
    {"by_epoch": False, "accumulate": 4, "ema": True},
]


def ask_to_stop(number=signal.SIGUSR1):
    os.kill(os.getpid(), number)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    @functools.cache
    def train(index):
        runner = make_runner(tmp_path_factory.mktemp("whole"), **SETTINGS[index])
        runner.train()
        return outcome(runner)

    return train


@pytest.mark.parametrize("iteration", [1, 6, 11])
@pytest.mark.parametrize("index", range(len(SETTINGS)))
def test_bit_identical_after_a_signal(index, iteration, tmp_path, uninterrupted):
    settings = SETTINGS[index]
    hook = At(iteration, ask_to_stop)
    runner = make_runner(tmp_path, custom_hooks=[hook], **settings)
    with pytest.raises(TrainingInterrupted, match=r"SIGUSR1.*interrupted\.pth.*--resume"):
        runner.train()
    assert runner.iter + 1 == iteration
    checkpoint = find_resume_checkpoint(tmp_path)
    assert checkpoint.name == "interrupted.pth"

    resumed = make_runner(tmp_path, resume=True, load_from=str(checkpoint), **settings)
    resumed.train()
    assert_same(outcome(resumed), uninterrupted(index))
    # The next regular checkpoint takes its place.
    assert not checkpoint.exists()


@pytest.mark.parametrize("index", [0, 1, 4])
def test_bit_identical_after_a_signal_in_an_evaluation(index, tmp_path, uninterrupted):
    settings = SETTINGS[index]
    at = 6 if settings["by_epoch"] else 5
    hook = At(at, functools.partial(ask_to_stop, signal.SIGTERM), stage="val")
    runner = make_runner(tmp_path, custom_hooks=[hook], **settings)
    with pytest.raises(TrainingInterrupted, match="SIGTERM"):
        runner.train()
    counted = At(at, lambda: None, stage="val")
    resumed = make_runner(
        tmp_path,
        resume=True,
        load_from=str(tmp_path / "interrupted.pth"),
        custom_hooks=[counted],
        **settings,
    )
    resumed.train()
    assert counted.stage is None, "the interrupted evaluation did not run again"
    assert_same(outcome(resumed), uninterrupted(index))


@pytest.mark.parametrize("index", [0, 1])
def test_bit_identical_from_a_regular_checkpoint(index, tmp_path, uninterrupted):
    settings = SETTINGS[index]
    make_runner(tmp_path, **settings).train()
    name = "epoch_2.pth" if settings["by_epoch"] else "iter_8.pth"
    resumed = make_runner(tmp_path, resume=True, load_from=str(tmp_path / name), **settings)
    resumed.train()
    assert_same(outcome(resumed), uninterrupted(index))


def test_random_seed_comes_from_the_checkpoint(tmp_path):
    free = {"randomness": {"seed": None}}
    whole = make_runner(tmp_path / "whole", **free)
    whole.train()
    expected = outcome(whole)
    first = tmp_path / "whole" / "epoch_2.pth"
    resumed = make_runner(tmp_path / "b", resume=True, load_from=str(first), **free)
    assert resumed.seed != whole.seed
    resumed.train()
    assert resumed.seed == whole.seed
    assert_same(outcome(resumed), expected)


def test_checkpoint_has_versions_and_commit(tmp_path):
    make_runner(tmp_path).train()
    meta = torch.load(tmp_path / "epoch_3.pth", weights_only=False)["meta"]
    assert meta["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert {"negvision", "mmengine", "numpy", "python"} <= meta["versions"].keys()
    assert "git" in meta and "cfg" in meta
    assert len(meta["random_states"]) == 1


def test_signal_handlers_are_restored(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    make_runner(tmp_path).train()
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_batch_size_resumes_at_the_same_sample(tmp_path):
    hook = At(8, ask_to_stop)
    with pytest.raises(TrainingInterrupted):
        make_runner(tmp_path, custom_hooks=[hook]).train()
    resumed = make_runner(
        tmp_path,
        resume=True,
        load_from=str(tmp_path / "interrupted.pth"),
        batch=2,
    )
    resumed.train()
    # Two batches of four were done in the second epoch, so 14 of its 22 samples are left.
    assert len(resumed.train_dataloader.dataset.asked) == 14 + 22
