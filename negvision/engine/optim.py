"""Optimizer wrappers."""

import contextlib
import functools
from collections.abc import Callable
from logging import Logger

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn

from negvision.registry import OPTIM_WRAPPERS


def scale_learning_rate(
    optim_wrapper: OptimWrapper | OptimWrapperDict,
    base: int,
    batch_size: int,
    world_size: int,
    logger: Logger,
) -> None:
    """Scale learning rates by the images per update over ``base``.

    mmengine's version ignores gradient accumulation.

    Args:
        optim_wrapper: Changed. Call this before schedules are built, since they store the rates.
        base: Images per update that the rates are meant for.
        batch_size: Images per process.
        world_size: Number of processes.
        logger: Gets a line about the result.
    """
    several = isinstance(optim_wrapper, OptimWrapperDict)
    for name, wrapper in optim_wrapper.items() if several else [("", optim_wrapper)]:
        counts = wrapper._accumulative_counts
        images = batch_size * world_size * counts
        logger.info(
            f"learning rate{' of ' + name if name else ''} scaled by {images / base:g}: an update "
            f"sees {batch_size} images x {world_size} processes x {counts} iterations = {images}, "
            f"and it is meant for {base}"
        )
        for group in wrapper.optimizer.param_groups:
            group["lr"] *= images / base


@OPTIM_WRAPPERS.register_module()
class BF16OptimWrapper(OptimWrapper):
    """Forward passes in bfloat16, also on a CPU, unlike AmpOptimWrapper.

    bfloat16 has the exponent range of float32, so losses need no scaling. On a CPU, depthwise
    convolutions with a stride or with kernels above 3 x 3 stay in float32: in torch 2.11 their
    gradients take much longer in bfloat16.
    """

    @contextlib.contextmanager
    def optim_context(self, model: torch.nn.Module):
        device = get_device().partition(":")[0]
        if device == "cpu":
            _keep_slow_layers(model)
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield


def _keep_slow_layers(model: nn.Module) -> None:
    for layer in model.modules():
        if (
            isinstance(layer, nn.Conv2d)
            and 1 < layer.groups == layer.in_channels
            and (max(layer.kernel_size) > 3 or max(layer.stride) > 1)
            and not isinstance(layer._conv_forward, functools.partial)
        ):
            layer._conv_forward = functools.partial(_in_float32, layer._conv_forward)


def _in_float32(
    forward: Callable[..., Tensor], input: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    if not torch.is_autocast_enabled("cpu"):
        return forward(input, weight, bias)
    with torch.autocast("cpu", enabled=False):
        return forward(input.float(), weight, bias)
