"""Segmentors whose predictions say, for every pixel, how far out of distribution it is."""

from __future__ import annotations

from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample
from torch import Tensor

from negvision.errors import ConfigError
from negvision.ood import ood_score
from negvision.ood.scores import check_score_name
from negvision.registry import MODELS
from negvision.segmentation.conv_seg import check_conv_seg, replace_conv_seg


@MODELS.register_module()
class OODEncoderDecoder(EncoderDecoder):
    """mmseg's ``EncoderDecoder`` with an OOD map beside each prediction; the network is the same.

    Give this as the ``type`` of the model in the place of ``EncoderDecoder``; checkpoints fit
    both. Decode heads that end in ``conv_seg`` are served, which is most of mmseg's.

    Each predicted sample has, beside mmseg's ``seg_logits`` and ``pred_sem_seg``,

    - ``ood_map``, PixelData of ``data`` (1, H, W), float32, at ``ori_shape``: the score of the
      enlarged logits, higher is more OOD; its ``score`` is the score's name;
    - ``ood_mask``, PixelData of (1, H, W), bool, ``ood_map > ood_threshold``; only where
      ``ood_threshold`` is not None.

    Args:
        *args, **kwargs: Of ``EncoderDecoder``.
        score: Of :data:`negvision.ood.scores.SCORE_NAMES`.

    Attributes:
        ood_threshold: None, or what :func:`negvision.ood.set_threshold` has set.

    Raises:
        ConfigError: The decode head is a cascade, does not end in ``conv_seg``, or has one output.
        ValueError: No such score.

    Example:
        >>> model = dict(type="negvision.OODEncoderDecoder", score="msp")
    """

    def __init__(self, *args, score: str = "max_logit", **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.score = check_score_name(score)
        self.ood_threshold: float | None = None

    def postprocess_result(
        self, seg_logits: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """mmseg's, with the OOD map added to each sample."""
        samples = super().postprocess_result(seg_logits, data_samples)
        for sample in samples:
            self._add_ood_map(sample)
        return samples

    def _init_decode_head(self, decode_head: dict) -> None:
        if isinstance(decode_head, list):
            raise ConfigError(
                f"decode_head is a cascade of {len(decode_head)} heads, which only "
                f"CascadeEncoderDecoder takes; {type(self).__name__} takes one head"
            )
        super()._init_decode_head(decode_head)
        check_conv_seg(self.decode_head)

    def _add_ood_map(self, sample: SegDataSample, temperature: Tensor | None = None) -> None:
        logits = sample.seg_logits.data
        scores = ood_score(self.score, logits, temperature, dim=0).float().unsqueeze(0)
        sample.ood_map = PixelData(metainfo={"score": self.score}, data=scores)
        if self.ood_threshold is not None:
            sample.ood_mask = PixelData(data=scores > self.ood_threshold)


@MODELS.register_module()
class AbeTEncoderDecoder(OODEncoderDecoder):
    """AbeT for any segmentor of mmseg whose decode head ends in ``conv_seg``.

    Give this as the ``type`` of the model in the place of ``EncoderDecoder``: nothing else of the
    config changes. It puts :class:`negvision.ood.AbeTLogits` in the place of
    ``decode_head.conv_seg``, on the feature that the head classifies; the head's own
    cross-entropy then trains ``z = g / T``, with T a temperature of each pixel. Auxiliary heads
    stay as they are. Logits and T are enlarged (and averaged over windows) alike, and the score is
    that of the enlarged logits. Classifier, T and score are computed in float32 under autocast.

    Each predicted sample has ``temperature``, PixelData of (1, H, W), float32, in (0, 1], beside
    what :class:`OODEncoderDecoder` adds; without a learned temperature it is left out.

    Checkpoints hold ``decode_head.conv_seg.classifier.weight`` (K, D),
    ``decode_head.conv_seg.temperature.linear.weight`` (1, D, 1, 1) and
    ``decode_head.conv_seg.temperature.norm.*``, and all else under mmseg's names: weights of
    the plain model can be loaded, and the classifier is then learned anew.

    Source: LeVine et al., arXiv 2401.12129, section 3 (method) and 5 (segmentation).

    Args:
        *args, **kwargs: Of ``EncoderDecoder``.
        score: Of :data:`negvision.ood.scores.SCORE_NAMES`; ``"energy"`` has T in front.
        abet: ``dict(logits="cosine" | "inner", temperature=bool, shaping=dict | None)``, the
            options of ``AbeTLogits``.

    Raises:
        ConfigError: See :class:`OODEncoderDecoder`.
        ValueError: No such score or option.

    Example:
        >>> model = dict(type="negvision.AbeTEncoderDecoder", abet=dict(logits="cosine"))
    """

    def __init__(self, *args, score: str = "abet", abet: dict | None = None, **kwargs) -> None:
        super().__init__(*args, score=score, **kwargs)
        conv_seg = replace_conv_seg(self.decode_head, **(abet or {}))
        self._has_temperature = conv_seg.temperature is not None
        if self._has_temperature:
            # What windows are added up in.
            self.out_channels = self.decode_head.out_channels + 1

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Logits at the size of the input, (N, K + 1, H, W): T is the last channel."""
        with self.decode_head.conv_seg.temperature_appended():
            return super().encode_decode(inputs, batch_img_metas)

    def postprocess_result(
        self, seg_logits: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """mmseg's of the logits, with the OOD map and the temperature added to each sample."""
        if not self._has_temperature:
            return super().postprocess_result(seg_logits, data_samples)
        # mmseg's own, which knows no OOD map.
        postprocess = super(OODEncoderDecoder, self).postprocess_result
        carriers = None
        if data_samples is not None:
            carriers = [SegDataSample(metainfo=sample.metainfo) for sample in data_samples]
        # T twice, since mmseg takes one channel for a logit and squeezes it through a sigmoid.
        carriers = postprocess(seg_logits[:, -1:].expand(-1, 2, -1, -1), carriers)
        samples = postprocess(seg_logits[:, :-1], data_samples)
        for sample, carrier in zip(samples, carriers, strict=True):
            own = carrier.seg_logits.data[0]
            sample.temperature = PixelData(data=own.unsqueeze(0))
            self._add_ood_map(sample, own)
        return samples
