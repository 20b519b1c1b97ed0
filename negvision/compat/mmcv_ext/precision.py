"""Which floating-point type the substituted operators compute in."""

import torch
from torch import Tensor


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """float64 for float64 tensors and float32 for all others.

    Coordinates in half precision are off by a pixel or more beyond 2048, and torchvision's CPU
    kernels take no bfloat16: both are computed in float32.
    """
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
