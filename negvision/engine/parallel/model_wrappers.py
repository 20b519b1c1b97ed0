"""Wrappers of a model for several processes, among them fully sharded data parallelism (FSDP2).

A config selects a wrapper by ``model_wrapper_cfg``; mmengine's own strategies are for FSDP1.
"""

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import broadcast
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel

from negvision.engine.config.model_parts import model_parts
from negvision.engine.memory_format import lay_out_as_asked
from negvision.engine.parallel.sharded import (
    find_row_shards,
    give_scalars_a_row,
    keep_shards_from_ddp,
)
from negvision.engine.parallel.sync_bn import synchronize_batch_norm
from negvision.errors import ConfigError
from negvision.registry import MODEL_WRAPPERS

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@MODEL_WRAPPERS.register_module()
class FullyShardedModel(nn.Module):
    """A model whose weights, gradients and optimizer state are sharded over the ranks.

    The weights of a part are gathered while that part computes. Training equals that of
    DistributedDataParallel except for the order in which gradients are summed. Checkpoints hold
    full tensors under the names of the plain model and load at any world size, with and without
    this wrapper. Each rank has its own buffers, such as statistics of batch normalization.

    With gradient accumulation, gradients are reduced in every iteration, so that no rank holds
    the gradients of the full model.

    Args:
        module: The model.
        shard: Parts that are gathered separately, as in
            :func:`negvision.engine.config.model_parts.model_parts`; None: the blocks of the
            backbone, and the neck. The rest, including the heads, is one more part.
        reshard_after_forward: Free the weights of a part between forward and backward, and gather
            them again; False: keep them, for half the gathering and more memory.
        mixed_precision: ``"bf16"``: gather the backbone's parts, except normalization layers, in
            bfloat16 and compute them under autocast; their outputs, the other parts, the reduction
            of gradients and the stored weights are float32. Add ``--amp bf16`` to compute the rest
            in bfloat16. None: gather float32.

    Raises:
        ConfigError: An argument has another value, or the model's head is sharded already.

    Example:
        >>> model_wrapper_cfg = dict(type="negvision.FullyShardedModel", mixed_precision="bf16")
    """

    def __init__(
        self,
        module: BaseModel,
        shard: Sequence[str] | str | None = None,
        reshard_after_forward: bool = True,
        mixed_precision: str | None = None,
    ) -> None:
        super().__init__()
        if mixed_precision not in (None, "bf16"):
            raise ConfigError(
                f"model_wrapper_cfg.mixed_precision is {mixed_precision!r}; it must be None or "
                "'bf16'. For float16 use --amp fp16"
            )
        if find_row_shards(module):
            names = ", ".join(shard.path for shard in find_row_shards(module))
            raise ConfigError(
                f"{names} is already sharded over ranks by its own module. Set sharded=False "
                "there, or remove model_wrapper_cfg: each rank then holds its rows of it and a "
                "replica of the rest"
            )
        if shard is None:
            shard = [name for name in ("backbone", "neck") if _has(module, name)]
        self.module = module
        names = [shard] if isinstance(shard, str) else shard
        self._parts = model_parts(module, names, "model_wrapper_cfg.shard")
        for part in self._parts:
            # Weights are gathered when a part is called; a head computes in other methods.
            if callable(getattr(part, "loss", None)):
                raise ConfigError(
                    f"model_wrapper_cfg.shard names a {type(part).__name__}, which computes in its "
                    "method `loss` and cannot be gathered separately. Remove it (it is in the last "
                    "part), or name modules inside it"
                )
        self._reshard_after_forward = reshard_after_forward
        self._half = mixed_precision == "bf16"

    @property
    def is_sharded(self) -> bool:
        """Whether the ranks hold shards by now."""
        return isinstance(self.module, FSDPModule)

    def initialize(self) -> None:
        """Draw the weights as one process would, the same on all ranks, and shard them."""
        if self.is_sharded:
            return
        if hasattr(self.module, "init_weights"):
            self.module.init_weights()
        self._shard()

    def _shard(self) -> None:
        """Broadcast the weights of the first rank, and keep a shard on each."""
        device = get_device().partition(":")[0]
        for values in self.module.state_dict().values():
            broadcast(values)
        give_scalars_a_row(self.module)
        mesh = init_device_mesh(device, (dist.get_world_size(),))
        plain = MixedPrecisionPolicy(cast_forward_inputs=False)
        half = MixedPrecisionPolicy(
            torch.bfloat16, torch.float32, torch.float32, cast_forward_inputs=False
        )

        def shard(part: nn.Module | list[nn.Module], policy: MixedPrecisionPolicy) -> None:
            # None: the last part keeps its weights for the backward pass.
            reshard = None if part is self.module else self._reshard_after_forward
            fully_shard(part, mesh=mesh, reshard_after_forward=reshard, mp_policy=policy)

        inside = set(self.module.backbone.modules()) if _has(self.module, "backbone") else set()
        for part in self._parts:
            in_half = self._half and part in inside
            norms: list[nn.Module] = [m for m in part.modules() if isinstance(m, _NORMS)]
            if in_half:
                # Parts may have float32 tensors, such as the masks of a transformer.
                part.forward = functools.partial(_in_bfloat16, part.forward)
            if in_half and norms and part not in norms:
                # Statistics are float32, and kernels need weights of the same type.
                shard(norms, plain)
            shard(part, half if in_half else plain)
        shard(self.module, plain)
        # Buffers, and what the model stores about its device.
        self.module.to(get_device())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        self._ensure_sharded()
        return self.module(*args, **kwargs)

    def _ensure_sharded(self) -> None:
        if not self.is_sharded:  # without an optimizer: weights were loaded for an evaluation
            self._shard()

    def train_step(self, data: dict | tuple | list, optim_wrapper: OptimWrapper) -> dict:
        """Forward, backward and update; returns the losses for the log."""
        with optim_wrapper.optim_context(self):
            data = self.module.data_preprocessor(data, training=True)
            losses = (
                self(**data, mode="loss") if isinstance(data, dict) else self(*data, mode="loss")
            )
        loss, log_vars = self.module.parse_losses(losses)
        optim_wrapper.update_params(loss)
        return log_vars

    def val_step(self, data: dict | tuple | list) -> list:
        """Predictions for a batch."""
        self._ensure_sharded()
        return self.module.val_step(data)

    def test_step(self, data: dict | tuple | list) -> list:
        """Predictions for a batch."""
        self._ensure_sharded()
        return self.module.test_step(data)


