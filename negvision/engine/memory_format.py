"""The memory format of a model's weights, and so of its feature maps."""

import ctypes
import sys

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel, is_model_wrapper
from torch import nn

from negvision.errors import ConfigError
from negvision.registry import HOOKS

# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Store convolution weights with the channels last, for faster CPU and Tensor Core kernels.

    Results differ by rounding only; checkpoints are the same. Feature maps follow the weights, so
    the images need no conversion. In several processes, weights change only if the hook is in the
    config, where the runner finds it before it wraps the model, and if they are not sharded. On a
    CPU, a model that would crash in this layout is left as it is (:func:`crashing_layers`).

    Raises:
        ConfigError: When the run begins, if the model was wrapped before the hook was known.

    Example:
        >>> custom_hooks = [dict(type="negvision.ChannelsLastHook")]
    """

    def before_run(self, runner) -> None:
        if names := crashing_layers(runner.model):
            runner.logger.info(
                f"channels last: not applied, since torch on a CPU can crash in {names[0]}, a "
                "1 x 1 convolution with a stride and fewer than 16 input channels"
            )
        elif not is_model_wrapper(runner.model):
            runner.model.to(memory_format=torch.channels_last)
        elif getattr(runner.model, "is_sharded", False):
            runner.logger.info("channels last: not applied to weights that are sharded over ranks")
        elif not _is_channels_last(runner.model):
            raise ConfigError(
                "ChannelsLastHook comes too late: the model is already wrapped for several "
                "processes. Put it in the config: custom_hooks="
                '[dict(type="negvision.ChannelsLastHook")]'
            )


def lay_out_as_asked(model: BaseModel, cfg: Config) -> None:
    """Apply the ChannelsLastHook of a config, if any, before the model is wrapped.

    DistributedDataParallel records the memory format of each weight. If that changes later, the
    averaged gradients are silently wrong.
    """
    for hook in cfg.get("custom_hooks") or []:
        kind = hook.get("type") if isinstance(hook, dict) else type(hook)
        name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
        if name.rpartition(".")[2] == ChannelsLastHook.__name__ and not crashing_layers(model):
            model.to(memory_format=torch.channels_last)


def crashing_layers(model: nn.Module) -> list[str]:
    """Names of convolutions on a CPU that can crash the backward pass with the channels last.

    For 1 x 1 kernels with a stride and fewer than 16 input channels, oneDNN of torch 2.11 writes
    past the end of a buffer if the feature map is large. Other layouts and more channels are safe.
    """
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d)
        and layer.weight.device.type == "cpu"
        and layer.kernel_size == (1, 1)
        and max(layer.stride) > 1
        and layer.in_channels < 16
    ]


def _is_channels_last(model: nn.Module) -> bool:
    weights = [weight for weight in model.parameters() if weight.dim() == 4]
    return all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def keep_freed_memory() -> None:
    """Let the C library keep the memory that tensors have freed, for the next ones.

    glibc returns large blocks to the system at once and asks for them again an instant later, in
    every layer; the system then clears each page anew, which takes much of the time of a small
    detector's training. Without glibc or with CUDA nothing is changed.
    """
    if torch.cuda.is_available() or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
