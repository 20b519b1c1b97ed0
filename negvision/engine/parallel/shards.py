"""Parameters of which each rank holds a share of the rows, as the class centres of Partial FC.

A module that has such parameters says so by a method ``sharded_rows()``, which returns
``{name: (rows, total)}``: the rows that are this rank's, a range, and the number that all ranks
hold together. In its own state dict a share is named as one, ``weight[4:7]``. Checkpoints hold all
rows, of the parameter and of the optimizer's state of it, so that they load at any world size and
where the parameter is not sharded at all.
"""

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from negvision.errors import CheckpointError, UserError


class Shard(NamedTuple):
    """A parameter ``name`` of ``module``, whose full name is ``path``, and the rows it has here."""

    module: nn.Module
    name: str
    path: str
    rows: range
    total: int

    @property
    def parameter(self) -> nn.Parameter:
        return getattr(self.module, self.name)


def find_shards(model: nn.Module) -> list[Shard]:
    """The sharded parameters of a model, in the order of its modules."""
    shards = []
    for prefix, module in model.named_modules():
        if hasattr(module, "sharded_rows"):
            for name, (rows, total) in module.sharded_rows().items():
                path = f"{prefix}.{name}" if prefix else name
                shards.append(Shard(module, name, path, rows, total))
    return shards


def keep_shards_from_ddp(model: nn.Module) -> None:
    """Make DistributedDataParallel, which is to wrap ``model``, leave shards as they are."""
    names = [shard.path for shard in find_shards(model)]
    if names:
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)


@contextlib.contextmanager
def shards_left_out(model: nn.Module) -> Iterator[None]:
    """While it lasts, the state dict of ``model`` is without them."""

    def leave_out(shard, module, state_dict, prefix, _):
        _remove_share(state_dict, prefix + shard.name)

    shards = find_shards(model)
    hooks = [(shard.module, functools.partial(leave_out, shard)) for shard in shards]
    with _registered(module.register_state_dict_post_hook(hook) for module, hook in hooks):
        yield


@contextlib.contextmanager
def whole_state(models: Iterable[nn.Module], optimizers: Iterable[Optimizer]) -> Iterator[None]:
    """While it lasts, state dicts taken on the first rank hold sharded parameters whole.

    All ranks must enter. The rows of the others come to the memory of the first rank's CPU, one
    share at a time.

    Args:
        models: Models whose state dicts will be taken.
        optimizers: Optimizers, likewise, of parameters of the first model.

    Raises:
        UserError: An optimizer's state of such a parameter cannot be joined.
    """
    models, hooks = list(models), []

    def put(shard, whole, module, state_dict, prefix, _):
        _remove_share(state_dict, prefix + shard.name)
        state_dict[prefix + shard.name] = whole

    for shard in (shard for model in models for shard in find_shards(model)):
        whole = join_on_first_rank(shard.parameter, shard)
        if whole is not None:
            hook = functools.partial(put, shard, whole)
            hooks.append(shard.module.register_state_dict_post_hook(hook))
    shards = {shard.parameter: shard for shard in find_shards(models[0])}
    for optimizer in optimizers:
        joined = {
            parameter: _joined_state(optimizer, shard)
            for parameter, shard in shards.items()
            if parameter in optimizer.state
        }
        if joined:
            hook = functools.partial(_with_state, joined)
            hooks.append(optimizer.register_state_dict_post_hook(hook))
    with _registered(hooks):
        yield


@contextlib.contextmanager
def own_state(model: nn.Module, optimizers: Iterable[Optimizer]) -> Iterator[None]:
    """While it lasts, optimizers that load a whole state take their share of it.

    Raises:
        CheckpointError: The state is of another number of rows; on loading.
    """
    shards = {shard.parameter: shard for shard in find_shards(model)}
    with _registered(
        optimizer.register_load_state_dict_pre_hook(functools.partial(_with_own_rows, shards))
        for optimizer in optimizers
    ):
        yield


def optimizers_of(optim_wrapper: object) -> list[Optimizer]:
    """The optimizers of a wrapper or a dict of wrappers; none of a config that is not built yet."""
    if isinstance(optim_wrapper, OptimWrapperDict):
        return [wrapper.optimizer for wrapper in optim_wrapper.values()]
    return [optim_wrapper.optimizer] if isinstance(optim_wrapper, OptimWrapper) else []


def clip_over_shards(model: nn.Module, optim_wrapper: OptimWrapper | OptimWrapperDict) -> None:
    """Make clipping by norm look at the rows of all ranks.

    Each rank would else find another norm, and shrink the gradients of what they share differently.
    """
    sharded = {shard.parameter for shard in find_shards(model)}
    several = isinstance(optim_wrapper, OptimWrapperDict)
    for wrapper in optim_wrapper.values() if several else [optim_wrapper]:
        if sharded and getattr(wrapper, "clip_func", None) is nn.utils.clip_grad_norm_:
            wrapper.clip_func = functools.partial(clip_grad_norm, sharded)


