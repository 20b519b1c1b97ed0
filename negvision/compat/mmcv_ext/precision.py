"""Which floating-point type the substituted operators compute in."""

import torch
from torch import Tensor


def upcast(first: Tensor, *others: Tensor) -> list[Tensor]:
    """The tensors in float64 if the first is, else in float32.

    Coordinates in half precision are off by a pixel or more beyond 2048, and torchvision's CPU
    kernels take no bfloat16: both are computed in float32.
    """
    dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
    return [tensor.to(dtype) for tensor in (first, *others)]
