"""Optimizer wrappers."""

import contextlib
from logging import Logger

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper, OptimWrapperDict

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

    bfloat16 has the exponent range of float32, so losses need no scaling.
    """

    @contextlib.contextmanager
    def optim_context(self, model: torch.nn.Module):
        with (
            super().optim_context(model),
            torch.autocast(get_device().partition(":")[0], dtype=torch.bfloat16),
        ):
            yield