def clip_grad_norm(
    sharded: set[nn.Parameter],
    parameters: Iterable[nn.Parameter],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """:func:`torch.nn.utils.clip_grad_norm_` where some parameters are shared out over the ranks.

    Args:
        sharded: Parameters of which each rank holds some rows.
        parameters: All that are clipped, those among them.
        max_norm: As in torch.
        norm_type: As in torch.
        error_if_nonfinite: As in torch.

    Returns:
        The norm of all gradients before, the same on all ranks.
    """
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    like = parameters[0].grad
    own = [parameter.grad for parameter in parameters if parameter in sharded]
    others = [parameter.grad for parameter in parameters if parameter not in sharded]
    norm = nn.utils.get_total_norm(others, norm_type).to(like)
    # A rank without rows takes part with a norm of 0.
    of_shards = nn.utils.get_total_norm([g for g in own if g.numel()], norm_type).to(like)
    if norm_type == float("inf"):
        _all_reduce(of_shards, dist.ReduceOp.MAX)
        norm = torch.maximum(norm, of_shards)
    else:
        of_shards = of_shards**norm_type
        _all_reduce(of_shards, dist.ReduceOp.SUM)
        norm = (norm**norm_type + of_shards) ** (1 / norm_type)
    if error_if_nonfinite and not norm.isfinite():
        raise RuntimeError(f"the gradients' norm of order {norm_type} is {norm.item()}")
    nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def _all_reduce(values: Tensor, operation: dist.ReduceOp) -> None:
    if get_dist_info()[1] > 1:
        dist.all_reduce(values, op=operation)


@contextlib.contextmanager
def _registered(handles: Iterable) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


def _remove_share(state_dict: dict, key: str) -> None:
    """A share is ``weight[4:7]`` in a state dict, to be told from a whole ``weight``."""
    for name in [name for name in state_dict if name == key or name.startswith(f"{key}[")]:
        del state_dict[name]


def join_on_first_rank(values: Tensor, shard: Shard) -> Tensor | None:
    """All rows on the first rank's CPU, None on the others; all ranks must call this.

    Args:
        values: Shape (rows of this rank, ...): the shard, its gradient, or a state of it.
        shard: Whose rows they are.
    """
    rank, world_size = get_dist_info()
    values = values.detach().contiguous()
    if world_size == 1:
        return values.cpu()
    rows_of_ranks = all_gather_object(shard.rows)
    if rank > 0:
        if len(values):
            dist.send(values, 0)
        return None
    whole = torch.empty((shard.total, *values.shape[1:]), dtype=values.dtype)
    whole[shard.rows.start : shard.rows.stop] = values.cpu()
    for source, rows in enumerate(rows_of_ranks[1:], start=1):
        if len(rows):
            received = values.new_empty((len(rows), *values.shape[1:]))
            dist.recv(received, source)
            whole[rows.start : rows.stop] = received.cpu()
    return whole


def _joined_state(optimizer: Optimizer, shard: Shard) -> dict[str, Tensor | None]:
    shape, joined = shard.parameter.shape, {}
    for key, value in optimizer.state[shard.parameter].items():
        if not isinstance(value, Tensor) or value.dim() == 0:
            continue
        if value.shape != shape:
            raise UserError(
                f"{type(optimizer).__name__} keeps {key!r} of shape {tuple(value.shape)} for "
                f"{shard.path}, of which this rank holds {tuple(shape)}: such a state cannot be "
                "joined over ranks. Use an optimizer with a state a weight, e.g. SGD or AdamW, or "
                "sharded=False"
            )
        joined[key] = join_on_first_rank(value, shard)
    return joined


def _with_state(joined: dict, optimizer: Optimizer, state_dict: dict) -> dict:
    """``state_dict`` with what is ``joined`` in the place of this rank's share."""
    state = dict(state_dict["state"])
    for number, parameter in _numbered(optimizer, state_dict):
        if parameter in joined and number in state:
            state[number] = {**state[number], **joined[parameter]}
    return {**state_dict, "state": state}


def _with_own_rows(shards: dict, optimizer: Optimizer, state_dict: dict) -> dict:
    state = dict(state_dict["state"])
    for number, parameter in _numbered(optimizer, state_dict):
        if parameter in shards and number in state:
            state[number] = {
                key: _own_rows(key, value, shards[parameter])
                for key, value in state[number].items()
            }
    return {**state_dict, "state": state}


def _own_rows(key: str, value: object, shard: Shard) -> object:
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    expected = (shard.total, *shard.parameter.shape[1:])
    if value.shape != expected:
        raise CheckpointError(
            f"the optimizer's {key!r} of {shard.path} has shape {tuple(value.shape)} in the "
            f"checkpoint and {expected} here: it is of another number of classes. Resume with the "
            "config that it was trained with, or begin a new training from its weights (load_from)"
        )
    return value[shard.rows.start : shard.rows.stop].clone()


def _numbered(optimizer: Optimizer, state_dict: dict) -> Iterator[tuple[int, nn.Parameter]]:
    for saved, group in zip(state_dict["param_groups"], optimizer.param_groups, strict=False):
        yield from zip(saved["params"], group["params"], strict=False)
