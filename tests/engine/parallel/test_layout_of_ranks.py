"""Weights with their channels last, in one process and under DistributedDataParallel."""

from types import SimpleNamespace

import torch
from helpers import layout_on_ranks as ranks
from helpers.gloo import run_on_ranks
from mmengine.registry import HOOKS


def test_ranks_train_like_one_process(tmp_path):
    run_on_ranks(
        ranks.check_training, 2, tmp_path, tmp_path / "two", ranks.trained(tmp_path / "one")
    )


def test_hook_that_comes_late_changes_nothing(tmp_path):
    run_on_ranks(ranks.check_too_late, 2, tmp_path, tmp_path)


def test_channels_last_follows_the_weights_and_keeps_the_values():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 4, 1)
    )
    images = torch.randn(2, 3, 16, 16)
    want, state = model(images), {k: v.clone() for k, v in model.state_dict().items()}
    assert want.is_contiguous()
    HOOKS.build({"type": "negvision.ChannelsLastHook"}).before_run(SimpleNamespace(model=model))
    got = model(images)
    assert got.is_contiguous(memory_format=torch.channels_last) and not got.is_contiguous()
    torch.testing.assert_close(got, want)
    assert torch.equal(model.state_dict()["0.weight"], state["0.weight"])
