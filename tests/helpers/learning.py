"""Whether a model learns at all."""

import copy

import torch
from torch import nn


def assert_learns(model: nn.Module, batch: dict, lr: float, steps: int = 2) -> None:
    """Steps of gradient descent lower the loss of a batch, as a dataloader returns it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    losses = []
    for _ in range(steps + 1):
        data = model.data_preprocessor(copy.deepcopy(batch), True)
        total, _ = model.parse_losses(model(**data, mode="loss"))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < losses[0]
