"""Differentiable exchange between ranks, for a loss that every rank computes in full.

All ranks arrive at the same loss of the global batch, each having computed a part of what it is
made of. So a gradient needs no exchange except where samples were gathered: what the ranks found
for one sample is summed and sent to its owner. A model under DistributedDataParallel has its
gradients *averaged* over ranks, hence :func:`scale_gradient` on its way into the loss.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function


def rank_and_world_size() -> tuple[int, int]:
    """(0, 1) outside of a distributed run."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def all_reduce_in_place(values: Tensor) -> None:
    """Sum over the ranks."""
    dist.all_reduce(values)


def gather(values: Tensor) -> Tensor:
    """Rows of all ranks, in the order of ranks; ranks may hold different numbers of them.

    Args:
        values: Shape (n, ...), n of this rank's own.

    Returns:
        Shape (sum of n, ...). The gradient of a row is the sum over ranks.
    """
    if rank_and_world_size()[1] == 1:
        return values
    return _Gather.apply(values)


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of what each rank holds, of any shape that they share."""
    if rank_and_world_size()[1] == 1:
        return values
    return _Sum.apply(values)


def logsumexp_over_ranks(values: Tensor) -> Tensor:
    """``log(sum of exp)`` of what each rank holds; -inf where all hold that."""
    if rank_and_world_size()[1] == 1:
        return values
    return _LogSumExp.apply(values)


def scale_gradient(values: Tensor, factor: float) -> Tensor:
    """The values themselves, whose gradient is multiplied on its way back."""
    return values if factor == 1 else _ScaleGradient.apply(values, factor)


class _Gather(Function):
    @staticmethod
    def forward(ctx, values):
        rank, world_size = rank_and_world_size()
        counts = [torch.zeros(1, dtype=torch.int64, device=values.device)] * world_size
        counts = [count.clone() for count in counts]
        dist.all_gather(counts, torch.tensor([len(values)], device=values.device))
        counts = [int(count) for count in counts]
        # Backends gather tensors of one size.
        padded = values.new_zeros((max(counts), *values.shape[1:]))
        padded[: len(values)] = values
        rows = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(rows, padded)
        ctx.begin, ctx.count = sum(counts[:rank]), len(values)
        return torch.cat([row[:count] for row, count in zip(rows, counts, strict=True)])

    @staticmethod
    def backward(ctx, grad):
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad[ctx.begin : ctx.begin + ctx.count]


class _Sum(Function):
    @staticmethod
    def forward(ctx, values):
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx, grad):
        return grad


class _LogSumExp(Function):
    @staticmethod
    def forward(ctx, values):
        maximum = values.clone()
        dist.all_reduce(maximum, op=dist.ReduceOp.MAX)
        maximum = maximum.masked_fill(maximum == -torch.inf, 0)
        total = (values - maximum).exp()
        dist.all_reduce(total)
        result = total.log() + maximum
        ctx.save_for_backward(values, result)
        return result

    @staticmethod
    def backward(ctx, grad):
        values, result = ctx.saved_tensors
        share = (values - result).exp()
        return grad * share.masked_fill(values == -torch.inf, 0)


class _ScaleGradient(Function):
    @staticmethod
    def forward(ctx, values, factor):
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.factor, None
