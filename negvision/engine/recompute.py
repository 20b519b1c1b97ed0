"""Trade time for memory: forget activations and compute them again for the backward."""

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
    """``module(*args, **kwargs)`` without keeping what lies between input and output.

    Running statistics are updated by the first pass alone, and random numbers are drawn alike in
    both, so training with and without it gives the same model.

    Args:
        module: Whose running statistics are looked after.
        *args, **kwargs: Of the call.
        forward: What is called; None: the module.
    """

    def contexts() -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
        return contextlib.nullcontext(), _statistics_left_alone(module)

    function = module if forward is None else forward
    return checkpoint(function, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextlib.contextmanager
def _statistics_left_alone(module: nn.Module) -> Iterator[None]:
    layers = [
        (layer, layer.momentum, layer.num_batches_tracked)
        for layer in module.modules()
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


def checkpoint_activations(modules: Iterable[nn.Module]) -> None:
    """Make ``modules`` forget what lies inside of them whenever they are called.

    State dicts keep their names.
    """
    for module in modules:
        module.forward = functools.partial(recomputed, module, forward=module.forward)


def activations_recomputed_our_way() -> contextlib.AbstractContextManager[None]:
    """Inside the block, mmengine's runner applies ``activation_checkpointing`` as we do."""
    return replace_activation_checkpointing(_turn_on)


def _turn_on(model: nn.Module, modules: str | Iterable[str]) -> None:
    names = [modules] if isinstance(modules, str) else modules
    checkpoint_activations(model_parts(model, names, "activation_checkpointing"))
