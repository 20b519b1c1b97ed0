"""Scores and their heads are computed in float32 at least, whatever surrounds them."""

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor


def wide(values: Tensor) -> Tensor:
    """``values`` as float32; float64 stays what it is."""
    return values if values.dtype == torch.float64 else values.float()


def full_precision(device: torch.device) -> AbstractContextManager:
    """Inside, autocast is off on ``device``."""
    if device.type == "meta":
        return contextlib.nullcontext()  # on which shapes are tried out, and no autocast is known
    return torch.autocast(device.type, enabled=False)
