"""Weights with their channels last, trained by ranks and by one process."""

from pathlib import Path

import pytest
import torch

from helpers.tiny_training import BATCH, Net, make_runner
from negvision.engine.memory_format import ChannelsLastHook
from negvision.errors import ConfigError

LAUNCHED = {"launcher": "pytorch", "env_cfg": {"dist_cfg": {"backend": "gloo"}}}


class Plain(Net):
    """Without dropout and batch normalization, which depend on the rank."""

    def __init__(self):
        super().__init__()
        self.layers[1] = self.layers[3] = torch.nn.Identity()


def trained(folder: Path, size: int = BATCH, **options) -> dict[str, torch.Tensor]:
    """The weights after an epoch with the hook."""
    hooks = [{"type": "negvision.ChannelsLastHook"}]
    runner = make_runner(
        folder,
        model=Plain(),
        samples=24,
        batch=size,
        # As in Runner.from_cfg: the config beside what is taken from it.
        cfg={"custom_hooks": hooks},
        custom_hooks=hooks,
        train_cfg={"by_epoch": True, "max_epochs": 1},
        **options,
    )
    runner.train()
    model = getattr(runner.model, "module", runner.model)
    assert model.layers[0].weight.is_contiguous(memory_format=torch.channels_last)
    return model.state_dict()


def check_training(folder: Path, expected: dict[str, torch.Tensor]) -> None:
    torch.testing.assert_close(trained(folder, BATCH // 2, **LAUNCHED), expected)


def check_too_late(folder: Path) -> None:
    """The model is wrapped: the hook is refused, and the weights keep their format."""
    runner = make_runner(folder, **LAUNCHED)
    with pytest.raises(ConfigError, match="comes too late"):
        ChannelsLastHook().before_run(runner)
    assert runner.model.module.layers[0].weight.is_contiguous()
