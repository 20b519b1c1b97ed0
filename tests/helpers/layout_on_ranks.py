"""Whether ranks train what one process does where weights have their channels last."""

from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.hooks import Hook

from helpers.tiny_training import BATCH, Net, Noisy, make_runner
from negvision.engine.memory_format import ChannelsLastHook
from negvision.errors import ConfigError

HOOK = {"type": "negvision.ChannelsLastHook"}
LAUNCHED = {"launcher": "pytorch", "env_cfg": {"dist_cfg": {"backend": "gloo"}}}


class FirstGradient(Hook):
    """The gradient of the convolution's weights, before the first step."""

    priority = "VERY_LOW"

    def before_train(self, runner):
        step = runner.optim_wrapper.step
        model = runner.model.module if hasattr(runner.model, "module") else runner.model

        def noted(**kwargs):
            if not hasattr(self, "gradient"):
                self.gradient = model.layers[0].weight.grad.clone()
            step(**kwargs)

        runner.optim_wrapper.step = noted


class Plain(Net):
    """Without what differs from rank to rank: dropout, and statistics of a batch."""

    def __init__(self):
        super().__init__()
        self.layers[1] = torch.nn.Identity()
        self.layers[3] = torch.nn.Identity()


def first_gradient(folder: Path, size: int, **options) -> torch.Tensor:
    held = FirstGradient()
    loader = {
        "dataset": Noisy(24),
        "sampler": {"type": "DefaultSampler", "shuffle": True},
        "batch_size": size,
        "num_workers": 0,
        "collate_fn": {"type": "default_collate"},
    }
    # As Runner.from_cfg has it: the config beside what is taken from it.
    config = {"custom_hooks": [HOOK]}
    settings = {
        "model": Plain(),
        "cfg": config,
        "train_dataloader": loader,
        "custom_hooks": [HOOK, held],
    }
    make_runner(folder, **settings, **options).train()
    return held.gradient


def check_gradients(folder: Path, expected: torch.Tensor) -> None:
    found = first_gradient(folder, BATCH // 2, **LAUNCHED)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def check_too_late(folder: Path) -> None:
    runner = make_runner(folder, **LAUNCHED)
    try:
        ChannelsLastHook().before_run(runner)
    except ConfigError as error:
        assert "Add it to the config" in str(error)
    else:
        raise AssertionError(f"rank {dist.get_rank()} was not refused")
