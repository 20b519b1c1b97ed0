"""The small residual networks of CIFAR."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from negvision.registry import MODELS


class CIFARBlock(nn.Module):
    """conv 3x3 (strided) - BN - ReLU - conv 3x3 - BN, added to the input, then ReLU.

    If the shape changes, the shortcut takes every second pixel and fills new channels with zeros,
    without parameters ("option A").
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.new_channels = stride, channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride), rounded up."""
        shortcut = x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels))
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + shortcut, inplace=True)


@MODELS.register_module()
class ResNetCIFAR(BaseModule):
    """ResNet-20 ... 110: a 3x3 convolution and three stages with (depth - 2) / 6 blocks each.

    32 x 32 images become a (N, 64, 8, 8) feature map; the side is divided by 4 and rounded up.
    ResNet-20 has 0.27 million parameters, including the 650 of its classifier.

    Args:
        depth: 20, 32, 44, 56 or 110.
        in_channels: Channels of the images.
        widths: Channels of the three stages, not decreasing; the first convolution has as many
            as the first stage.
        init_cfg: As in ``mmengine.model.BaseModule``, for pretrained weights.

    Raises:
        ValueError: ``depth`` is not in the list, or ``widths`` are not three ascending counts.

    Source: He et al., Deep Residual Learning for Image Recognition (CVPR 2016), section 4.2.

    Example:
        >>> import torch
        >>> backbone = ResNetCIFAR(depth=20).eval()
        >>> [tuple(level.shape) for level in backbone(torch.zeros(1, 3, 32, 32))]
        [(1, 64, 8, 8)]
    """

    def __init__(
        self,
        depth: int = 20,
        in_channels: int = 3,
        widths: Sequence[int] = (16, 32, 64),
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if depth not in (20, 32, 44, 56, 110):
            raise ValueError(f"depth is {depth!r}; it must be one of 20, 32, 44, 56, 110")
        if len(widths) != 3 or widths[0] < 1 or sorted(widths) != list(widths):
            raise ValueError(f"widths is {widths!r}; it must be three ascending channel counts")
        self.out_channels = widths[-1]
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        channels = widths[0]
        for number, width in enumerate(widths, 1):
            blocks = [CIFARBlock(channels, width, 1 if number == 1 else 2)]
            blocks += [CIFARBlock(width, width, 1) for _ in range((depth - 2) // 6 - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            channels = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """(N, in_channels, H, W) -> a tuple of one map (N, widths[-1], H / 4, W / 4)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return (self.layer3(self.layer2(self.layer1(x))),)
