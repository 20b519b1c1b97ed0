"""Segmentors that predict an OOD score for every pixel, plain and with AbeT."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from negvision.errors import ConfigError
from negvision.ood import FEATURE_SCORE_NAMES, AbeTLogits, FeatureScore, ood_score
from negvision.ood.feature_scores import build_feature_score, score_name
from negvision.registry import MODELS


@MODELS.register_module()
class OODEncoderDecoder(EncoderDecoder):
    """mmseg's ``EncoderDecoder`` that also predicts an OOD map; the network is the same.

    Use this as the ``type`` of the model instead of ``EncoderDecoder``; checkpoints fit both. The
    decode head must end in ``conv_seg``, as most of mmseg's do.

    In addition to mmseg's ``seg_logits`` and ``pred_sem_seg``, each predicted sample has

    - ``ood_map``, PixelData with ``data`` (1, H, W), float32, at ``ori_shape``: the score of the
      upsampled logits, higher is more OOD; its ``score`` is the name of the score;
    - ``ood_mask``, PixelData of (1, H, W), bool, ``ood_map > ood_threshold``, if
      ``ood_threshold`` is not None.

    Args:
        *args, **kwargs: Of ``EncoderDecoder``.
        score: One of :data:`negvision.ood.SCORE_NAMES` or ``FEATURE_SCORE_NAMES``, or
            ``dict(type=..., ...)`` with options of :mod:`negvision.ood.feature_scores`.

    Attributes:
        ood_threshold: None, or set by :func:`negvision.ood.set_threshold`.

    Raises:
        ConfigError: The decode head is a cascade, does not end in ``conv_seg``, or has one output.
        ValueError: No such score.

    Example:
        >>> model = dict(type="negvision.OODEncoderDecoder", score="msp")
    """

    def __init__(self, *args, score: str | dict = "max_logit", **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.score = score_name(score)
        self.ood_threshold: float | None = None
        self._use_conv_seg(score)
        if self._appends:
            # mmseg accumulates windows in this many channels.
            self.out_channels = self.decode_head.out_channels + 1

    @property
    def _appends(self) -> bool:
        """Whether ``conv_seg`` has one more output, the temperature or a score of features."""
        return getattr(self.decode_head.conv_seg, "appended", False)

    def _use_conv_seg(self, score: str | dict) -> None:
        if self.score in FEATURE_SCORE_NAMES:
            conv_seg = self.decode_head.conv_seg
            self.decode_head.conv_seg = ScoredConvSeg(
                conv_seg.in_channels, conv_seg.out_channels, score
            )

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Logits at the size of the input, (N, K, H, W), perhaps with one more channel.

        It is the temperature, or a score of features in its place.
        """
        if not self._appends:
            return super().encode_decode(inputs, batch_img_metas)
        with self.decode_head.conv_seg.temperature_appended():
            return super().encode_decode(inputs, batch_img_metas)

    def postprocess_result(
        self, seg_logits: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        if not self._appends:
            samples = super().postprocess_result(seg_logits, data_samples)
            for sample in samples:
                self._add_ood_map(sample)
            return samples
        postprocess = super().postprocess_result
        carriers = None
        if data_samples is not None:
            carriers = [SegDataSample(metainfo=sample.metainfo) for sample in data_samples]
        # Twice, since mmseg applies a sigmoid to a single channel.
        carriers = postprocess(seg_logits[:, -1:].expand(-1, 2, -1, -1), carriers)
        samples = postprocess(seg_logits[:, :-1], data_samples)
        for sample, carrier in zip(samples, carriers, strict=True):
            own = carrier.seg_logits.data[0]
            if self.score not in FEATURE_SCORE_NAMES:
                sample.temperature = PixelData(data=own.unsqueeze(0))
            self._add_ood_map(sample, own)
        return samples

    def _init_decode_head(self, decode_head: dict) -> None:
        if isinstance(decode_head, list):
            raise ConfigError(
                f"decode_head is a cascade of {len(decode_head)} heads, which only "
                f"CascadeEncoderDecoder supports; {type(self).__name__} needs a single head"
            )
        super()._init_decode_head(decode_head)
        _check_conv_seg(self.decode_head)

    def _add_ood_map(self, sample: SegDataSample, temperature: Tensor | None = None) -> None:
        logits = sample.seg_logits.data
        scores = ood_score(self.score, logits, temperature, dim=0).float().unsqueeze(0)
        sample.ood_map = PixelData(metainfo={"score": self.score}, data=scores)
        if self.ood_threshold is not None:
            sample.ood_mask = PixelData(data=scores > self.ood_threshold)


@MODELS.register_module()
class AbeTEncoderDecoder(OODEncoderDecoder):
    """AbeT for any segmentor of mmseg whose decode head ends in ``conv_seg``.

    Use this as the ``type`` of the model instead of ``EncoderDecoder``; nothing else of the config
    changes. :class:`negvision.ood.AbeTLogits` replaces ``decode_head.conv_seg``, so the head's own
    cross-entropy trains ``z = g / T`` with one temperature T per pixel. Auxiliary heads do not
    change. Logits and T are upsampled (and averaged over windows) alike, and the score is that of
    the upsampled logits. Classifier, T and score are computed in float32 under autocast.

    In addition to the fields of :class:`OODEncoderDecoder`, each predicted sample has
    ``temperature``, PixelData of (1, H, W), float32, in (0, 1], unless there is no learned
    temperature.

    Checkpoints hold ``decode_head.conv_seg.classifier.weight`` (K, D),
    ``decode_head.conv_seg.temperature.linear.weight`` (1, D, 1, 1) and
    ``decode_head.conv_seg.temperature.norm.*``, and everything else under mmseg's names: weights
    of the plain model can be loaded, and only the classifier is trained from scratch.

    Source: LeVine et al., arXiv 2401.12129, section 3 (method) and 5 (segmentation).

    Args:
        *args, **kwargs: Of ``EncoderDecoder``.
        score: As in :class:`OODEncoderDecoder`; ``"energy"`` has the leading T.
        abet: ``dict(logits=..., temperature=..., initial_temperature=..., shaping=...)``, the
            options of ``AbeTLogits``.

    Raises:
        ConfigError: See :class:`OODEncoderDecoder`.
        ValueError: No such score or option.

    Example:
        >>> model = dict(type="negvision.AbeTEncoderDecoder", abet=dict(logits="cosine"))
    """

    def __init__(
        self, *args, score: str | dict = "abet", abet: dict | None = None, **kwargs
    ) -> None:
        self._abet = abet or {}
        super().__init__(*args, score=score, **kwargs)

    def _use_conv_seg(self, score: str | dict) -> None:
        _replace_conv_seg(self.decode_head, score=score, **self._abet)


class _AppendsColumn:
    """What a ``conv_seg`` with one more output, the temperature or a score, has in common."""

    appends_temperature = False
    appended: bool  # whether there is one more output

    def _output(self, logits: Tensor, temperature: Tensor | None) -> Tensor:
        if temperature is None or not self.appends_temperature:
            return logits
        return torch.cat([logits, temperature.unsqueeze(1)], dim=1)

    @contextlib.contextmanager
    def temperature_appended(self) -> Iterator[None]:
        """Append T to the logits as one more channel.

        T then gets the same processing as the logits in the decode head and the segmentor:
        upsampling, windows, removal of the padding, flips.
        """
        self.appends_temperature = True
        try:
            yield
        finally:
            self.appends_temperature = False


class ScoredConvSeg(_AppendsColumn, nn.Conv2d):
    """A plain ``conv_seg`` that can append a score of features to its logits."""

    appended = True

    def __init__(self, in_channels: int, num_classes: int, score: str | dict) -> None:
        super().__init__(in_channels, num_classes, 1)
        feature_score = build_feature_score(score, in_channels, num_classes)
        assert feature_score is not None
        feature_score.attach(self.weight, self.bias, cosine=False)
        self.feature_score: FeatureScore | None = feature_score

    def forward(self, features: Tensor) -> Tensor:  # ty: ignore[lost-keyword-for-regular-parameter]
        """Logits (N, K, H, W); inside :meth:`temperature_appended` with the score."""
        logits = super().forward(features)
        if self.training or not self.appends_temperature:
            return logits
        if self.feature_score is None:  # while a score of logits is tried
            return self._output(logits, torch.ones_like(logits[:, 0]))
        return self._output(logits, self.feature_score(features, logits))


class AbeTConvSeg(_AppendsColumn, AbeTLogits):
    """:class:`negvision.ood.AbeTLogits` on maps that returns one tensor, like ``conv_seg``.

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
        self.appended = self.temperature is not None or self.feature_score is not None

    def forward(self, features: Tensor) -> Tensor:
        """``g / T``, (N, K, H, W) float32, of features (N, D, H, W).

        Inside :meth:`temperature_appended` (N, K + 1, H, W) with T as the last channel, unless
        there is no learned temperature; or with a score of features in its place.
        """
        return self._output(*super().forward(features))


def _check_conv_seg(head: Any) -> nn.Conv2d:
    """``head.conv_seg``, the layer that turns a feature into class logits; checked."""
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
            f"decode_head {name} has out_channels=1, a sigmoid of one logit, but OOD scores need a "
            "softmax. Remove out_channels, so that it is num_classes"
        )
    return conv_seg


def _replace_conv_seg(head: BaseDecodeHead, **options) -> AbeTConvSeg:
    """Replace ``head.conv_seg`` by :class:`AbeTConvSeg` with its own initialization.

    mmseg's heads reinitialize ``conv_seg`` from a normal distribution of 0.01 by an ``override``
    of ``init_cfg`` that reaches every layer below that name. It would also set the scale of the
    temperature's normalization to 0.01, and T to 0.5, so it is removed.
    """
    conv_seg = _check_conv_seg(head)
    head.conv_seg = AbeTConvSeg(conv_seg.in_channels, conv_seg.out_channels, **options)
    head.init_cfg = _without_override(head.init_cfg, "conv_seg")
    return head.conv_seg


def _without_override(init_cfg, name: str) -> list[dict]:
    """``init_cfg`` (a dict, a list of dicts or None) without the overrides of ``name``."""
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
