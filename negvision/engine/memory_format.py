"""The order in which a model's weights, and so its feature maps, lie in memory."""

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from negvision.errors import ConfigError
from negvision.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Lay convolutions out with the channels last, where CPU and Tensor Core kernels want them.

    Values change by rounding alone; checkpoints are the same. Feature maps follow the weights, so
    the images need not be converted.

    Raises:
        ConfigError: When the run begins: the model is wrapped for several processes already, and
            the hook does not stand in the config, where the runner sees it before it wraps.

    Example:
        >>> custom_hooks = [dict(type="negvision.ChannelsLastHook")]
    """

    def before_run(self, runner) -> None:
        if getattr(runner.model, "is_sharded", False):
            runner.logger.info("channels last: not for weights that are sharded over ranks")
            return
        if not is_model_wrapper(runner.model):
            runner.model.to(memory_format=torch.channels_last)
        elif not _is_channels_last(runner.model.module):
            raise ConfigError(
                "ChannelsLastHook comes too late: the model is wrapped for several processes. "
                "Name it in the config: custom_hooks = [dict(type='negvision.ChannelsLastHook')]"
            )


def lay_out_as_asked(model: nn.Module, cfg: Config) -> None:
    """Do what a ChannelsLastHook among the config's hooks is to do, before a model is wrapped.

    DistributedDataParallel takes down how each weight lies in memory. Where that changes later, it
    averages the gradients of one layout and hands them back in another: wrong, without a word.
    """
    for hook in cfg.get("custom_hooks") or []:
        kind = hook.get("type") if isinstance(hook, dict) else type(hook)
        name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
        if name.rpartition(".")[2] == ChannelsLastHook.__name__:
            model.to(memory_format=torch.channels_last)


def _is_channels_last(model: nn.Module) -> bool:
    weights = [weight for weight in model.parameters() if weight.dim() == 4]
    return all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
