"""Save a fully sharded model and its optimizer whole, and load what is whole into them.

The counterpart of :mod:`negvision.engine.parallel.shards` for parameters that are DTensors.
"""

import contextlib
import functools
from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from mmengine.dist import get_rank
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

_SCALARS = "_parameters_saved_as_scalars"


def give_scalars_a_row(model: nn.Module) -> None:
    """Make parameters of shape () such of shape (1,), since torch shards rows.

    Where they are saved they are of shape () as before, and where they are loaded too.
    """
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.dim() == 0:
                row = nn.Parameter(parameter.detach().reshape(1), parameter.requires_grad)
                setattr(module, name, row)
                module.__dict__.setdefault(_SCALARS, set()).add(name)


@contextlib.contextmanager
def whole_tensors(model: nn.Module, optimizers: Iterable[Optimizer]) -> Iterator[None]:
    """While it lasts, state dicts taken on the first rank hold whole tensors on the CPU.

    All ranks must enter. One tensor at a time is gathered. Without DTensors nothing happens.

    Args:
        model: Whose state dict will be taken.
        optimizers: Of its parameters, likewise.
    """
    with contextlib.ExitStack() as stack:
        scalars = set()
        for module, name, parameter in _sharded(model):
            if name in getattr(module, _SCALARS, ()):
                scalars.add(parameter)
            hook = functools.partial(_put, name, whole_tensor(parameter, parameter in scalars))
            stack.callback(module.register_state_dict_post_hook(hook).remove)
        for optimizer in optimizers:
            state = {
                parameter: {
                    key: whole_tensor(value, parameter in scalars)
                    for key, value in optimizer.state[parameter].items()
                }
                for parameter in _parameters(optimizer)
                if isinstance(parameter, DTensor) and parameter in optimizer.state
            }
            if state:
                hook = functools.partial(_with_state, state)
                stack.callback(optimizer.register_state_dict_post_hook(hook).remove)
        yield


@contextlib.contextmanager
def own_tensors(model: nn.Module, optimizers: Iterable[Optimizer]) -> Iterator[None]:
    """While it lasts, ``model`` and ``optimizers`` take their share of whole tensors they load."""
    with contextlib.ExitStack() as stack:
        for module, name, parameter in _sharded(model):
            hook = functools.partial(_take, name, parameter)
            stack.callback(module.register_load_state_dict_pre_hook(hook).remove)
        for optimizer in optimizers:
            hook = optimizer.register_load_state_dict_pre_hook(_with_own_state)
            stack.callback(hook.remove)
        yield


def whole_tensor(value: object, as_scalar: bool = False) -> object:
    """All of a DTensor on the first rank's CPU, None on the others; anything else as it is.

    All ranks must call this.
    """
    if not isinstance(value, DTensor):
        return value
    whole = value.detach().full_tensor()
    if get_rank() > 0:
        return None
    return whole.reshape(()).cpu() if as_scalar else whole.cpu()


def own_share(whole: Tensor, like: DTensor) -> DTensor:
    """This rank's share of what every rank has whole; nothing is sent."""
    whole = whole.to(like.device).reshape(like.shape)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)


def clip_over_dtensors(model: nn.Module, optim_wrapper: OptimWrapper | OptimWrapperDict) -> None:
    """Make clipping by norm look at the shares of all ranks."""
    several = isinstance(optim_wrapper, OptimWrapperDict)
    for wrapper in optim_wrapper.values() if several else [optim_wrapper]:
        if _sharded(model) and getattr(wrapper, "clip_func", None) is nn.utils.clip_grad_norm_:
            wrapper.clip_func = clip_grad_norm


@torch.no_grad()
def clip_grad_norm(
    parameters: Iterable[nn.Parameter],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """:func:`torch.nn.utils.clip_grad_norm_` of DTensors, of which a rank's share may be empty.

    Returns:
        The norm of all gradients before, over all ranks, and the same on all of them.
    """
    shares = [p.grad.to_local() for p in parameters if p.grad is not None]
    # One value more: torch has no greatest of nothing.
    norm = nn.utils.get_total_norm(
        [s for s in shares if s.numel()] or [shares[0].new_zeros(1)], norm_type
    )
    if norm_type == float("inf"):
        dist.all_reduce(norm, op=dist.ReduceOp.MAX)
    else:
        norm = norm**norm_type
        dist.all_reduce(norm)
        norm = norm ** (1 / norm_type)
    if error_if_nonfinite and not norm.isfinite():
        raise RuntimeError(f"the gradients' norm of order {norm_type} is {norm.item()}")
    # As torch has it, without waiting for the device.
    torch._foreach_mul_(shares, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


def _sharded(model: nn.Module) -> list[tuple[nn.Module, str, DTensor]]:
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # an evaluation leaves the last part whole
    return [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(parameter, DTensor)
    ]


def _parameters(optimizer: Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _is_whole(value: object, like: DTensor) -> bool:
    if not isinstance(value, Tensor) or isinstance(value, DTensor):
        return False
    return value.shape == like.shape or (value.dim() == 0 and like.shape == (1,))


def _put(name: str, whole: Tensor, module: nn.Module, state_dict: dict, prefix: str, _) -> None:
    state_dict[prefix + name] = whole


def _take(
    name: str, parameter: DTensor, module: nn.Module, state_dict: dict, prefix: str, *_
) -> None:
    value = state_dict.get(prefix + name)
    # One of another shape is left to be reported.
    if _is_whole(value, parameter):
        state_dict[prefix + name] = own_share(value, parameter)


def _with_state(joined: dict, optimizer: Optimizer, state_dict: dict) -> dict:
    state = dict(state_dict["state"])
    for number, parameter in _numbered(optimizer, state_dict):
        if parameter in joined and number in state:
            state[number] = joined[parameter]
    return {**state_dict, "state": state}


def _with_own_state(optimizer: Optimizer, state_dict: dict) -> dict:
    state = dict(state_dict["state"])
    for number, parameter in _numbered(optimizer, state_dict):
        if isinstance(parameter, DTensor) and number in state:
            state[number] = {
                # The count of steps is one number of any parameter, and not shared out.
                key: own_share(value, parameter)
                if key != "step" and _is_whole(value, parameter)
                else value
                for key, value in state[number].items()
            }
    return {**state_dict, "state": state}


def _numbered(optimizer: Optimizer, state_dict: dict) -> Iterator[tuple[int, torch.Tensor]]:
    numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
    yield from zip(numbers, _parameters(optimizer), strict=False)
