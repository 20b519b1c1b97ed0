"""Fully sharded data parallelism (FSDP2): each rank keeps a share of weights and optimizer state.

A config asks for it by ``model_wrapper_cfg``; mmengine's own strategies are for FSDP1.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from mmengine.device import get_device
from mmengine.dist import broadcast
from mmengine.optim import OptimWrapper
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.modules.batchnorm import _NormBase

from negvision.engine.config.model_parts import model_parts
from negvision.engine.parallel.shards import find_shards
from negvision.engine.parallel.whole import give_scalars_a_row
from negvision.errors import ConfigError
from negvision.registry import MODEL_WRAPPERS

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@MODEL_WRAPPERS.register_module()
class FullyShardedModel(nn.Module):
    """A model whose weights, gradients and optimizer state are shared out over the ranks.

    The weights of a part are gathered while that part computes. Training is that of
    DistributedDataParallel but for the order in which gradients are summed. Checkpoints hold the
    whole of everything, under the names of the plain model, and load at any number of ranks, with
    and without this. Buffers, as the statistics of batch normalisation, are each rank's own.

    With gradient accumulation gradients are reduced in every iteration, so that no rank ever
    holds those of the whole model.

    Args:
        module: The model.
        shard: Parts that are gathered by themselves, as in
            :func:`negvision.engine.config.model_parts.model_parts`; None: the blocks of the
            backbone, and the neck. What is left, the heads among it, is one more part.
        reshard_after_forward: Forget the weights of a part between its forward and its backward,
            and gather them again; False: keep them, for half the gathering and more memory.
        mixed_precision: ``"bf16"``: gather the backbone's parts in bfloat16, normalisations apart,
            and compute them under autocast to it; their outputs, what follows, the reduction of
            gradients and the weights that are kept are float32. ``--amp bf16`` beside it does the
            rest in bfloat16. None: gather float32.

    Raises:
        ConfigError: An argument that is something else, or a model whose head is sharded already.

    Example:
        >>> model_wrapper_cfg = dict(type="negvision.FullyShardedModel", mixed_precision="bf16")
    """

    def __init__(
        self,
        module: nn.Module,
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
        if find_shards(module):
            names = ", ".join(shard.path for shard in find_shards(module))
            raise ConfigError(
                f"{names} is sharded over ranks by its own module already, and "
                "negvision.FullyShardedModel would shard it once more. Set sharded=False there, or "
                "leave model_wrapper_cfg out: each rank then holds its rows of it and the whole of "
                "the rest"
            )
        if shard is None:
            shard = [name for name in ("backbone", "neck") if _has(module, name)]
        self.module = module
        names = [shard] if isinstance(shard, str) else shard
        self._parts = model_parts(module, names, "model_wrapper_cfg.shard")
        for part in self._parts:
            # Weights are gathered when a part is called; a head computes by other methods.
            if callable(getattr(part, "loss", None)):
                raise ConfigError(
                    f"model_wrapper_cfg.shard names a {type(part).__name__}, which computes by its "
                    "method `loss` and cannot be gathered by itself. Leave it out (it is in the "
                    "last part), or name modules inside of it"
                )
        self._reshard_after_forward = reshard_after_forward
        self._half = mixed_precision == "bf16"

    @property
    def is_sharded(self) -> bool:
        """Whether ranks hold shares by now."""
        return isinstance(self.module, FSDPModule)

    def initialise(self) -> None:
        """Draw the weights as one process would, the same on all ranks, and share them out."""
        if self.is_sharded:
            return
        if hasattr(self.module, "init_weights"):
            self.module.init_weights()
        self._share_out()

    def _share_out(self) -> None:
        """Make ranks equal to the first, and let each keep its share alone."""
        device = get_device().partition(":")[0]
        for values in self.module.state_dict().values():
            broadcast(values)
        give_scalars_a_row(self.module)
        options = {
            "mesh": init_device_mesh(device, (dist.get_world_size(),)),
            "reshard_after_forward": self._reshard_after_forward,
        }
        plain = MixedPrecisionPolicy(cast_forward_inputs=False)
        half = MixedPrecisionPolicy(
            torch.bfloat16, torch.float32, torch.float32, cast_forward_inputs=False
        )
        inside = set(self.module.backbone.modules()) if _has(self.module, "backbone") else set()
        for part in self._parts:
            in_half = self._half and part in inside
            norms = [layer for layer in part.modules() if isinstance(layer, _NORMS)]
            if in_half:
                # Not all of a part need be bfloat16: the masks of a transformer are float32.
                part.forward = functools.partial(_in_bfloat16, part.forward)
            if in_half and norms and part not in norms:
                # Statistics want float32, and kernels weights of the same type as those.
                fully_shard(norms, mp_policy=plain, **options)
            fully_shard(part, mp_policy=half if in_half else plain, **options)
        fully_shard(self.module, mp_policy=plain, **{**options, "reshard_after_forward": None})
        # Buffers, and what the model notes about its device.
        self.module.to(get_device())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's."""
        self._be_shared_out()
        return self.module(*args, **kwargs)

    def _be_shared_out(self) -> None:
        if not self.is_sharded:  # no optimizer was built: weights were loaded to be evaluated
            self._share_out()

    def train_step(self, data: dict | tuple | list, optim_wrapper: OptimWrapper) -> dict:
        """Forward, backward and update; the losses to be logged."""
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
        self._be_shared_out()
        return self.module.val_step(data)

    def test_step(self, data: dict | tuple | list) -> list:
        """Predictions for a batch."""
        self._be_shared_out()
        return self.module.test_step(data)


def _in_bfloat16(forward: Callable, *args: Any, **kwargs: Any) -> Any:
    with torch.autocast(get_device().partition(":")[0], torch.bfloat16):
        return forward(*args, **kwargs)


def _has(module: nn.Module, name: str) -> bool:
    return isinstance(getattr(module, name, None), nn.Module)
