"""However a training ends, its state is saved and the log says why."""

import functools
import logging
import os
import signal
import time

import pytest
from helpers.tiny_training import At, Loss, Net, Noisy, assert_same, loader, make_runner, outcome
from mmengine.hooks import EarlyStoppingHook, Hook

from negvision.engine.checkpoints.finding import find_resume_checkpoint
from negvision.engine.interruption import EXIT_INTERRUPTED, TrainingInterrupted
from negvision.engine.loss_guard import DivergedError
from negvision.errors import UserError


class Messages(logging.Handler):
    def __init__(self, runner):
        super().__init__()
        self.text = ""
        runner.logger.addHandler(self)

    def emit(self, record):
        self.text += record.getMessage() + "\n"


class Stop(Hook):
    """Ends the training after an iteration or an evaluation."""

    def __init__(self, iteration, point):
        self.iteration, self.point = iteration, point

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._stop(runner, "train", runner.iter + 1)

    def after_val_epoch(self, runner, metrics=None):
        self._stop(runner, "val", runner.iter)

    def _stop(self, runner, point, iteration):
        if (point, iteration) == (self.point, self.iteration):
            runner.train_loop.stop_training = True


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The outcome of a whole run, and its folder."""

    @functools.cache
    def train(by_epoch, ema=False):
        folder = tmp_path_factory.mktemp("whole")
        checkpoint = {"type": "CheckpointHook", "interval": 1000, "by_epoch": by_epoch}
        options = {"by_epoch": by_epoch, "ema": ema, "default_hooks": {"checkpoint": checkpoint}}
        runner = make_runner(folder, **options)
        runner.train()
        return outcome(runner), folder

    return train


def no_improvement(**options):
    return EarlyStoppingHook("sum", rule="greater", patience=1, min_delta=1e9, **options)


@pytest.mark.parametrize(
    ("hook", "by_epoch", "saved"),
    [
        (no_improvement(), False, "iter_10.pth"),
        (no_improvement(), True, "epoch_2.pth"),
        (Stop(7, "train"), False, "iter_7.pth"),
        (Stop(6, "val"), True, "epoch_1.pth"),
    ],
)
def test_the_end_of_a_run_that_stops_early_is_saved(hook, by_epoch, saved, tmp_path, uninterrupted):
    checkpoint = {"type": "CheckpointHook", "interval": 1000, "by_epoch": by_epoch}
    options = {"by_epoch": by_epoch, "default_hooks": {"checkpoint": checkpoint}}
    runner = make_runner(tmp_path, custom_hooks=[hook], log_level="INFO", **options)
    messages = Messages(runner)
    runner.train()
    assert [file.name for file in tmp_path.glob("*.pth")] == [saved]
    done, total = (runner.epoch, "3 epochs") if by_epoch else (runner.iter, "18 iters")
    end = f"stopped by {type(hook).__name__}: trained for {done} of {total}; the last checkpoint is"
    assert f"{end} {tmp_path / saved}" in messages.text

    # It continues to the same end as a run that does not stop.
    expected, folder = uninterrupted(by_epoch)
    assert (folder / ("epoch_3.pth" if by_epoch else "iter_18.pth")).exists()
    resumed = make_runner(tmp_path, resume=True, load_from=str(tmp_path / saved), **options)
    resumed.train()
    assert_same(outcome(resumed), expected)


def test_nothing_is_saved_twice_or_against_the_config(tmp_path):
    checkpoint = {"type": "CheckpointHook", "interval": 7, "by_epoch": False, "save_last": False}
    options = {"by_epoch": False, "default_hooks": {"checkpoint": checkpoint}}
    runner = make_runner(tmp_path, custom_hooks=[Stop(9, "train")], log_level="INFO", **options)
    messages = Messages(runner)
    runner.train()
    assert [file.name for file in tmp_path.glob("*.pth")] == ["iter_7.pth"]
    assert "trained for 9 of 18 iters; the last checkpoint is" in messages.text


class Broken(Exception):
    pass


def fail(kind=Broken):
    raise kind("it broke")


class FailingSet(Noisy):
    def __getitem__(self, index):
        if len(self.asked) == 30:  # in the second epoch
            fail()
        return super().__getitem__(index)


class FailingNet(Net):
    count = 0

    def forward(self, inputs, labels=None, mode="tensor"):
        type(self).count += mode == "loss"
        if self.count == 9:
            fail()
        return super().forward(inputs, labels, mode)


class FailingMetric(Loss):
    def compute_metrics(self, results):
        fail(UserError)


class FailingHook(Hook):
    """Before the schedule has stepped, or after the weights of an EMA are put back."""

    priority = "VERY_HIGH"

    def __init__(self, point):
        self.point = point

    def __getattribute__(self, name):
        if name == object.__getattribute__(self, "point"):
            return lambda runner, *args, **kwargs: runner.iter >= 7 and fail()
        return super().__getattribute__(name)


@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.parametrize(
    ("changes", "iterations"),
    [
        ({"train_dataloader": loader(FailingSet())}, 8),
        ({"model": FailingNet()}, 8),
        ({"custom_hooks": [FailingHook("after_train_iter")]}, 8),
        ({"custom_hooks": [At(8, lambda: fail(SystemExit))]}, 8),
        ({"custom_hooks": [FailingHook("after_train_epoch")]}, 12),
        ({"custom_hooks": [FailingHook("after_val_iter")]}, 12),
        ({"custom_hooks": [FailingHook("after_val_epoch")]}, 12),
        ({"val_evaluator": [FailingMetric()]}, 6),
    ],
)
def test_an_error_costs_no_whole_iteration(changes, iterations, ema, tmp_path, uninterrupted):
    FailingNet.count = 0
    checkpoint = {"type": "CheckpointHook", "interval": 1000}
    options = {"ema": ema, "default_hooks": {"checkpoint": checkpoint}}
    expected, _ = uninterrupted(True, ema)
    runner = make_runner(tmp_path / "cut", log_level="INFO", **options, **changes)
    messages = Messages(runner)
    with pytest.raises((Broken, UserError, SystemExit), match="it broke"):
        runner.train()
    file = tmp_path / "cut" / "interrupted.pth"
    assert f"after {iterations} iterations; their state is in {file}" in messages.text
    assert find_resume_checkpoint(tmp_path / "cut") == file
    resumed = make_runner(tmp_path / "cut", resume=True, load_from=str(file), **options)
    resumed.train()
    if "model" not in changes:  # a step that fails has drawn random numbers
        assert_same(outcome(resumed), expected)


def test_what_is_saved_already_is_not_saved_again(tmp_path):
    with pytest.raises(UserError):
        make_runner(tmp_path, val_evaluator=[FailingMetric()]).train()
    assert [file.name for file in tmp_path.glob("*.pth")] == ["epoch_1.pth"]
    early = make_runner(tmp_path / "early", custom_hooks=[At(1, fail)])
    early.hooks[-1].after_train_iter, early.hooks[-1].before_train = None, lambda _: fail()
    with pytest.raises(Broken):
        early.train()
    assert not list((tmp_path / "early").glob("*.pth"))


def test_a_diverged_run_is_saved_before_the_steps_it_skipped(tmp_path):
    class Diverging(Net):
        def forward(self, inputs, labels=None, mode="tensor"):
            result = super().forward(inputs, labels, mode)
            if mode == "loss" and runner.iter >= 5:
                return {"loss": result["loss"] * float("nan")}
            return result

    options = {
        "by_epoch": False,
        "default_hooks": {"loss_guard": {"type": "negvision.LossGuardHook"}},
    }
    options["default_hooks"]["loss_guard"]["max_in_a_row"] = 3
    options["default_hooks"]["checkpoint"] = {"type": "CheckpointHook", "interval": 1000}
    runner = make_runner(tmp_path, model=Diverging(), **options)
    with pytest.raises(DivergedError, match="3 steps in a row"):
        runner.train()
    file = find_resume_checkpoint(tmp_path)
    assert file.name == "interrupted.pth"
    resumed = make_runner(tmp_path, resume=True, load_from=str(file), **options)
    resumed.train()
    assert resumed.iter == 18


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGHUP, EXIT_INTERRUPTED), (signal.SIGINT, 130), (signal.SIGTERM, EXIT_INTERRUPTED)],
)
def test_signals_that_end_a_run_save_it(number, status, tmp_path, heeded):
    before = signal.getsignal(number)
    hook = At(3, lambda: os.kill(os.getpid(), number))
    with pytest.raises(TrainingInterrupted, match=number.name) as end:
        make_runner(tmp_path, custom_hooks=[hook]).train()
    assert end.value.status == status
    assert find_resume_checkpoint(tmp_path).name == "interrupted.pth"
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_at_once(tmp_path, monkeypatch, capfd, heeded):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # from the terminal and from a launcher
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 2)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        make_runner(tmp_path, custom_hooks=[At(3, twice)]).train()
    assert not list(tmp_path.glob("*.pth"))
    assert capfd.readouterr().err.count("again: end at once") == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_ignored_signals_stay_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        make_runner(
            tmp_path, custom_hooks=[At(3, lambda: os.kill(os.getpid(), signal.SIGHUP))]
        ).train()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (tmp_path / "epoch_3.pth").exists()
