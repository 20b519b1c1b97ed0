"""Differentiable exchange between ranks, for a loss that every rank computes in full.

All ranks compute the same loss of the global batch, each from its own part of the work. So a
gradient needs no exchange except where samples were gathered: there, the gradients of a sample are
summed over the ranks and returned to its owner. DistributedDataParallel *averages* gradients over
ranks, hence :func:`scale_gradient` on the inputs of the loss.
"""

import torch
import torch.distributed as dist
from mmengine.dist import get_dist_info, get_world_size
from torch import Tensor
from torch.autograd import Function


def gather(values: Tensor) -> Tensor:
    """Rows (n, ...) of all ranks, in rank order; n may differ. Gradients are summed over ranks."""
    return values if get_world_size() == 1 else _Gather.apply(values)


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum over the ranks of tensors of one shape."""
    return values if get_world_size() == 1 else _Sum.apply(values)


def logsumexp_over_ranks(values: Tensor) -> Tensor:
    """``log(sum of exp)`` over the ranks; -inf where every rank has -inf."""
    if get_world_size() == 1:
        return values
    maximum = values.detach().clone()
    dist.all_reduce(maximum, op=dist.ReduceOp.MAX)
    maximum = maximum.masked_fill(maximum == -torch.inf, 0)
    total = sum_over_ranks((values - maximum).exp())
    # The logarithm sees no zero, whose gradient would be NaN.
    found = total > 0
    return torch.where(found, torch.where(found, total, 1).log() + maximum, -torch.inf)


def scale_gradient(values: Tensor, factor: float) -> Tensor:
    """The values unchanged; their gradient is multiplied by ``factor``."""
    if factor == 1 or not values.requires_grad:
        return values
    scaled = values.view_as(values)
    scaled.register_hook(lambda grad: grad * factor)
    return scaled


class _Gather(Function):
    @staticmethod
    def forward(ctx, values):
        rank, world_size = get_dist_info()
        own = torch.tensor([len(values)], device=values.device)
        counts = [torch.empty_like(own) for _ in range(world_size)]
        dist.all_gather(counts, own)
        counts = [int(count) for count in counts]
        # Backends gather tensors of equal size.
        padded = values.new_zeros((max(counts), *values.shape[1:]))
        padded[: len(values)] = values
        rows = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(rows, padded)
        ctx.begin, ctx.count = sum(counts[:rank]), len(values)
        return torch.cat([row[:count] for row, count in zip(rows, counts, strict=True)])

    @staticmethod
    def backward(ctx, *grads):
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        return grad[ctx.begin : ctx.begin + ctx.count]


class _Sum(Function):
    @staticmethod
    def forward(ctx, values):
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx, *grads):
        return grads[0]
