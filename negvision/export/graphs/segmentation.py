"""Segmentors as one graph: labels and OOD scores of pixels."""

import contextlib
from typing import Any

import torch
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn
from torch.nn import functional as F

from negvision.engine.calibration import class_scores
from negvision.export.graphs.operators import fit_to
from negvision.ood import ood_score
from negvision.segmentation.segmentors import AbeTEncoderDecoder, OODEncoderDecoder


class Segmentor(nn.Module):
    """``image (B, 3, H, W), size (2,), out_size (2,) -> labels (B, h, w)[, ood_scores][, scores]``.

    As in mmseg, logits are enlarged to the input, cropped to ``size``, which excludes padding, and
    resized to ``out_size``, the size of the original image. A ``size`` beyond H and W crops
    nothing, and an ``out_size`` of 0 keeps the size.

    Args:
        model: A segmentor accepted by :func:`why_not_segmentor`, in evaluation mode.
        temperatures: (K,), for the probability of each label; None: it is no output.
    """

    def __init__(self, model: EncoderDecoder, temperatures: Tensor | None = None) -> None:
        super().__init__()
        self.temperatures: Tensor | None
        self.register_buffer("temperatures", temperatures, persistent=False)
        self.model = model
        self.has_ood = isinstance(model, OODEncoderDecoder)
        self.appended = getattr(model.decode_head.conv_seg, "appended", False)

    def forward(self, image: Tensor, size: Tensor, out_size: Tensor) -> tuple[Tensor, ...]:
        """See the class; labels are int32."""
        model, conv_seg = self.model, self.model.decode_head.conv_seg
        appended = conv_seg.temperature_appended if self.appended else contextlib.nullcontext
        with appended():
            logits = model.decode_head(model.extract_feat(image)).float()
        logits = F.interpolate(
            logits, image.shape[-2:], mode="bilinear", align_corners=model.align_corners
        )
        logits = fit_to(logits, size, out_size, model.align_corners)
        temperature = None
        if self.appended:
            logits, temperature = logits[:, :-1], logits[:, -1]
        labels = logits.argmax(1).to(torch.int32)
        outputs = [labels]
        if self.has_ood:
            outputs.append(ood_score(model.score, logits, temperature, dim=1))
        if self.temperatures is not None:
            outputs.append(class_scores(logits, self.temperatures))
        return tuple(outputs)


def why_not_segmentor(model: nn.Module) -> str | None:
    """The part of ``model`` that :class:`Segmentor` does not support, or None."""
    name = type(model).__name__
    if not isinstance(model, EncoderDecoder) or isinstance(model.decode_head, nn.ModuleList):
        return f"{name} is not a segmentor with one decode head"
    for step in ("encode_decode", "postprocess_result", "inference"):
        kinds = (EncoderDecoder, OODEncoderDecoder, AbeTEncoderDecoder)
        if getattr(type(model), step) not in [getattr(kind, step) for kind in kinds]:
            return f"{name} has a {step} of its own"
    head = type(model.decode_head)
    if head.predict_by_feat is not BaseDecodeHead.predict_by_feat:
        return f"the decode head {head.__name__} has a predict_by_feat of its own"
    if model.decode_head.out_channels == 1:
        return f"the decode head {head.__name__} has out_channels=1, a sigmoid"
    if model.test_cfg.get("mode", "whole") != "whole":
        return (
            "test_cfg.mode='slide', which predicts in windows; to export a model for full images, "
            "add --cfg-options model.test_cfg.mode=whole"
        )
    return None


class AdaptiveMean(nn.Module):
    """``nn.AdaptiveAvgPool2d`` for inputs whose size is not known at export.

    Each axis is multiplied by a matrix that is 1 / n for the n pixels of a bin.

    Args:
        bins: Height and width of the result.
    """

    def __init__(self, bins: tuple[int, int]) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, values: Tensor) -> Tensor:
        """(B, C, *bins) of (B, C, H, W)."""
        down, across = (
            self._weights(count, size, values)
            for count, size in zip(self.bins, values.shape[-2:], strict=True)
        )
        return down @ values @ across.transpose(0, 1)

    @staticmethod
    def _weights(count: int, size: int, like: Tensor) -> Tensor:
        bins = torch.arange(count, device=like.device)[:, None]
        pixels = torch.arange(size, device=like.device)
        # Rounds up without negative numbers, which ONNX rounds differently.
        first, last = bins * size // count, ((bins + 1) * size + count - 1) // count
        inside = ((pixels >= first) & (pixels < last)).to(like.dtype)
        return inside / (last - first)


def replace_adaptive_pools(model: nn.Module) -> None:
    """Replace pools with more than one bin by :class:`AdaptiveMean`, in place."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                size: Any = child.output_size
                bins = (size, size) if isinstance(size, int) else tuple(size)
                if bins != (1, 1) and None not in bins:
                    setattr(module, name, AdaptiveMean(bins))
