"""The neck that turns a feature map into the embedding of a face."""

import math
from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from negvision.errors import ConfigError
from negvision.registry import MODELS

KINDS = ("fc", "gdc", "gap")


@MODELS.register_module()
class FaceEmbeddingNeck(BaseModule):
    """Feature map to embedding, in one of three ways.

    * ``"fc"``: dropout and a linear layer on all positions, as in IResNet; the size of the images
      is fixed.
    * ``"gdc"``: a depthwise convolution as large as the map, dropout and a linear layer, as in
      MobileFaceNet; the size of the images is fixed.
    * ``"gap"``: the mean over positions, dropout and a linear layer, for any backbone and images of
      any size.

    Each ends in BN without a scale (its weight stays 1), so that all dimensions of the embedding
    have the same variance over the training images. From the linear layer on, everything runs in
    float32 under autocast, which the cosines of the embeddings need. Parameters ``fc`` and
    ``features`` have InsightFace's names and load its published weights.

    The linear layer has PyTorch's initialization; the depthwise convolution starts as the mean over
    positions.

    Args:
        in_channels: Channels of the feature map.
        spatial_size: Height and width of the feature map, or one number for both: for IResNet and
            MobileFaceNet, the side of the images divided by 16 and rounded up. Not used by
            ``"gap"``.
        embedding_size: Dimensions of the embedding.
        dropout: Share of the inputs of the linear layer that are zeroed in training, 0 <= p < 1.
        kind: ``"fc"``, ``"gdc"`` or ``"gap"``.
        init_cfg: Of ``mmengine.model.BaseModule``, for pretrained weights.

    Raises:
        ConfigError: At the first batch, if the feature map has another size or other channels.

    Source: Deng et al., ArcFace (CVPR 2019), section 3.1, setting E; Chen et al., MobileFaceNets
    (CCBR 2018), section 3.

    Example:
        >>> import torch
        >>> neck = FaceEmbeddingNeck(in_channels=8, spatial_size=3, embedding_size=16)
        >>> neck(torch.randn(4, 8, 3, 3)).shape
        torch.Size([4, 16])
    """

    def __init__(
        self,
        in_channels: int,
        spatial_size: int | tuple[int, int] = 7,
        embedding_size: int = 512,
        dropout: float = 0.0,
        kind: str = "fc",
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must be in [0, 1)")
        size = (spatial_size, spatial_size) if isinstance(spatial_size, int) else spatial_size
        if min(in_channels, embedding_size, *size) < 1:
            raise ValueError(
                "in_channels, spatial_size and embedding_size must be 1 or more, got "
                f"{in_channels}, {size} and {embedding_size}"
            )
        self.kind = kind
        self.in_channels = in_channels
        self.spatial_size = size
        self.embedding_size = embedding_size
        if kind == "gdc":
            depthwise = nn.Conv2d(in_channels, in_channels, size, groups=in_channels, bias=False)
            nn.init.constant_(depthwise.weight, 1 / math.prod(size))
            self.gdc = nn.Sequential(depthwise, nn.BatchNorm2d(in_channels))
        self.dropout = nn.Dropout(dropout)
        inputs = in_channels * math.prod(size) if kind == "fc" else in_channels
        self.fc = nn.Linear(inputs, embedding_size)
        self.features = nn.BatchNorm1d(embedding_size)
        self.features.weight.requires_grad_(False)

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        """Maps (N, in_channels, H, W), or the last of several -> (N, embedding_size).

        Embeddings are not normalized, and float32 under autocast.
        """
        if not isinstance(x, Tensor):
            x = x[-1]
        channels, *size = x.shape[1:]
        if channels != self.in_channels:
            raise ConfigError(
                f"The feature map has {channels} channels, but in_channels of the neck is "
                f"{self.in_channels}; set in_channels={channels}."
            )
        if self.kind != "gap" and tuple(size) != self.spatial_size:
            raise ConfigError(
                f"The feature map is {size[0]} x {size[1]}, but the neck was built for "
                f"{' x '.join(map(str, self.spatial_size))}. Set "
                f"spatial_size={size[0] if size[0] == size[1] else tuple(size)} for images of this "
                "size, resize the images, or use kind='gap', which fits any size."
            )
        if self.kind == "gdc":
            x = self.gdc(x)
        elif self.kind == "gap":
            x = x.mean((2, 3))
        x = self.dropout(x.flatten(1))
        with torch.autocast(x.device.type, enabled=False):
            return self.features(self.fc(x.to(self.fc.weight.dtype)))
