"""The residual network of the ArcFace line of work."""

from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from negvision.engine.recompute import recomputed
from negvision.face.backbones.frozen import StagedBackbone
from negvision.registry import MODELS

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
    200: (6, 26, 60, 6),
}


class IResNetBlock(nn.Module):
    """BN - conv 3x3 - BN - PReLU - conv 3x3 (strided) - BN, added to the input.

    If the shape changes, the shortcut is a 1x1 convolution with BN; with ``subsample`` only if the
    channels change, and else every ``stride``-th pixel.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, norm_cfg: dict, subsample: bool = False
    ) -> None:
        super().__init__()
        self.bn1 = build_norm_layer(norm_cfg, in_channels)[1]
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn2 = build_norm_layer(norm_cfg, channels)[1]
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn3 = build_norm_layer(norm_cfg, channels)[1]
        self.downsample = None
        self.step = stride
        if (stride != 1 and not subsample) or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False),
                build_norm_layer(norm_cfg, channels)[1],
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride), rounded up."""
        step = self.step
        shortcut = x[..., ::step, ::step] if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(x)) + shortcut


@MODELS.register_module()
class IResNet(StagedBackbone):
    """IResNet-18 ... 200: a stem of stride 1 and four stages that each halve height and width.

    112 x 112 images become a (N, 512, 7, 7) feature map; in general the side is that of the image
    divided by 16 and rounded up. Parameters have InsightFace's names, so its published PyTorch
    weights load as they are, the backbone here and ``fc`` and ``features`` in
    :class:`negvision.face.backbones.neck.FaceEmbeddingNeck`: give both the same
    ``init_cfg=dict(type="Pretrained", checkpoint=...)``.

    Convolutions are initialized from N(0, 0.1), as in ArcFace's code, BN with weight 1 and bias 0,
    PReLU with slope 0.25.

    Args:
        depth: 18, 34, 50, 100 or 200.
        in_channels: Channels of the images.
        widths: Channels of the four stages; the stem has as many as the first.
        norm_cfg: Normalization layers, ``dict(type="BN")`` or ``dict(type="SyncBN")``.
        with_cp: Recompute the activations inside blocks in the backward pass: less memory for
            about a third more time, with the same result.
        shortcut: Of the first block of a stage: "conv", a 1x1 convolution, as in InsightFace; or
            "subsample", without weights where the channels stay the same, as in AdaFace.
        frozen_stages: -1: everything is trained; 0: the stem stays as it is; n: so do the first n
            stages, with the fourth also the last normalization. Frozen layers compute no gradients.
        init_cfg: Of ``mmengine.model.BaseModule``, for pretrained weights.

    Source: Deng et al., ArcFace (CVPR 2019), section 3.1; the unit is that of Han et al., Deep
    Pyramidal Residual Networks (CVPR 2017), figure 6d.

    Example:
        >>> import torch
        >>> backbone = IResNet(depth=18, widths=(8, 16, 32, 64)).eval()
        >>> backbone(torch.zeros(1, 3, 112, 112)).shape
        torch.Size([1, 64, 7, 7])
    """

    stages = 4

    def __init__(
        self,
        depth: int = 50,
        in_channels: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512),
        norm_cfg: dict | None = None,
        with_cp: bool = False,
        shortcut: str = "conv",
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if depth not in BLOCKS:
            raise ValueError(f"depth is {depth!r}; it must be one of {', '.join(map(str, BLOCKS))}")
        if len(widths) != 4 or min(widths) < 1:
            raise ValueError(f"widths is {widths!r}; it must be four positive channel counts")
        if shortcut not in ("conv", "subsample"):
            raise ValueError(f"shortcut is {shortcut!r}; it must be conv or subsample")
        norm_cfg = norm_cfg or {"type": "BN"}
        self.out_channels = widths[-1]
        self.with_cp = with_cp
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = build_norm_layer(norm_cfg, widths[0])[1]
        self.prelu = nn.PReLU(widths[0])
        channels = widths[0]
        for number, (width, count) in enumerate(zip(widths, BLOCKS[depth], strict=True), 1):
            blocks = [IResNetBlock(channels, width, 2, norm_cfg, shortcut == "subsample")]
            blocks += [IResNetBlock(width, width, 1, norm_cfg) for _ in range(count - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            channels = width
        self.bn2 = build_norm_layer(norm_cfg, channels)[1]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.1)
        *stages, last = ([self.get_submodule(f"layer{number}")] for number in range(1, 5))
        self._freeze(frozen_stages, [self.conv1, self.bn1, self.prelu], *stages, [*last, self.bn2])

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, widths[-1], H / 16, W / 16), rounded up."""
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                recompute = self.with_cp and x.requires_grad
                x = recomputed(block, x) if recompute else block(x)
        return self.bn2(x)
