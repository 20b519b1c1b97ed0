"""Parameters that are sharded over the ranks: found, clipped, saved in full and loaded.

There are two kinds. Rows of a parameter, such as the class centers of Partial FC: the module names
them by a method ``sharded_rows()``, which returns ``{name: (rows, total)}``, the range of rows of
this rank and the number of all rows. In the module's own state dict such a shard is named
``weight[4:7]``. And DTensors: all parameters of
:class:`negvision.engine.parallel.model_wrappers.FullyShardedModel`.

Checkpoints hold full parameters and the full state of the optimizer under the names of the plain
model, so they load at any world size, sharded or not.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

import torch
import torch.distributed as dist
from mmengine.dist import all_gather_object, all_reduce, get_dist_info, get_rank
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from negvision.errors import CheckpointError, UserError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

_SCALARS = "_parameters_saved_as_scalars"


class RowShard(NamedTuple):
    """Rows of a parameter ``name`` of ``module``, whose full name is ``path``."""

    module: nn.Module
    name: str
    path: str
    rows: range
    total: int

    @property
    def parameter(self) -> nn.Parameter:
        return getattr(self.module, self.name)

    def gather(self, values: Tensor) -> Tensor | None:
        """All rows on the first rank's CPU, None on the others; all ranks must call this.

        Shards are sent one at a time.

        Args:
            values: Shape (rows of this rank, ...): the parameter, its gradient, or a state of it.
        """
        rank, world_size = get_dist_info()
        values = values.detach().contiguous()
        if world_size == 1:
            return values.cpu()
        rows_of_ranks = all_gather_object(self.rows)
        if rank > 0:
            if len(values):
                dist.send(values, 0)
            return None
        full = torch.empty((self.total, *values.shape[1:]), dtype=values.dtype)
        full[self.rows.start : self.rows.stop] = values.cpu()
        for source, rows in enumerate(rows_of_ranks[1:], start=1):
            if len(rows):
                received = values.new_empty((len(rows), *values.shape[1:]))
                dist.recv(received, source)
                full[rows.start : rows.stop] = received.cpu()
        return full

    def take(self, full: Tensor) -> Tensor:
        """This rank's rows of what every rank has in full."""
        return full[self.rows.start : self.rows.stop].clone()

    def remove(self, module: nn.Module, state_dict: dict, prefix: str, *_: object) -> None:
        """Remove this parameter from a state dict of its module."""
        key = prefix + self.name
        for name in [name for name in state_dict if name == key or name.startswith(f"{key}[")]:
            del state_dict[name]

    def gather_state(self, optimizer: Optimizer) -> dict[str, Tensor | None]:
        shape, gathered = self.parameter.shape, {}
        for key, value in optimizer.state[self.parameter].items():
            if not isinstance(value, Tensor) or value.dim() == 0:
                continue
            if value.shape != shape:
                raise UserError(
                    f"{type(optimizer).__name__} keeps {key!r} of shape {tuple(value.shape)} for "
                    f"{self.path}, of which this rank holds {tuple(shape)}: such a state cannot be "
                    "gathered over ranks. Use an optimizer with one state per weight, e.g. SGD or "
                    "AdamW, or sharded=False"
                )
            gathered[key] = self.gather(value)
        return gathered

    def take_state(self, key: str, value: object) -> object:
        if not isinstance(value, Tensor) or value.dim() == 0:
            return value
        expected = (self.total, *self.parameter.shape[1:])
        if value.shape != expected:
            raise CheckpointError(
                f"the optimizer's {key!r} of {self.path} has shape {tuple(value.shape)} in the "
                f"checkpoint and {expected} here: the number of classes differs. Resume with the "
                "config of the checkpoint, or start a new run from its weights (load_from)"
            )
        return self.take(value)


