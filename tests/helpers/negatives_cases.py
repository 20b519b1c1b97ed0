"""What the tests of negative pairs share."""

import torch
from torch.nn.functional import normalize

DTYPES = [torch.float32, torch.float64]
CLOSE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.float64: {"rtol": 1e-12, "atol": 1e-12}}


def units(seed: int, count: int, size: int = 8, dtype=torch.float64) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, size, generator=g, dtype=torch.float64)).to(dtype)
