"""Wrap a model for several processes, as the config says."""

import inspect
import os

from mmengine.config import Config
from mmengine.device import get_device
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from negvision.engine.memory_format import lay_out_as_asked
from negvision.engine.parallel.fsdp import FullyShardedModel
from negvision.engine.parallel.shards import keep_shards_from_ddp
from negvision.engine.parallel.sync_bn import synchronise_batch_norm
from negvision.registry import MODEL_WRAPPERS


def wrap_for_ranks(model: nn.Module, wrapper: dict | None, cfg: Config) -> nn.Module:
    """The model in its wrapper: DistributedDataParallel, unless told otherwise.

    Args:
        model: On the CPU.
        wrapper: The config's ``model_wrapper_cfg``.
        cfg: Of it ``sync_bn``, ``find_unused_parameters`` and ``custom_hooks`` are read.
    """
    device = get_device()
    model = synchronise_batch_norm(model, cfg.get("sync_bn"), device.partition(":")[0])
    wrapper = {"type": "MMDistributedDataParallel", **(wrapper or {})}
    kind = wrapper["type"]
    kind = kind if inspect.isclass(kind) else MODEL_WRAPPERS.get(kind)
    if kind is None or not issubclass(kind, FullyShardedModel):
        # That one moves a part at a time, so that a device never holds the whole.
        model = model.to(device)
    if kind is not None and issubclass(kind, DistributedDataParallel):
        lay_out_as_asked(model, cfg)
        keep_shards_from_ddp(model)
        wrapper = {
            "broadcast_buffers": False,
            "find_unused_parameters": cfg.get("find_unused_parameters", False),
            **wrapper,
            # It takes no device ids on a CPU.
            "device_ids": None if device == "cpu" else [int(os.environ["LOCAL_RANK"])],
        }
    return MODEL_WRAPPERS.build(wrapper, default_args={"module": model})
