"""Activation checkpointing: the same gradients and statistics, with less memory."""

import copy

import pytest
import torch
from mmdet.models import ResNet
from torch import nn

from negvision.engine.config.model_parts import model_parts
from negvision.engine.recompute import checkpoint_activations


def network():
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    return nn.Sequential(*[copy.deepcopy(block) for _ in range(3)]).double()


def run(model, x, sizes=None):
    """Loss and gradients; the bytes that are held for the backward are added to ``sizes``."""
    held = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model(x)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = sum(output.square().sum() for output in outputs)
    if sizes is not None:
        sizes.append(sum(held.values()))
    loss.backward()
    return loss


@pytest.mark.parametrize("wants_gradient", [False, True])
def test_gradients_statistics_and_random_numbers(wants_gradient):
    plain, x = network(), torch.randn(2, 4, 5, 5).double()
    again = copy.deepcopy(plain)
    names = list(again.state_dict())
    checkpoint_activations(again)
    inputs = [x.clone().requires_grad_(wants_gradient) for _ in range(2)]
    for _ in range(2):
        losses = [run(model, x) for model, x in zip((plain, again), inputs, strict=True)]
        assert torch.equal(*losses)
    assert list(again.state_dict()) == names
    for (name, value), other in zip(plain.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(value.grad, other.grad), name
    for (name, value), other in zip(plain.named_buffers(), again.buffers(), strict=True):
        assert torch.equal(value, other), name
    assert not wants_gradient or torch.equal(inputs[0].grad, inputs[1].grad)
    with torch.no_grad():
        assert torch.equal(plain.eval()(x), again.eval()(x))


def test_memory_of_a_resnet():
    sizes = []
    for again in (False, True):
        torch.manual_seed(0)
        model = nn.ModuleDict({"backbone": ResNet(50, base_channels=16, norm_eval=False)})
        if again:
            checkpoint_activations(model_parts(model, ["backbone"], "activation_checkpointing"))
        run(model["backbone"], torch.randn(1, 3, 64, 64), sizes)
    assert sizes[1] < 0.5 * sizes[0], sizes
