"""A training of a second with random samples, dropout and order."""

import itertools
import random
from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset

from negvision.engine.runner import Runner

SAMPLES, BATCH, EPOCHS = 22, 4, 3
_numbers = itertools.count()


class Noisy(Dataset):
    """Samples with noise of all three generators; ``asked`` lists the indices that were drawn."""

    metainfo = {}

    def __init__(self, size=SAMPLES):
        self.size, self.asked = size, []

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        assert type(index) is int
        self.asked.append(index)
        noise = torch.rand(3, 6, 6) + random.random() + float(np.random.rand())  # noqa: NPY002
        return {"inputs": noise + index / self.size, "labels": torch.tensor(index % 2)}


class Net(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten()
        )
        self.last = nn.Linear(64, 2)

    def forward(self, inputs, labels=None, mode="tensor"):
        logits = self.last(self.layers(torch.stack(list(inputs))))
        if mode == "loss":
            return {"loss": nn.functional.cross_entropy(logits, torch.stack(list(labels)))}
        return [logits]


class Loss(BaseMetric):
    def process(self, data_batch, data_samples):
        # An evaluation that draws random numbers must not change the training.
        torch.rand(3), np.random.rand(), random.random()  # noqa: NPY002
        self.results.append(float(data_samples[0].sum()))

    def compute_metrics(self, results):
        return {"sum": sum(results)}


class At(Hook):
    """Call a function once, after an iteration (counted from 1) or in an evaluation."""

    def __init__(self, iteration, action, stage="train"):
        self.iteration, self.action, self.stage = iteration, action, stage

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.stage == "train" and runner.iter + 1 == self.iteration:
            self.action()

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.stage == "val" and runner.iter == self.iteration:
            self.stage = None
            self.action()


def loader(dataset, kind="DefaultSampler", shuffle=True, batch=BATCH, workers=0) -> dict:
    """The config of a data loader."""
    return {
        "dataset": dataset,
        "sampler": {"type": kind, "shuffle": shuffle},
        "batch_size": batch,
        "num_workers": workers,
        "collate_fn": {"type": "default_collate"},
    }


def make_runner(
    work_dir: Path, by_epoch=True, workers=0, accumulate=1, ema=False, samples=SAMPLES,
    batch=BATCH, **changes,
):  # fmt: skip
    """A runner of EPOCHS epochs of 6 batches, or as many iterations."""
    iterations = EPOCHS * -(-SAMPLES // BATCH)
    if by_epoch:
        loop = {"by_epoch": True, "max_epochs": EPOCHS, "val_interval": 1}
        checkpoint = {"type": "CheckpointHook", "interval": 1, "max_keep_ckpts": 2}
        kind, log = "DefaultSampler", {"by_epoch": True}
    else:
        loop = {"type": "IterBasedTrainLoop", "max_iters": iterations, "val_interval": 5}
        checkpoint = {"type": "CheckpointHook", "interval": 4, "by_epoch": False}
        kind, log = "InfiniteSampler", {"by_epoch": False}
    settings = {
        "model": Net(),
        "work_dir": str(work_dir),
        "train_dataloader": loader(Noisy(samples), kind, True, batch, workers),
        "val_dataloader": loader(Noisy(5), "DefaultSampler", False, BATCH, workers),
        "train_cfg": loop,
        "val_cfg": {},
        "val_evaluator": [Loss()],
        "optim_wrapper": {
            "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9},
            "accumulative_counts": accumulate,
        },
        "param_scheduler": [
            {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 9},
            {"type": "MultiStepLR", "milestones": [2], "by_epoch": by_epoch},
        ],
        "default_hooks": {"checkpoint": checkpoint},
        "custom_hooks": [{"type": "EMAHook", "momentum": 0.1}] if ema else [],
        "log_processor": log,
        "randomness": {"seed": 5},
        # Runners of one name and second in one process share what mmengine logs.
        "experiment_name": f"tiny_{next(_numbers)}",
        "log_level": "ERROR",
    }
    hooks = changes.pop("custom_hooks", [])
    settings |= changes
    settings["custom_hooks"] = [*settings["custom_hooks"], *hooks]
    return Runner(**settings)


def outcome(runner) -> dict[str, torch.Tensor]:
    """Everything that training has changed, and the next random numbers."""
    state = {f"model.{key}": value for key, value in runner.model.state_dict().items()}
    momenta = runner.optim_wrapper.optimizer.state_dict()["state"]
    state |= {f"momentum.{key}": value["momentum_buffer"] for key, value in momenta.items()}
    for hook in runner.hooks:
        if hasattr(hook, "ema_model"):
            state |= {f"ema.{k}": v for k, v in hook.ema_model.state_dict().items()}
    state["lr"] = torch.tensor(runner.optim_wrapper.get_lr()["lr"])
    state["next"] = torch.stack(
        [torch.rand(()), torch.tensor(np.random.rand()), torch.tensor(random.random())]  # noqa: NPY002
    )
    return {key: value.clone() for key, value in state.items()}


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    different = [key for key in expected if not torch.equal(found[key], expected[key])]
    assert not different
