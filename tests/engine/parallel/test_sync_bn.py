"""Synchronized batch normalization on CPUs."""

import pytest
import torch
from helpers.gloo import run_on_ranks
from helpers.sync_bn_on_ranks import check_all_sync_bn
from torch import nn

from negvision.engine.parallel.sync_bn import SyncBatchNorm, synchronize_batch_norm


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_normalize_like_one_process(world_size, tmp_path):
    run_on_ranks(check_all_sync_bn, world_size, tmp_path)


def test_in_one_process_it_is_the_plain_layer():
    torch.manual_seed(0)
    plain, layer = nn.BatchNorm2d(3), SyncBatchNorm(3)
    x = torch.randn(4, 3, 2, 2)
    assert torch.equal(layer(x), plain(x))
    assert torch.equal(layer.running_var, plain.running_var)
    assert not layer.over_ranks


def test_conversion_keeps_parameters_and_state():
    class Special(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(2, eps=0.5, momentum=0.2)
            self.already = nn.SyncBatchNorm(2)
            self.other = nn.GroupNorm(1, 2)

    model = Special()
    model.norm.weight.requires_grad_(False)
    model.norm.eval()
    before = dict(model.named_parameters()), dict(model.named_buffers())
    names = list(model.state_dict())
    converted = synchronize_batch_norm(model, None, "cpu")
    assert type(converted.norm) is nn.BatchNorm1d and type(converted.already) is SyncBatchNorm
    converted = synchronize_batch_norm(model, "mmcv", "cpu")
    assert converted is model and type(model.norm) is SyncBatchNorm
    assert type(model.other) is nn.GroupNorm
    assert (model.norm.eps, model.norm.momentum, model.norm.training) == (0.5, 0.2, False)
    assert list(model.state_dict()) == names
    assert all(model.get_parameter(name) is p for name, p in before[0].items())
    assert all(model.get_buffer(name) is b for name, b in before[1].items())
    assert not model.norm.weight.requires_grad


def test_cuda_uses_the_layer_of_torch():
    for kind, layer in (("torch", nn.SyncBatchNorm), (None, nn.BatchNorm2d)):
        model = synchronize_batch_norm(nn.Sequential(nn.BatchNorm2d(2)), kind, "cuda")
        assert type(model[0]) is layer


def test_wrong_input():
    with pytest.raises(ValueError, match="at least 2D input, got 1D"):
        SyncBatchNorm(3)(torch.randn(3))
