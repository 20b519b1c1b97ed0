"""Passes in bfloat16 on a CPU."""

import copy
import pickle

import torch
from torch import nn

from negvision.engine.optim import BF16OptimWrapper


def test_only_depthwise_layers_with_slow_gradients_stay_in_float32():
    model = nn.ModuleDict({
        "ordinary": nn.Conv2d(8, 8, 3, stride=2, padding=1),
        "grouped": nn.Conv2d(8, 8, 5, padding=2, groups=2),
        "depthwise": nn.Conv2d(8, 8, 3, padding=1, groups=8),
        "strided": nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
        "large": nn.Conv2d(8, 16, 5, padding=2, groups=8),
    })  # fmt: skip
    expected = copy.deepcopy(model)
    wrapper = BF16OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    images = torch.randn(2, 8, 9, 9, generator=torch.Generator().manual_seed(0))
    for _ in range(2):  # layers change once
        with wrapper.optim_context(model):
            found = {name: layer(images.bfloat16()) for name, layer in model.items()}
    kept = {name for name, out in found.items() if out.dtype == torch.float32}
    assert kept == {"strided", "large"}
    wrapper.update_params(sum(out.float().square().mean() for out in found.values()))
    for name in kept:
        torch.testing.assert_close(found[name], expected[name](images.bfloat16().float()))
        assert (model[name].weight != expected[name].weight).any()
    # Copies, as of an average of the weights, are of their own weights.
    other = copy.deepcopy(model)
    model["strided"].weight.data.zero_()
    for twin in (other, pickle.loads(pickle.dumps(other))):
        assert twin["strided"](images).std() > 0
        assert twin["strided"]._conv_forward.args[0].__self__ is twin["strided"]
