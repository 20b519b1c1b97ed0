"""AbeT's idea on the dense sigmoid head of ATSS."""

import torch
from mmdet.models.utils import filter_scores_and_topk
from mmengine.structures import InstanceData
from torch import Tensor, nn

from negvision.detection.heads.abet_modules import DenseLogits
from negvision.detection.heads.atss_head import ATSSHead
from negvision.detection.heads.dense_loss import flatten_level
from negvision.detection.heads.ood_fields import add_ood_fields
from negvision.ood.scores import check_score_name
from negvision.registry import MODELS


@MODELS.register_module()
class AbeTATSSHead(ATSSHead):
    """ATSS whose boxes carry an OOD score by a learned temperature.

    **The paper of AbeT covers softmax heads only.** How the idea is carried over to a head of
    sigmoids is defined here: on the last feature of the classification tower stand AbeT's two
    heads as 1x1 convolutions, cosines ``g_c`` and one temperature T for each location. The logits
    are ``z_c = g_c / T + b`` with ONE learned scalar b for all classes, which starts at
    ``-log((1 - 0.01) / 0.01)`` so that the focal loss starts as usual. The score is
    ``-logsumexp_c(z_c)``: the background is the implicit class of logit 0, and b shifts the score
    of all boxes alike, so it has no part in their order. The statistics that normalise T are those
    of all locations of all levels together.

    Every score of :data:`negvision.ood.scores.SCORE_NAMES` is taken of the same z: "msp" and
    "entropy" are of the softmax over the classes, in which b cancels; minus the largest sigmoid,
    the confidence of a dense detector, orders boxes as "max_logit" does; "energy" multiplies by T
    what has b in it.

    Boxes, centerness, assignment and losses are those of :class:`ATSSHead`. Every box that is kept
    carries ``logits`` (C,), ``temperature`` and ``ood_score``.

    Args:
        num_classes: C.
        in_channels: Channels of the feature maps.
        logits: "cosine", or "inner" for inner products.
        temperature: False for T = 1 throughout.
        shaping: Of the feature at test time; see :class:`negvision.ood.AbeTLogits`.
        score: One of :data:`negvision.ood.scores.SCORE_NAMES`. Higher is more OOD.
        **kwargs: As of :class:`ATSSHead`.

    Attributes:
        ood_threshold: None, or a calibrated threshold
            (:func:`negvision.ood.threshold.set_threshold`); boxes then carry ``is_ood``.

    Raises:
        ValueError: More than one anchor a location, a ``loss_cls`` of a softmax, or an unknown
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
        score: str = "abet",
        **kwargs,
    ) -> None:
        super().__init__(num_classes, in_channels, **kwargs)
        if self.num_base_priors != 1:
            raise ValueError(
                f"the anchor generator has {self.num_base_priors} anchors a location; AbeTATSSHead "
                "has one temperature a location and takes one anchor"
            )
        if not self.use_sigmoid_cls:
            raise ValueError(
                "loss_cls.use_sigmoid is False; AbeTATSSHead is a head of sigmoids without a "
                "background class"
            )
        self.score = check_score_name(score)
        self.ood_threshold: float | None = None
        # Features pass where mmdet has the classifier: the temperatures need all levels at once.
        self.atss_cls = nn.Identity()
        self.abet = DenseLogits(
            self.feat_channels,
            num_classes,
            logits=logits,
            temperature=temperature,
            shaping=shaping,
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

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        centernesses: list[Tensor],
        temperatures: list[Tensor],
        *args,
        **kwargs,
    ) -> dict:
        """Losses of a batch as of :class:`ATSSHead`; T takes part through the logits alone."""
        return super().loss_by_feat(cls_scores, bbox_preds, centernesses, *args, **kwargs)

    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        centernesses: list[Tensor],
        temperatures: list[Tensor],
        *args,
        **kwargs,
    ) -> list[InstanceData]:
        """Boxes of each image; the other arguments and the order of boxes are mmdet's."""
        # One more channel, which mmdet hands on image by image.
        joined = [torch.cat(pair, 1) for pair in zip(cls_scores, temperatures, strict=True)]
        return super().predict_by_feat(joined, bbox_preds, centernesses, *args, **kwargs)

    def _predict_by_feat_single(
        self,
        cls_score_list: list[Tensor],
        bbox_pred_list: list[Tensor],
        score_factor_list: list[Tensor],
        mlvl_priors: list[Tensor],
        img_meta: dict,
        cfg,
        rescale: bool = False,
        with_nms: bool = True,
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
        results = self._bbox_post_process(results, cfg, rescale, with_nms, img_meta)
        return add_ood_fields(results, self, results.logits, results.temperature)
