"""The order in which a model's weights, and so its feature maps, lie in memory."""

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from negvision.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Lay convolutions out with the channels last, where CPU and Tensor Core kernels want them.

    Values change by rounding alone; checkpoints are the same. Feature maps follow the weights, so
    the images need not be converted.

    Example:
        >>> custom_hooks = [dict(type="negvision.ChannelsLastHook")]
    """

    def before_run(self, runner) -> None:
        if getattr(runner.model, "is_sharded", False):
            runner.logger.info("channels last: not for weights that are sharded over ranks")
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.to(memory_format=torch.channels_last)