class DTensorShard(NamedTuple):
    """A parameter that is a DTensor."""

    module: nn.Module
    name: str
    parameter: DTensor

    def gather(self, values: Tensor) -> Tensor | None:
        """The full tensor on the first rank's CPU, None on the others; all ranks must call this."""
        values = values.detach()
        assert _is_dtensor(values)
        full = values.full_tensor()
        if get_rank() > 0:
            return None
        return full.reshape(()).cpu() if self._is_scalar else full.cpu()

    def take(self, full: Tensor) -> Tensor:
        """This rank's shard of what every rank has in full; nothing is sent."""
        from torch.distributed.tensor import distribute_tensor

        like = self.parameter
        full = full.to(like.device).reshape(like.shape)
        return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)

    def load(self, module: nn.Module, state_dict: dict, prefix: str, *_: object) -> None:
        """Replace the full parameter in a state dict that ``module`` is to load."""
        value = state_dict.get(prefix + self.name)
        # Another shape is left for torch to report.
        if self._fits(value):
            state_dict[prefix + self.name] = self.take(value)

    def gather_state(self, optimizer: Optimizer) -> dict[str, object]:
        return {
            key: self.gather(value) if _is_dtensor(value) else value
            for key, value in optimizer.state[self.parameter].items()
        }

    def take_state(self, key: str, value: object) -> object:
        # The count of steps is one number for any parameter.
        return self.take(value) if key != "step" and self._fits(value) else value

    @property
    def _is_scalar(self) -> bool:
        return self.name in getattr(self.module, _SCALARS, ())

    def _fits(self, value: object) -> TypeGuard[Tensor]:
        if not isinstance(value, Tensor) or _is_dtensor(value):
            return False
        shape = self.parameter.shape
        return value.shape == shape or (value.dim() == 0 and shape == (1,))


def _is_dtensor(value: object) -> TypeGuard[DTensor]:
    # Nothing is one before that module, which loads slowly, is imported.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def find_row_shards(model: nn.Module) -> list[RowShard]:
    """The parameters of which this rank holds rows, in the order of the modules."""
    return [
        RowShard(module, name, f"{prefix}.{name}" if prefix else name, rows, total)
        for prefix, module in model.named_modules()
        if hasattr(module, "sharded_rows")
        for name, (rows, total) in module.sharded_rows().items()
    ]


