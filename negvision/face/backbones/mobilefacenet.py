"""A backbone of one million parameters for phones."""

from collections.abc import Callable

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from negvision.face.backbones.frozen import StagedBackbone
from negvision.registry import MODELS

# Expansion of the bottlenecks, their output channels, how many, and the stride of the first.
STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


Activation = Callable[[int], nn.Module]


def _relu(channels: int) -> nn.Module:
    return nn.ReLU(inplace=True)


def _relu6(channels: int) -> nn.Module:
    return nn.ReLU6(inplace=True)


class ConvNorm(nn.Sequential):
    """Convolution without bias, normalization, and an activation unless it is None."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int,
        norm_cfg: dict,
        activation: Activation | None = nn.PReLU,
        **options,
    ) -> None:
        layers = [
            nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=False, **options),
            build_norm_layer(norm_cfg, channels)[1],
        ]
        if activation is not None:
            layers.append(activation(channels))
        super().__init__(*layers)


class Bottleneck(nn.Module):
    """Expand by 1x1, filter each channel by 3x3, project by a linear 1x1."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        expansion: int,
        norm_cfg: dict,
        activation: Activation = nn.PReLU,
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = ConvNorm(in_channels, hidden, 1, norm_cfg, activation)
        self.depthwise = ConvNorm(
            hidden, hidden, 3, norm_cfg, activation, stride=stride, groups=hidden
        )
        self.project = ConvNorm(hidden, channels, 1, norm_cfg, None)
        self.residual = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride), rounded up."""
        out = self.project(self.depthwise(self.expand(x)))
        return x + out if self.residual else out


@MODELS.register_module()
class MobileFaceNet(StagedBackbone):
    """MobileFaceNet up to its last 1x1 convolution.

    112 x 112 images become a (N, 512, 7, 7) feature map; in general the side is that of the image
    divided by 16 and rounded up. The global depthwise convolution and the embedding of the paper
    are ``FaceEmbeddingNeck(kind="gdc", embedding_size=128)``; with it the model has one million
    parameters.

    Convolutions are initialized from Kaiming's normal distribution (fan out), BN with weight 1 and
    bias 0, PReLU with slope 0.25.

    Args:
        in_channels: Channels of the images.
        widen_factor: Factor of all channel counts, rounded to multiples of 8.
        norm_cfg: Normalization layers, ``dict(type="BN")`` or ``dict(type="SyncBN")``.
        variant: "paper"; or "separable" with one more 1x1 convolution in the stem, ReLU there and
            ReLU6 elsewhere, as in the weights that foamliu/MobileFaceNet publishes.
        frozen_stages: -1: everything is trained; 0: the stem stays as it is; n: so do the first n
            of the five rows of bottlenecks, with the fifth also the last convolution. Frozen layers
            compute no gradients.
        init_cfg: Of ``mmengine.model.BaseModule``, for pretrained weights.

    Source: Chen et al., MobileFaceNets (CCBR 2018, arXiv 1804.07573), table 1.

    Example:
        >>> import torch
        >>> MobileFaceNet(widen_factor=0.25).eval()(torch.zeros(1, 3, 112, 112)).shape
        torch.Size([1, 128, 7, 7])
    """

    stages = len(STAGES)

    def __init__(
        self,
        in_channels: int = 3,
        widen_factor: float = 1.0,
        norm_cfg: dict | None = None,
        variant: str = "paper",
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if variant not in ("paper", "separable"):
            raise ValueError(f"variant is {variant!r}; it must be paper or separable")
        if widen_factor <= 0:
            raise ValueError(f"widen_factor is {widen_factor}; it must be positive")
        norm_cfg = norm_cfg or {"type": "BN"}

        def width(channels: int) -> int:
            return max(8, 8 * round(channels * widen_factor / 8))

        separable = variant == "separable"
        activation, in_stem = (_relu6, _relu) if separable else (nn.PReLU, nn.PReLU)
        channels = width(64)
        stem = [
            ConvNorm(in_channels, channels, 3, norm_cfg, activation, stride=2),
            ConvNorm(channels, channels, 3, norm_cfg, in_stem, groups=channels),
        ]
        if separable:
            stem.append(ConvNorm(channels, channels, 1, norm_cfg, in_stem))
        self.stem = nn.Sequential(*stem)
        stages: list[list[nn.Module]] = []
        for expansion, wanted, count, first_stride in STAGES:
            blocks: list[nn.Module] = []
            for number in range(count):
                stride = first_stride if number == 0 else 1
                out = width(wanted)
                blocks.append(Bottleneck(channels, out, stride, expansion, norm_cfg, activation))
                channels = out
            stages.append(blocks)
        self.blocks = nn.Sequential(*(block for blocks in stages for block in blocks))
        self.out_channels = width(512)
        self.last = ConvNorm(channels, self.out_channels, 1, norm_cfg, activation)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        stages[-1].append(self.last)
        self._freeze(frozen_stages, [self.stem], *stages)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / 16, W / 16), rounded up."""
        return self.last(self.blocks(self.stem(x)))
