"""Heads whose detections carry an OOD score: plain and AbeT, on RoIs and on ATSS."""

import math

import torch
from mmdet.models.layers import multiclass_nms
from mmdet.models.losses import accuracy
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.models.utils import filter_scores_and_topk
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from negvision.detection.heads.atss_heads import ATSSHead
from negvision.detection.heads.dense import flatten_level
from negvision.ood import FEATURE_SCORE_NAMES, AbeTLogits, AbeTOutput, LinearLogits, ood_score
from negvision.ood.feature_scores import score_name
from negvision.registry import MODELS


@MODELS.register_module()
class OODBBoxHead(Shared2FCBBoxHead):
    """mmdet's ``Shared2FCBBoxHead`` whose detections carry logits and an OOD score.

    Layers, weights, losses and boxes are those of mmdet. Each detection after NMS carries the
    ``logits`` (K + 1,) of its RoI, the background last, and ``ood_score``, computed from the K
    foreground logits only. In a cascade these are the logits that mmdet predicts with: the mean
    over its stages.

    Args:
        score: One of :data:`negvision.ood.SCORE_NAMES` or ``FEATURE_SCORE_NAMES``, or
            ``dict(type=..., ...)`` with options of :mod:`negvision.ood.feature_scores`. Higher is
            more OOD.
        **kwargs: As in :class:`mmdet.models.Shared2FCBBoxHead`.

    Attributes:
        ood_threshold: None, or a calibrated threshold (:func:`negvision.ood.set_threshold`);
            detections then carry ``is_ood``.

    Raises:
        ValueError: No such score.

    Example:
        >>> from mmengine.config import ConfigDict
        >>> head = OODBBoxHead(in_channels=4, fc_out_channels=8, roi_feat_size=2, num_classes=3)
        >>> rois = torch.tensor([[0.0, 2.0, 2.0, 20.0, 20.0], [0.0, 30.0, 8.0, 44.0, 40.0]])
        >>> scores, deltas = head(torch.randn(2, 4, 2, 2))
        >>> config = ConfigDict(
        ...     score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=5)
        >>> found = head.predict_by_feat(
        ...     (rois,), (scores,), (deltas,), [dict(img_shape=(50, 50))], config)[0]
        >>> found.logits.shape, found.ood_score.shape, found.ood_score_name
        (torch.Size([5, 4]), torch.Size([5]), 'msp')
    """

    def __init__(self, score: str | dict = "msp", **kwargs) -> None:
        self.score = score_name(score)
        if self.score in FEATURE_SCORE_NAMES and "cls_predictor_cfg" not in kwargs:
            loss = kwargs.get("loss_cls") or {"type": "CrossEntropyLoss"}
            kwargs |= {
                "cls_predictor_cfg": {"type": LinearRoILogits, "score": score},
                "loss_cls": {"type": TemperatureColumnLoss, "loss": loss},
            }
        super().__init__(**kwargs)
        self.ood_threshold: float | None = None

    def split_output(self, cls_score: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (N, K + 1), and temperatures (N,) or None, of the classifier's output.

        A score of features takes the place of the temperatures.
        """
        if self.custom_cls_channels:
            return cls_score[:, :-1], cls_score[:, -1]
        return cls_score, None

    def _predict_by_feat_single(
        self, roi, cls_score, bbox_pred, img_meta, rescale=False, rcnn_test_cfg=None
    ) -> InstanceData:
        # Without a config mmdet decodes and stops before NMS, which loses track of the RoIs.
        decoded = super()._predict_by_feat_single(
            roi, cls_score, bbox_pred, img_meta, rescale, rcnn_test_cfg=None
        )
        if rcnn_test_cfg is None:
            return decoded
        boxes, labels, kept = multiclass_nms(
            decoded.bboxes,
            decoded.scores,
            rcnn_test_cfg.score_thr,
            rcnn_test_cfg.nms,
            rcnn_test_cfg.max_per_img,
            return_inds=True,
            box_dim=self.bbox_coder.encode_size,
        )
        results = InstanceData(bboxes=boxes[:, :-1], scores=boxes[:, -1], labels=labels)
        # Candidates are numbered RoI by RoI, one for each class.
        rows = kept // self.num_classes
        logits, temperature = self.split_output(cls_score)
        temperature = None if temperature is None else temperature[rows]
        return _add_ood_fields(results, self, logits[rows], temperature)


class _HeadLogits(AbeTLogits):
    """:class:`negvision.ood.AbeTLogits` that keeps its own initialization.

    An ``init_cfg`` of mmdet's heads draws every ``weight`` below a name such as ``fc_cls`` from
    Normal(0, 0.01), including the normalization of the temperature: T would be stuck at 0.5.
    MMEngine calls ``init_weights`` after it and before pretrained weights are loaded.
    """

    def init_weights(self) -> None:
        """Reinitialize the weights as in :class:`negvision.ood.AbeTLogits`."""
        self.classifier.reset_parameters()
        if self.temperature is not None:
            self.temperature.reset_parameters()


class RoILogits(_HeadLogits):
    """Logits ``g / T`` of RoIs, with T as one more column.

    As a column, the temperature takes the paths that mmdet has for a classifier's output: it is
    split by image and averaged over the stages of a cascade.

    Args:
        in_features: D.
        out_features: K + 2: the classes, the background and the temperature.
        **options: Of :class:`negvision.ood.AbeTLogits`.
    """

    def __init__(self, in_features: int, out_features: int, **options) -> None:
        super().__init__(in_features, out_features - 1, foreground=out_features - 2, **options)

    def forward(self, features: Tensor) -> Tensor:
        """(N, K + 2) float32 from features (N, D); the last column is 1 without a temperature."""
        return _joined(super().forward(features))


class LinearRoILogits(LinearLogits):
    """A plain linear layer with a score of features as one more column; see :class:`RoILogits`."""

    def __init__(self, in_features: int, out_features: int, score: str | dict) -> None:
        super().__init__(in_features, out_features - 1, score, foreground=out_features - 2)

    def forward(self, features: Tensor) -> Tensor:  # type: ignore[override]
        """(N, K + 2) from features (N, D); the last column is 1 in training."""
        return _joined(super().forward(features))


def _joined(output: AbeTOutput) -> Tensor:
    logits, temperature = output
    if temperature is None:
        temperature = logits.new_ones(len(logits))
    return torch.cat([logits, temperature[:, None]], 1)


class TemperatureColumnLoss(nn.Module):
    """A softmax loss that ignores the last column of its input, the temperature.

    Implements the interface of mmdet's box and cascade heads for losses with extra columns.

    Args:
        loss: Config of the loss of the other columns.

    Raises:
        ValueError: That loss uses sigmoids, or needs extra columns itself.
    """

    custom_cls_channels = True
    custom_activation = True
    custom_accuracy = True

    def __init__(self, loss: dict) -> None:
        super().__init__()
        self.loss = MMDET_MODELS.build(loss)
        if getattr(self.loss, "use_sigmoid", False) or hasattr(self.loss, "get_cls_channels"):
            raise ValueError(
                f"loss_cls is {dict(loss)!r}; AbeT's box head needs a loss of the softmax over the "
                'classes and the background, such as dict(type="CrossEntropyLoss")'
            )

    def get_cls_channels(self, num_classes: int) -> int:
        """Columns of the classifier: the classes, the background and the temperature."""
        return num_classes + 2

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Probabilities (N, K + 1) of the output (N, K + 2)."""
        return cls_score[:, :-1].softmax(-1)

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> dict:
        """``acc`` in percent, as mmdet logs it."""
        return {"acc": accuracy(cls_score[:, :-1], labels)}

    def forward(self, cls_score: Tensor, *args, **kwargs) -> Tensor:
        """The loss of all but the last column."""
        return self.loss(cls_score[:, :-1], *args, **kwargs)


@MODELS.register_module()
class AbeTBBoxHead(OODBBoxHead):
    """Box head with AbeT's classifier: cosine logits over a learned temperature.

    Replaces mmdet's ``Shared2FCBBoxHead`` in a config of Faster, Mask or Cascade R-CNN by its
    ``type`` alone. Logits and temperature come from the RoI feature; the softmax is over K
    classes and the background, its loss is ``loss_cls``, and nothing supervises T. Detections
    carry ``logits`` (K + 1,), which are ``g / T`` of their RoI, ``temperature`` and ``ood_score``,
    computed from the K foreground logits. In a cascade all three follow from the mean over its
    stages.

    The statistics that normalize T are those of the sampled RoIs, so they depend on the share of
    foreground among them.

    Source: LeVine et al., arXiv 2401.12129, section 3 and the experiments on Faster R-CNN.

    Args:
        logits: "cosine", or "inner" for the ablation with inner products.
        temperature: False for T = 1 everywhere.
        initial_temperature: T where training begins, in (0, 1). The paper's start is 0.5, where
            logits of cosines lie within -2 and 2 and short trainings wait for T to fall.
        shaping: Of the feature at test time; see :class:`negvision.ood.AbeTLogits`.
        score: As in :class:`OODBBoxHead`; "energy" has the leading T that AbeT drops.
        loss_cls: Loss of the softmax.
        **kwargs: As in :class:`OODBBoxHead`.

    Raises:
        ValueError: An unknown option, or a ``loss_cls`` that is not a softmax loss.

    Example:
        >>> head = AbeTBBoxHead(in_channels=4, fc_out_channels=8, roi_feat_size=2, num_classes=3)
        >>> output, deltas = head(torch.randn(5, 4, 2, 2))
        >>> logits, temperature = head.split_output(output)
        >>> logits.shape, temperature.shape
        (torch.Size([5, 4]), torch.Size([5]))
    """

    def __init__(
        self,
        logits: str = "cosine",
        temperature: bool = True,
        shaping: dict | None = None,
        score: str | dict = "abet",
        loss_cls: dict | None = None,
        initial_temperature: float = 0.05,
        **kwargs,
    ) -> None:
        super().__init__(
            score=score,
            cls_predictor_cfg={
                "type": RoILogits,
                "logits": logits,
                "temperature": temperature,
                "initial_temperature": initial_temperature,
                "shaping": shaping,
                "score": score,
            },
            loss_cls={
                "type": TemperatureColumnLoss,
                "loss": loss_cls or {"type": "CrossEntropyLoss"},
            },
            **kwargs,
        )


class DenseLogits(_HeadLogits):
    """Logits ``g / T + b`` of the locations of feature maps, with one learned b for all classes.

    Args:
        in_features: D.
        num_classes: C, without a background.
        prior: Initial probability of the sigmoid where g is 0, in (0, 1).
        **options: Of :class:`negvision.ood.AbeTLogits`.
    """

    def __init__(self, in_features: int, num_classes: int, prior: float = 0.01, **options) -> None:
        super().__init__(in_features, num_classes, conv=True, sigmoid=True, **options)
        self.prior = prior
        self.bias = nn.Parameter(torch.empty(()))
        self._reset_bias()

    def init_weights(self) -> None:
        """Reinitialize the weights and set b to the logit of ``prior``."""
        super().init_weights()
        self._reset_bias()

    def forward(self, features: Tensor) -> AbeTOutput:
        """Logits (B, C, H, W) and temperatures (B, H, W), 1 without any, from (B, D, H, W)."""
        logits, temperature = super().forward(features)
        if temperature is None:
            temperature = torch.ones_like(logits[:, 0])
        return AbeTOutput(logits, temperature)

    def shifted(self, logits: Tensor) -> Tensor:
        """The logits plus b."""
        return logits + self.bias

    def _reset_bias(self) -> None:
        nn.init.constant_(self.bias, -math.log((1 - self.prior) / self.prior))


@MODELS.register_module()
class AbeTATSSHead(ATSSHead):
    """ATSS whose boxes carry an OOD score from a learned temperature.

    **The AbeT paper covers softmax heads only.** Its transfer to a sigmoid head is defined here:
    on the last feature of the classification tower, two 1x1 convolutions give cosines ``g_c`` and
    one temperature T for each location. The logits are ``z_c = g_c / T + b`` with ONE learned
    scalar b for all classes, initialized to ``-log((1 - 0.01) / 0.01)`` so that the focal loss
    starts as usual. The score is ``-logsumexp_c(z_c)``: the background is the implicit class of
    logit 0, and b shifts the scores of all boxes alike, so it does not change their order. The
    statistics that normalize T are those of all locations of all levels together.

    Every score of :data:`negvision.ood.SCORE_NAMES` uses the same z: "msp" and "entropy" come
    from the softmax over the classes, in which b cancels; minus the largest sigmoid, the
    confidence of a dense detector, orders boxes as "max_logit" does; "energy" multiplies by T a
    term that contains b.

    Boxes, centerness, assignment and losses are those of :class:`ATSSHead`. Every box carries
    ``logits`` (C,), ``temperature`` and ``ood_score``.

    Args:
        num_classes: C.
        in_channels: Channels of the feature maps.
        logits: "cosine", or "inner" for inner products.
        temperature: False for T = 1 everywhere.
        initial_temperature: T where training begins; see :class:`negvision.ood.AbeTLogits`.
        shaping: Of the feature at test time; see :class:`negvision.ood.AbeTLogits`.
        score: As in :class:`OODBBoxHead`.
        **kwargs: As in :class:`ATSSHead`.

    Attributes:
        ood_threshold: None, or a calibrated threshold (:func:`negvision.ood.set_threshold`);
            boxes then carry ``is_ood``.

    Raises:
        ValueError: More than one anchor per location, a softmax ``loss_cls``, or an unknown
            option.

    Example:
        >>> head = AbeTATSSHead(
        ...     num_classes=3, in_channels=8, feat_channels=8, norm_cfg=None,
        ...     anchor_generator=dict(type="AnchorGenerator", ratios=[1.0], octave_base_scale=8,
        ...                           scales_per_octave=1, strides=[8]))
        >>> [tuple(out[0].shape) for out in head([torch.zeros(1, 8, 4, 4)])]
        [(1, 3, 4, 4), (1, 4, 4, 4), (1, 1, 4, 4), (1, 1, 4, 4)]
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        logits: str = "cosine",
        temperature: bool = True,
        shaping: dict | None = None,
        score: str | dict = "abet",
        initial_temperature: float = 0.5,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, in_channels, **kwargs)
        if self.num_base_priors != 1:
            raise ValueError(
                f"the anchor generator has {self.num_base_priors} anchors per location; "
                "AbeTATSSHead has one temperature per location and needs one anchor"
            )
        if not self.use_sigmoid_cls:
            raise ValueError(
                "loss_cls.use_sigmoid is False; AbeTATSSHead uses sigmoids without a background "
                "class"
            )
        self.score = score_name(score)
        self.ood_threshold: float | None = None
        # mmdet's classifier passes features on: the temperatures need all levels at once.
        self.atss_cls = nn.Identity()
        self.abet = DenseLogits(
            self.feat_channels,
            num_classes,
            logits=logits,
            temperature=temperature,
            initial_temperature=initial_temperature,
            shaping=shaping,
            score=score,
        )

    def forward(self, x: tuple[Tensor]) -> tuple[list[Tensor], ...]:
        """Logits, box deltas, centerness and temperatures of each level.

        Returns:
            Lists of (B, C, H, W), (B, 4, H, W), (B, 1, H, W) and (B, 1, H, W).
        """
        features, bbox_preds, centernesses = super().forward(x)
        sizes = [tuple(level.shape[-2:]) for level in features]
        counts = [height * width for height, width in sizes]
        joined = torch.cat([level.flatten(2) for level in features], 2)
        logits, temperature = self.abet(joined[..., None])
        cls_scores, temperatures = (
            [
                part.unflatten(2, size)
                for part, size in zip(flat.split(counts, 2), sizes, strict=True)
            ]
            for flat in (logits.squeeze(-1), temperature.transpose(1, 2))
        )
        return cls_scores, bbox_preds, centernesses, temperatures

    def loss_by_feat(self, cls_scores, bbox_preds, centernesses, temperatures, *args, **kwargs):
        """Losses of a batch as in :class:`ATSSHead`; T acts through the logits only."""
        return super().loss_by_feat(cls_scores, bbox_preds, centernesses, *args, **kwargs)

    def predict_by_feat(self, cls_scores, bbox_preds, centernesses, temperatures, *args, **kwargs):
        """Boxes of each image; the other arguments and the order of boxes are mmdet's."""
        # One more channel, which mmdet passes on for each image.
        joined = [torch.cat(pair, 1) for pair in zip(cls_scores, temperatures, strict=True)]
        return super().predict_by_feat(joined, bbox_preds, centernesses, *args, **kwargs)

    def _predict_by_feat_single(
        self,
        cls_score_list,
        bbox_pred_list,
        score_factor_list,
        mlvl_priors,
        img_meta,
        cfg,
        **options,
    ) -> InstanceData:
        cfg = self.test_cfg if cfg is None else cfg
        levels = []
        for output, deltas, factors, priors in zip(
            cls_score_list, bbox_pred_list, score_factor_list, mlvl_priors, strict=True
        ):
            output = flatten_level(output[None], self.num_classes + 1)[0]
            logits, temperature = output[:, :-1], output[:, -1]
            scores, labels, _, kept = filter_scores_and_topk(
                logits.sigmoid(),
                cfg.get("score_thr", 0),
                cfg.get("nms_pre", -1),
                {
                    "priors": priors,
                    "deltas": flatten_level(deltas[None], 4)[0],
                    "score_factors": flatten_level(factors[None], 1)[0, :, 0].sigmoid(),
                    "logits": logits,
                    "temperature": temperature,
                },
            )
            levels.append(InstanceData(scores=scores, labels=labels, **kept))
        results = InstanceData.cat(levels)
        results.bboxes = self.bbox_coder.decode(
            results.pop("priors"), results.pop("deltas"), max_shape=img_meta["img_shape"]
        )
        results = self._bbox_post_process(results, cfg, img_meta=img_meta, **options)
        return _add_ood_fields(results, self, results.logits, results.temperature)


def _add_ood_fields(
    results: InstanceData, head, logits: Tensor, temperature: Tensor | None
) -> InstanceData:
    """Add ``logits``, ``temperature``, ``ood_score`` and, with a threshold, ``is_ood`` in place.

    The metainfo ``ood_score_name`` names the score.

    Args:
        results: N boxes.
        head: With ``score``, ``ood_threshold`` and ``num_classes``.
        logits: (N, K) or (N, K + 1), the K foreground classes first; only these are scored.
        temperature: (N,), or None for a head without one; the score itself if it is one of
            features.
    """
    results.logits = logits
    if temperature is not None and head.score not in FEATURE_SCORE_NAMES:
        results.temperature = temperature
    results.ood_score = ood_score(head.score, logits[:, : head.num_classes], temperature)
    results.set_metainfo({"ood_score_name": head.score})
    if head.ood_threshold is not None:
        results.is_ood = results.ood_score > head.ood_threshold
    return results
