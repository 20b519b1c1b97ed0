import json

import pytest
import torch
from helpers.tiny_training import Net, assert_same, make_runner, outcome
from mmengine.hooks import Hook

from negvision.engine.loss_guard import DivergedError, LossGuardHook


class Poisoned(Net):
    """Its loss or gradient is bad at some iterations (counted from 1), in one of three ways."""

    def __init__(self, iterations=(), how="nan"):
        super().__init__()
        self.iterations, self.how, self.count = iterations, how, 0

    def forward(self, inputs, labels=None, mode="tensor"):
        if mode != "loss":
            return super().forward(inputs, labels, mode)
        self.count += 1
        if self.count not in self.iterations:
            return super().forward(inputs, labels, mode)
        if self.how == "nan":
            # Non-finite images reach the running statistics too.
            return super().forward([image * float("nan") for image in inputs], labels, mode)
        loss = super().forward(inputs, labels, mode)["loss"]
        if self.how == "gradient":
            # The square root has no derivative at 0: a finite loss, gradients that are not.
            return {"loss": loss + (self.last.weight.sum() * 0).sqrt()}
        return {"loss": loss * 1e6}


class Record(Hook):
    """The state of the model before and after some iterations."""

    priority = "LOWEST"

    def __init__(self):
        self.before, self.changed = None, {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.before = {k: v.clone() for k, v in runner.model.state_dict().items()}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        after = runner.model.state_dict()
        self.changed[runner.iter + 1] = {
            key for key, value in self.before.items() if not torch.equal(value, after[key])
        }


def train(tmp_path, model, **changes):
    record = Record()
    runner = make_runner(tmp_path, model=model, custom_hooks=[record], **changes)
    runner.train()
    return runner, record


@pytest.mark.parametrize("how", ["nan", "gradient"])
def test_step_that_is_not_finite_changes_nothing(tmp_path, how):
    runner, record = train(tmp_path, Poisoned((3, 9), how))
    assert [step for step, changed in record.changed.items() if not changed - COUNTERS] == [3, 9]
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())
    assert runner.message_hub.get_scalar("train/skipped_steps").current() == 2


# Batch normalization counts its batches in an integer, which nothing depends on with a momentum.
COUNTERS = {"layers.1.num_batches_tracked"}


def test_explosion_is_measured_by_earlier_losses(tmp_path):
    hooks = {"default_hooks": {"checkpoint": None, "loss_guard": guard(explosion=100)}}
    # 18 iterations: too few are known to judge the tenth; 40 and more later.
    _, record = train(tmp_path / "a", Poisoned((10,), "explodes"), **hooks)
    assert record.changed[10]
    long = {"train_cfg": {"by_epoch": True, "max_epochs": 8, "val_interval": 9}}
    _, record = train(tmp_path / "b", Poisoned((40,), "explodes"), **hooks, **long)
    assert not record.changed[40] - COUNTERS and record.changed[41]
    hooks["default_hooks"]["loss_guard"] = guard(explosion=None)
    _, record = train(tmp_path / "c", Poisoned((40,), "explodes"), **hooks, **long)
    assert record.changed[40]


def guard(**arguments):
    return {"type": "negvision.LossGuardHook", **arguments}


def test_many_skips_in_a_row_stop_the_run(tmp_path):
    hooks = {
        "loss_guard": guard(max_in_a_row=3),
        "checkpoint": {"type": "CheckpointHook", "interval": 1},
    }
    model = Poisoned((2, 3, *range(8, 99)))
    with pytest.raises(DivergedError, match=r"3 steps in a row.*iteration 10.*diverged\.json"):
        train(tmp_path, model, default_hooks=hooks)
    dumped = json.loads((tmp_path / "diverged.json").read_text())
    assert dumped["iteration"] == 10 and dumped["skipped_in_a_row"] == 3
    assert dumped["reason"] == "the loss is not finite"
    assert (tmp_path / "epoch_1.pth").exists()


def test_good_training_is_unchanged(tmp_path):
    with_guard = make_runner(tmp_path / "a")
    with_guard.train()
    guarded = outcome(with_guard)
    without = make_runner(
        tmp_path / "b",
        default_hooks={"checkpoint": {"type": "CheckpointHook"}, "loss_guard": None},
    )
    assert not any(isinstance(hook, LossGuardHook) for hook in without.hooks)
    without.train()
    assert_same(guarded, outcome(without))


def test_accumulated_gradients_are_skipped_together(tmp_path):
    _, record = train(tmp_path, Poisoned((2,)), accumulate=3)
    weights = {step: any("weight" in key for key in keys) for step, keys in record.changed.items()}
    assert [step for step, changed in weights.items() if changed] == [6, 9, 12, 15, 18]


def test_counts_survive_an_interruption(tmp_path):
    make_runner(tmp_path, model=Poisoned((2, 11))).train()
    resumed = make_runner(
        tmp_path, model=Poisoned((14,)), resume=True, load_from=str(tmp_path / "epoch_2.pth")
    )
    resumed.train()
    assert resumed.message_hub.get_scalar("train/skipped_steps").current() == 3


@pytest.mark.parametrize("arguments", [{"max_in_a_row": 0}, {"explosion": 1.0}])
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match="got"):
        LossGuardHook(**arguments)
