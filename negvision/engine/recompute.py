"""Activation checkpointing: free activations and compute them again in the backward pass."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from negvision.compat.patches import replace_activation_checkpointing
from negvision.engine.config.model_parts import model_parts


def recomputed(module: nn.Module, *args: Any, forward: Callable | None = None, **kwargs: Any):
    """``module(*args, **kwargs)`` without storing the activations inside.

    Only the first pass updates running statistics, and both passes draw the same random numbers,
    so training with and without it gives the same model.

    Args:
        module: The module with the running statistics.
        *args, **kwargs: Arguments of the call.
        forward: The function to call; None: the module.
    """

    def contexts() -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
        return contextlib.nullcontext(), _statistics_kept(module)

    function = module if forward is None else forward
    return checkpoint(function, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextlib.contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    layers = [
        (layer, layer.momentum, layer.num_batches_tracked)
        for layer in module.modules()
        if isinstance(layer, _NormBase) and layer.training and layer.num_batches_tracked is not None
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


def checkpoint_activations(modules: Iterable[nn.Module]) -> None:
    """Apply :func:`recomputed` to all calls of ``modules``; names in state dicts do not change."""
    for module in modules:
        module.forward = functools.partial(recomputed, module, forward=module.forward)


def activation_checkpointing_replaced() -> contextlib.AbstractContextManager[None]:
    """Inside the block, mmengine's runner applies ``activation_checkpointing`` by
    :func:`recomputed`."""
    return replace_activation_checkpointing(_turn_on)


def _turn_on(model: nn.Module, modules: str | Iterable[str]) -> None:
    names = [modules] if isinstance(modules, str) else modules
    checkpoint_activations(model_parts(model, names, "activation_checkpointing"))
