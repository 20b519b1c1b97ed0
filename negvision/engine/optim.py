"""Optimizer wrappers."""

import contextlib

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper

from negvision.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BF16OptimWrapper(OptimWrapper):
    """Forward passes in bfloat16, on a CPU too, where AmpOptimWrapper refuses to work.

    bfloat16 has the exponent range of float32, so losses need no scaling.
    """

    @contextlib.contextmanager
    def optim_context(self, model: torch.nn.Module):
        with (
            super().optim_context(model),
            torch.autocast(get_device().partition(":")[0], dtype=torch.bfloat16),
        ):
            yield