def _in_bfloat16(forward: Callable, *args: Any, **kwargs: Any) -> Any:
    with torch.autocast(get_device().partition(":")[0], torch.bfloat16):
        return forward(*args, **kwargs)


def _has(module: nn.Module, name: str) -> bool:
    return isinstance(getattr(module, name, None), nn.Module)


def wrap_for_ranks(model: BaseModel, wrapper: dict | None, cfg: Config) -> nn.Module:
    """The model in its wrapper; the default is DistributedDataParallel.

    Args:
        model: On the CPU.
        wrapper: The config's ``model_wrapper_cfg``.
        cfg: ``sync_bn``, ``find_unused_parameters`` and ``custom_hooks`` are read.
    """
    device = get_device()
    model = synchronize_batch_norm(model, cfg.get("sync_bn"), device.partition(":")[0])
    wrapper = {"type": "MMDistributedDataParallel", **(wrapper or {})}
    kind = wrapper["type"]
    kind = kind if inspect.isclass(kind) else MODEL_WRAPPERS.get(kind)
    if kind is None or not issubclass(kind, FullyShardedModel):
        # FullyShardedModel moves a part at a time, so that a device never holds all weights.
        model = model.to(device)
    if kind is not None and issubclass(kind, DistributedDataParallel):
        lay_out_as_asked(model, cfg)
        keep_shards_from_ddp(model)
        wrapper = {
            "broadcast_buffers": False,
            "find_unused_parameters": cfg.get("find_unused_parameters", False),
            **wrapper,
            # DistributedDataParallel takes no device ids on a CPU.
            "device_ids": None if device == "cpu" else [int(os.environ["LOCAL_RANK"])],
        }
    return MODEL_WRAPPERS.build(wrapper, default_args={"module": model})
