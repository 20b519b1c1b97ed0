"""Trade time for memory: forget a block's activations and compute them again for the backward."""

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """``block(x)`` without keeping what lies between input and output.

    Running statistics are updated by the first pass alone, so training with and without it
    gives the same model.
    """

    def contexts() -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
        return contextlib.nullcontext(), _statistics_left_alone(block)

    return checkpoint(block, x, use_reentrant=False, context_fn=contexts)


@contextlib.contextmanager
def _statistics_left_alone(block: nn.Module) -> Iterator[None]:
    layers = [
        (layer, layer.momentum, layer.num_batches_tracked)
        for layer in block.modules()
        if isinstance(layer, _NormBase) and layer.training and layer.track_running_stats
    ]
    for layer, _, count in layers:
        layer.momentum = 0.0
        layer.num_batches_tracked = count.clone()
    try:
        yield
    finally:
        for layer, momentum, count in layers:
            layer.momentum = momentum
            layer.num_batches_tracked = count
