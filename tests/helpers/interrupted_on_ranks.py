"""What ranks do together when one of them is interrupted or has a non-finite loss."""

import os
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from torch import nn

from helpers.tiny_training import At, Net, assert_same, make_runner, outcome
from negvision.engine.checkpoints.training_state import pending_gradients, restore_gradients
from negvision.engine.interruption import TrainingInterrupted

LAUNCHED = {"launcher": "pytorch", "env_cfg": {"dist_cfg": {"backend": "gloo"}}}


def runner_in(folder: Path, **options):
    return make_runner(folder, **LAUNCHED, **options)


def ask_to_stop():
    os.kill(os.getpid(), signal.SIGUSR1)


def check_resume(folder: Path, settings: dict) -> None:
    """The signal reaches the second rank alone; the resumed run ends with the same bits."""
    whole = runner_in(folder / "whole", **settings)
    whole.train()
    expected = outcome(whole)
    hooks = [At(8, ask_to_stop)] if dist.get_rank() == 1 else []
    cut = runner_in(folder / "cut", custom_hooks=hooks, **settings)
    with pytest.raises(TrainingInterrupted, match="SIGUSR1"):
        cut.train()
    assert cut.iter + 1 == 8
    newest = str(folder / "cut" / "interrupted.pth")
    resumed = runner_in(folder / "cut", resume=True, load_from=newest, **settings)
    resumed.train()
    # Running statistics of the second rank are its own; nothing depends on them.
    kept = [key for key in expected if dist.get_rank() == 0 or "running" not in key]
    found = outcome(resumed)
    assert_same({key: found[key] for key in kept}, {key: expected[key] for key in kept})


class Poisoned(Net):
    """Its loss is NaN on the second rank at the third iteration."""

    count = 0

    def forward(self, inputs, labels=None, mode="tensor"):
        result = super().forward(inputs, labels, mode)
        if mode == "loss":
            self.count += 1
            if self.count == 3 and dist.get_rank() == 1:
                return {"loss": result["loss"] * float("nan")}
        return result


class Weights(Hook):
    priority = "LOWEST"

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen.append(runner.model.module.last.weight.detach().clone())


def check_skip(folder: Path) -> None:
    weights = Weights()
    runner = runner_in(folder, model=Poisoned(), custom_hooks=[weights])
    runner.train()
    same = [torch.equal(a, b) for a, b in zip(weights.seen, weights.seen[1:], strict=False)]
    assert same.index(True) == 1 and sum(same) == 1
    assert runner.message_hub.get_scalar("train/skipped_steps").current() == 1


class Buffers(Hook):
    """The running mean as an evaluation finds it."""

    def __init__(self):
        self.seen = []

    def before_val_epoch(self, runner):
        self.seen.append(runner.model.module.layers[1].running_mean.clone())


def check_evaluated_statistics(folder: Path) -> None:
    buffers = Buffers()
    runner_in(folder, custom_hooks=[buffers]).train()
    own = torch.stack(buffers.seen)
    both = [torch.empty_like(own) for _ in range(2)]
    dist.all_gather(both, own)
    assert torch.equal(both[0], both[1])


class Sharded(nn.Module):
    def __init__(self, rows: range, total: int):
        super().__init__()
        self.rows, self.total = rows, total
        self.centers = nn.Parameter(torch.zeros(len(rows), 2))
        self.shared = nn.Parameter(torch.zeros(2))

    def sharded_rows(self):
        return {"centers": (self.rows, self.total)}


class Waiting:
    _accumulative_counts, _inner_count = 3, 4


def check_gradients_of_shards() -> None:
    """Rows of ranks are joined, replicated gradients averaged, and each rank gets its own back."""
    rank = dist.get_rank()
    rows = range(3) if rank == 0 else range(3, 5)
    model = Sharded(rows, 5)
    model.centers.grad = torch.tensor([[float(row), 1.0] for row in rows])
    model.shared.grad = torch.tensor([1.0, 3.0]) if rank == 0 else torch.tensor([3.0, 5.0])
    saved = [pending_gradients(model, Waiting())]
    if rank == 0:
        assert saved[0]["centers"][:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert saved[0]["shared"].tolist() == [2.0, 4.0]
    dist.broadcast_object_list(saved, 0)
    again = Sharded(rows, 5)
    restore_gradients(again, saved[0])
    assert torch.equal(again.centers.grad, model.centers.grad)
    assert again.shared.grad.tolist() == [2.0, 4.0]
    done = Waiting()
    done._inner_count = 6
    assert pending_gradients(model, done) is None