def find_shards(model: nn.Module) -> dict[Tensor, RowShard | DTensorShard]:
    """The shards of both kinds, by their parameter."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    for module in model.modules():
        if fsdp is not None and isinstance(module, fsdp.FSDPModule):
            module.reshard()  # an evaluation leaves the last part unsharded
    dtensors = [
        DTensorShard(module, name, parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if _is_dtensor(parameter)
    ]
    return {shard.parameter: shard for shard in [*find_row_shards(model), *dtensors]}


def give_scalars_a_row(model: nn.Module) -> None:
    """Reshape parameters of shape () to (1,), since torch shards rows.

    Checkpoints hold them with shape ().
    """
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.dim() == 0:
                row = nn.Parameter(parameter.detach().reshape(1), parameter.requires_grad)
                setattr(module, name, row)
                module.__dict__.setdefault(_SCALARS, set()).add(name)


def keep_shards_from_ddp(model: nn.Module) -> None:
    """Make DistributedDataParallel, which is to wrap ``model``, ignore row shards."""
    names = [shard.path for shard in find_row_shards(model)]
    if names:
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)


@contextlib.contextmanager
def without_row_shards(model: nn.Module) -> Iterator[None]:
    """Inside the block, state dicts of ``model`` lack its row shards."""
    with contextlib.ExitStack() as stack:
        for shard in find_row_shards(model):
            # torch sets an attribute of the hook, which a method does not have.
            hook = functools.partial(shard.remove)
            stack.callback(shard.module.register_state_dict_post_hook(hook).remove)
        yield


@contextlib.contextmanager
def full_state(models: Iterable[nn.Module], optimizers: Iterable[Optimizer]) -> Iterator[None]:
    """Inside the block, state dicts taken on the first rank hold full tensors on the CPU.

    All ranks must enter. One tensor at a time is gathered.

    Args:
        models: Models whose state dicts will be taken.
        optimizers: Optimizers of parameters of the first model, whose state dicts will be taken.

    Raises:
        UserError: An optimizer's state of a row shard cannot be gathered.
    """
    models = list(models)
    with contextlib.ExitStack() as stack:
        for model in models:
            for parameter, shard in find_shards(model).items():
                full = shard.gather(parameter)
                if full is not None:
                    hook = functools.partial(_put, shard, full)
                    stack.callback(shard.module.register_state_dict_post_hook(hook).remove)
        shards = find_shards(models[0])
        for optimizer in optimizers:
            state = {
                parameter: shard.gather_state(optimizer)
                for parameter, shard in shards.items()
                if parameter in optimizer.state
            }
            if state:
                hook = functools.partial(_with_state, state)
                stack.callback(optimizer.register_state_dict_post_hook(hook).remove)
        yield


@contextlib.contextmanager
def own_state(model: nn.Module, optimizers: Iterable[Optimizer]) -> Iterator[None]:
    """Inside the block, ``model`` and ``optimizers`` take their shards of full tensors they load.

    Modules load their row shards themselves.

    Raises:
        CheckpointError: On loading: the state has another number of rows.
    """
    shards = find_shards(model)
    with contextlib.ExitStack() as stack:
        for shard in shards.values():
            if isinstance(shard, DTensorShard):
                hook = shard.module.register_load_state_dict_pre_hook(shard.load)
                stack.callback(hook.remove)
        for optimizer in optimizers:
            hook = functools.partial(_with_own_state, shards)
            stack.callback(optimizer.register_load_state_dict_pre_hook(hook).remove)
        yield


def optim_wrappers_of(optim_wrapper: object) -> list[OptimWrapper]:
    """The wrappers of a wrapper or a dict of wrappers; none of a config that is not built yet."""
    if isinstance(optim_wrapper, OptimWrapperDict):
        return list(optim_wrapper.values())
    return [optim_wrapper] if isinstance(optim_wrapper, OptimWrapper) else []


def clip_over_ranks(model: nn.Module, optim_wrapper: OptimWrapper | OptimWrapperDict) -> None:
    """Make clipping by norm use the shards of all ranks.

    Otherwise each rank would find another norm and scale replicated gradients differently.
    """
    sharded = set(find_shards(model))
    for wrapper in optim_wrappers_of(optim_wrapper) if sharded else []:
        if getattr(wrapper, "clip_func", None) is nn.utils.clip_grad_norm_:
            wrapper.clip_func = functools.partial(clip_grad_norm, sharded)


@torch.no_grad()
def clip_grad_norm(
    sharded: set[Tensor],
    parameters: Iterable[nn.Parameter],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """:func:`torch.nn.utils.clip_grad_norm_` where some parameters are sharded over the ranks.

    Args:
        sharded: The sharded parameters.
        parameters: All that are clipped, sharded or not.
        max_norm: As in torch.
        norm_type: As in torch.
        error_if_nonfinite: As in torch.

    Returns:
        The norm of all gradients before clipping, the same on all ranks.
    """
    pairs = local_gradients(parameters)
    own = [grad for parameter, grad in pairs if parameter in sharded and grad.numel()]
    others = [grad for parameter, grad in pairs if parameter not in sharded]
    gradients = [grad for _, grad in pairs]
    like = gradients[0]
    norm = nn.utils.get_total_norm(others, norm_type).to(like)
    # A rank without rows takes part with a norm of 0.
    norm_of_shards = nn.utils.get_total_norm(own, norm_type).to(like)
    if norm_type == float("inf"):
        all_reduce(norm_of_shards, "max")
        norm = torch.maximum(norm, norm_of_shards)
    else:
        norm_of_shards = norm_of_shards**norm_type
        all_reduce(norm_of_shards)
        norm = (norm**norm_type + norm_of_shards) ** (1 / norm_type)
    if error_if_nonfinite and not norm.isfinite():
        raise RuntimeError(f"the gradients' norm of order {norm_type} is {norm.item()}")
    # As torch does, without waiting for the device.
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


def local_gradients(parameters: Iterable[nn.Parameter]) -> list[tuple[nn.Parameter, Tensor]]:
    """The parameters that have a gradient, each with it; of a DTensor this rank's shard."""
    return [
        (p, p.grad.to_local() if _is_dtensor(p.grad) else p.grad)
        for p in parameters
        if p.grad is not None
    ]


def _put(
    shard: RowShard | DTensorShard,
    full: Tensor,
    module: nn.Module,
    state_dict: dict,
    prefix: str,
    *_: object,
) -> None:
    if isinstance(shard, RowShard):
        shard.remove(module, state_dict, prefix)
    state_dict[prefix + shard.name] = full


def _with_state(gathered: dict, optimizer: Optimizer, state_dict: dict) -> dict:
    """``state_dict`` with the ``gathered`` state instead of this rank's shards."""
    state = dict(state_dict["state"])
    for number, parameter in _numbered(optimizer, state_dict):
        if parameter in gathered and number in state:
            state[number] = {**state[number], **gathered[parameter]}
    return {**state_dict, "state": state}


def _with_own_state(shards: dict, optimizer: Optimizer, state_dict: dict) -> dict:
    state = dict(state_dict["state"])
    for number, parameter in _numbered(optimizer, state_dict):
        if parameter in shards and number in state:
            shard = shards[parameter]
            state[number] = {
                key: shard.take_state(key, value) for key, value in state[number].items()
            }
    return {**state_dict, "state": state}


def _numbered(optimizer: Optimizer, state_dict: dict) -> Iterator[tuple[int, nn.Parameter]]:
    for saved, group in zip(state_dict["param_groups"], optimizer.param_groups, strict=False):
        yield from zip(saved["params"], group["params"], strict=False)
