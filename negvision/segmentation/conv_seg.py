"""AbeT in the place of a decode head's last layer, ``conv_seg``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from negvision.errors import ConfigError
from negvision.ood import AbeTLogits


class AbeTConvSeg(AbeTLogits):
    """:class:`negvision.ood.AbeTLogits` on maps that returns one tensor, as ``conv_seg`` does.

    Args:
        in_features: Channels of the feature, D.
        num_classes: K.
        **kwargs: ``logits``, ``temperature`` and ``shaping`` of ``AbeTLogits``.

    Example:
        >>> conv_seg = AbeTConvSeg(16, 5)
        >>> conv_seg(torch.randn(2, 16, 4, 4)).shape
        torch.Size([2, 5, 4, 4])
        >>> with conv_seg.temperature_appended():
        ...     conv_seg(torch.randn(2, 16, 4, 4)).shape
        torch.Size([2, 6, 4, 4])
    """

    def __init__(self, in_features: int, num_classes: int, **kwargs) -> None:
        super().__init__(in_features, num_classes, conv=True, **kwargs)
        self.appends_temperature = False

    def forward(self, features: Tensor) -> Tensor:
        """``g / T``, (N, K, H, W) float32, of features (N, D, H, W).

        Inside of :meth:`temperature_appended` (N, K + 1, H, W), T being the last channel, unless
        there is no learned temperature.
        """
        logits, temperature = super().forward(features)
        if temperature is None or not self.appends_temperature:
            return logits
        return torch.cat([logits, temperature.unsqueeze(1)], dim=1)

    @contextlib.contextmanager
    def temperature_appended(self) -> Iterator[None]:
        """Inside, T follows the logits as one more channel.

        So it goes the way of the logits through whatever the decode head and the segmentor do to
        them: enlarging, windows, cutting the padding off, flips.
        """
        self.appends_temperature = True
        try:
            yield
        finally:
            self.appends_temperature = False


def check_conv_seg(head: nn.Module) -> nn.Conv2d:
    """``head.conv_seg``, where it is the layer that turns a feature into logits of the classes.

    Raises:
        ConfigError: The head has no such layer, or one output for two classes.
    """
    name = type(head).__name__
    conv_seg = getattr(head, "conv_seg", None)
    if not isinstance(conv_seg, nn.Conv2d) or conv_seg.kernel_size != (1, 1):
        found = "none" if conv_seg is None else type(conv_seg).__name__
        raise ConfigError(
            f"decode_head {name} does not end in a 1x1 convolution conv_seg (found: {found}), so "
            "its pixels have no logits to score. Use a head that does, such as FCNHead, PSPHead, "
            "DepthwiseSeparableASPPHead or UPerHead"
        )
    if head.out_channels == 1:
        raise ConfigError(
            f"decode_head {name} has out_channels=1: a sigmoid of one logit, and the scores of the "
            "unknown are those of a softmax. Leave out_channels out, so that it is num_classes"
        )
    return conv_seg


def replace_conv_seg(head: nn.Module, **options) -> AbeTConvSeg:
    """Put AbeT in the place of ``head.conv_seg``, trained from its own initial weights.

    mmseg's heads draw the weights of ``conv_seg`` anew from a normal distribution of 0.01, by an
    ``override`` of ``init_cfg`` that reaches every layer below that name. It would set the scale
    of the temperature's normalisation to 0.01 too, and T to 0.5; so it is taken out.

    Args:
        head: A decode head of mmseg.
        **options: Of :class:`AbeTConvSeg`.

    Raises:
        ConfigError: See :func:`check_conv_seg`.
        ValueError: An unknown option.
    """
    conv_seg = check_conv_seg(head)
    head.conv_seg = AbeTConvSeg(conv_seg.in_channels, conv_seg.out_channels, **options)
    head.init_cfg = _without_override(head.init_cfg, "conv_seg")
    return head.conv_seg


def _without_override(init_cfg, name: str) -> list[dict]:
    """``init_cfg`` (a dict, a list of them or None) without what overrides ``name``."""
    kept = []
    for entry in [init_cfg] if isinstance(init_cfg, dict) else init_cfg or []:
        entry = dict(entry)
        override = entry.pop("override", None)
        if override is None:
            kept.append(entry)
            continue
        others = [override] if isinstance(override, dict) else override
        others = [other for other in others if other["name"] != name]
        if others:
            kept.append({**entry, "override": others})
        elif "layer" in entry:
            kept.append(entry)
    return kept
