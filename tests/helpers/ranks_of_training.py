"""Training with sharded centers by negvision's runner, on one rank or several."""

from pathlib import Path

import torch
from mmengine.dist import get_dist_info
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from negvision.engine.runner import Runner
from negvision.face.losses import UNPGLoss

CLASSES, SIZE, BATCH, STEPS = 11, 6, 12, 4
OPTIMIZERS = {
    "sgd": {"type": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2},
    "adamw": {"type": "AdamW", "lr": 0.01, "weight_decay": 1e-2},
}


class Samples(Dataset):
    metainfo = {}

    def __len__(self):
        return BATCH * STEPS

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        label = torch.randint(CLASSES, (), generator=generator)
        return {"inputs": torch.randn(SIZE, generator=generator), "labels": label}


class Batches(Sampler):
    """The same global batches in the same order, whatever the world size."""

    sampler = None  # mmengine's hook would set its seed

    def __iter__(self):
        rank, world_size = get_dist_info()
        own = BATCH // world_size
        for step in range(STEPS):
            yield [BATCH * step + rank * own + i for i in range(own)]

    def __len__(self):
        return STEPS


class Model(BaseModel):
    def __init__(self, sharded, classes):
        super().__init__()
        self.linear = nn.Linear(SIZE, SIZE)
        self.head = UNPGLoss(classes, SIZE, {"type": "CosFaceMargin"}, scale=8.0, sharded=sharded)

    def forward(self, inputs, labels, mode):
        return {"loss": self.head(self.linear(inputs), labels)}


class Held(Hook):
    """Saves the tensors of each rank at the start of training, after loading, and at the end."""

    def __init__(self):
        self.at = {}

    def before_train(self, runner):
        self.at["start"] = self.snapshot(runner)

    def after_train(self, runner):
        self.at["end"] = self.snapshot(runner)
        rank, world_size = get_dist_info()
        torch.save(self.at, Path(runner.work_dir) / f"rank_{rank}_of_{world_size}.pt")

    def snapshot(self, runner):
        model = getattr(runner.model, "module", runner.model)
        (averaged,) = [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]
        state = runner.optim_wrapper.optimizer.state.get(model.head.weight, {})
        held = {
            "weight": model.head.weight.detach(),
            "averaged": averaged.module.head.weight.detach(),
            "linear": model.linear.weight.detach(),
            **{key: value for key, value in state.items() if value.dim() > 0},
        }
        return {key: value.clone() for key, value in held.items()}


def build_runner(work_dir, optimizer="sgd", steps=3, sharded=True, classes=CLASSES, **kwargs):
    loader = DataLoader(Samples(), batch_sampler=Batches())
    arguments = {
        "model": {"type": Model, "sharded": sharded, "classes": classes},
        "work_dir": str(work_dir),
        "experiment_name": f"{work_dir.parent.name}_{work_dir.name}_{sharded}_{classes}",
        "train_dataloader": loader,
        "train_cfg": {"by_epoch": False, "max_iters": steps},
        "optim_wrapper": {"optimizer": OPTIMIZERS[optimizer], "clip_grad": {"max_norm": 0.05}},
        "param_scheduler": {"type": "LinearLR", "start_factor": 0.5, "end": 9, "by_epoch": False},
        "default_hooks": {
            "checkpoint": {"type": "CheckpointHook", "interval": 1, "by_epoch": False},
        },
        "custom_hooks": [{"type": "EMAHook", "momentum": 0.1}, Held()],
        "launcher": "pytorch" if torch.distributed.is_initialized() else "none",
        "randomness": {"seed": 3},
        "default_scope": "mmengine",
        "log_level": "WARNING",
    }  # fmt: skip
    return Runner(**{**arguments, **kwargs})


def resume(from_dir, work_dir, **kwargs):
    """Train one step more than the three of ``from_dir``."""
    runner = build_runner(
        work_dir, steps=4, load_from=str(from_dir / "iter_3.pth"), resume=True, **kwargs
    )
    runner.train()
    return torch.load(work_dir / "rank_0_of_1.pt") if runner.world_size == 1 else None


def train_and_resume(folder, train):
    """Train if ``train``, then resume; each rank saves what it :class:`Held`."""
    for optimizer in OPTIMIZERS:
        trained = folder / f"trained_{optimizer}"
        if train:
            build_runner(trained, optimizer).train()
        resume(trained, folder / f"resumed_{optimizer}_{get_dist_info()[1]}", optimizer=optimizer)
