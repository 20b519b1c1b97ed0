"""Gradients that wait for the rest of their accumulation, in a checkpoint written meanwhile."""

import torch.distributed as dist
from mmengine.dist import get_dist_info
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from negvision.engine.parallel.shards import Shard, find_shards, join_on_first_rank
from negvision.engine.parallel.whole import own_share, whole_tensor


def pending_gradients(model: nn.Module, optim_wrapper: OptimWrapper) -> dict[str, Tensor] | None:
    """Gradients by the name of their parameter, whole on the first rank; None where none wait.

    Over several ranks, each of which has accumulated its own, they are the mean. All ranks must
    call this.
    """
    count = getattr(optim_wrapper, "_accumulative_counts", 1)
    if count == 1 or optim_wrapper._inner_count % count == 0:
        return None
    model = _unwrapped(model)
    shards = _shards(model)
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradient = _whole(parameter.grad.detach(), shards.get(name))
            if gradient is not None:
                gradients[name] = gradient.cpu()
    return gradients


def restore_gradients(model: nn.Module, gradients: dict[str, Tensor] | None) -> None:
    """Put back what :func:`pending_gradients` returned on the first rank."""
    model = _unwrapped(model)
    shards = _shards(model)
    for name, parameter in model.named_parameters():
        gradient = (gradients or {}).get(name)
        if gradient is None:
            continue
        gradient = gradient.to(parameter.device, parameter.dtype)
        if name in shards:
            rows = shards[name].rows
            gradient = gradient[rows.start : rows.stop].clone()
        elif isinstance(parameter, DTensor):
            gradient = own_share(gradient, parameter)
        parameter.grad = gradient


def _whole(gradient: Tensor, shard: Shard | None) -> Tensor | None:
    if shard is not None:
        return join_on_first_rank(gradient, shard)
    if isinstance(gradient, DTensor):
        return whole_tensor(gradient)  # the mean over ranks already
    world_size = get_dist_info()[1]
    if world_size == 1:
        return gradient.clone()
    gradient = gradient.clone()
    dist.all_reduce(gradient)
    return gradient / world_size


def _shards(model: nn.Module) -> dict[str, Shard]:
    return {shard.path: shard for shard in find_shards(model)}


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model
