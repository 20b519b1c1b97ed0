"""Single-stage detectors as one graph: ATSS, RetinaNet and AbeT's dense head."""

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmengine.model import BaseModel
from torch import Tensor, nn

from negvision.detection.heads import AbeTATSSHead, ATSSHead
from negvision.detection.heads.dense import flatten_level
from negvision.export.graphs import candidates
from negvision.export.graphs.operators import ABSENT
from negvision.ood import ood_score


class DenseDetector(nn.Module):
    """``image (B, 3, H, W), sizes (B, 2) -> boxes, scores, labels[, ood_scores], counts``.

    Candidates, decoding and suppression are those of mmdet's ``BaseDenseHead``, for the full batch
    at once.

    Args:
        model: A detector accepted by :func:`why_not_dense`, in evaluation mode.
    """

    def __init__(self, model: BaseModel) -> None:
        super().__init__()
        self.model = model
        self.cfg = self.head.test_cfg
        self.has_ood = isinstance(self.head, AbeTATSSHead)

    @property
    def head(self) -> BaseDenseHead:
        """The box head. As a submodule of its own it would have two names."""
        return self.model.bbox_head

    def forward(self, image: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """See the class; M is ``max_per_img``."""
        head, cfg = self.head, self.cfg
        classes, deltas, factors, temperatures = self._outputs(image)
        priors = head.prior_generator.grid_priors(
            [level.shape[-2:] for level in classes], dtype=torch.float32, device=image.device
        )
        logits = [flatten_level(level, head.cls_out_channels) for level in classes]
        deltas = [flatten_level(level, 4) for level in deltas]
        scores, places, labels, start = [], [], [], 0
        for own, level_priors in zip(logits, priors, strict=True):
            own_scores, own_places, own_labels = self._candidates(own)
            scores.append(own_scores)
            places.append(own_places + start)
            labels.append(own_labels)
            start = start + level_priors.shape[0]
        scores, places, labels = (torch.cat(part, 1) for part in (scores, places, labels))
        boxes = candidates.decode(
            head.bbox_coder,
            torch.cat(priors)[places],
            candidates.gather(torch.cat(deltas, 1), places),
            candidates.image_sizes(image, sizes),
        )
        if factors:
            flat = torch.cat([flatten_level(level, 1) for level in factors], 1).sigmoid()
            weighted = scores * candidates.gather(flat, places)[..., 0]
            scores = torch.where(scores > ABSENT / 2, weighted, ABSENT)
        large = candidates.large_enough(boxes, cfg.get("min_bbox_size", -1))
        scores = torch.where(large, scores, ABSENT)
        scores, kept = candidates.suppress_by_group(boxes, scores, labels, cfg.nms, cfg.max_per_img)
        ood = None
        if self.has_ood:
            anchors = places.gather(1, kept)
            found = candidates.gather(torch.cat(logits, 1), anchors)
            flat = torch.cat([flatten_level(level, 1) for level in temperatures], 1)
            temperature = candidates.gather(flat, anchors)[..., 0]
            ood = ood_score(head.score, found, temperature)
        return candidates.padded_outputs(
            candidates.gather(boxes, kept), scores, labels.gather(1, kept), ood
        )

    def _outputs(self, image: Tensor) -> list[list[Tensor]]:
        """Logits, deltas, score factors and temperatures by level, [] for missing ones."""
        features = self.model.extract_feat(image)
        if not self.has_ood:
            outputs = self.head(features)
        else:
            # Its own forward joins the levels for training statistics.
            features, *others = ATSSHead.forward(self.head, features)
            pairs = [self.head.abet(level) for level in features]
            logits = [logits for logits, _ in pairs]
            outputs = [logits, *others, [temperature[:, None] for _, temperature in pairs]]
        outputs = [[level.float() for level in part] for part in outputs]
        return outputs + [[]] * (4 - len(outputs))

    def _candidates(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, anchors and classes, (B, k) each, of one level's logits (B, A, C)."""
        if self.head.use_sigmoid_cls:
            scores = logits.sigmoid()
        else:
            scores = logits.softmax(-1)[..., :-1]
        classes = scores.shape[-1]
        scores = scores.flatten(1)
        scores = torch.where(scores > self.cfg.get("score_thr", 0), scores, ABSENT)
        nms_pre = self.cfg.get("nms_pre", -1)
        if nms_pre > 0:
            scores, places = candidates.best(scores, nms_pre)
        else:
            places = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
        return scores, places // classes, places % classes


def why_not_dense(model: BaseModel) -> str | None:
    """The part of ``model`` that :class:`DenseDetector` does not support, None if there is none."""
    head = getattr(model, "bbox_head", None)
    if not isinstance(head, BaseDenseHead):
        return f"{type(model).__name__} has no single-stage box head"
    name = type(head).__name__
    for step in ("predict", "predict_by_feat", "_predict_by_feat_single", "_bbox_post_process"):
        known = [getattr(kind, step) for kind in (BaseDenseHead, AbeTATSSHead)]
        if getattr(type(head), step) not in known:
            return f"the box head {name} has a {step} of its own"
    if getattr(head.loss_cls, "custom_cls_channels", False):
        return f"the loss {type(head.loss_cls).__name__} of {name} has an activation of its own"
    return why_not_decoded(head.bbox_coder) or why_not_suppressed(head.test_cfg)


def why_not_decoded(coder) -> str | None:
    """The part of a box coder that :func:`.candidates.decode` does not support, or None."""
    if type(coder) is not DeltaXYWHBBoxCoder:
        return f"the box coder {type(coder).__name__}"
    return "add_ctr_clamp of the box coder" if coder.add_ctr_clamp else None


def why_not_suppressed(cfg: dict) -> str | None:
    """The part of a ``test_cfg`` that NonMaxSuppression does not support, or None."""
    nms = dict(cfg.get("nms") or {})
    if nms.pop("type", "nms") != "nms" or "iou_threshold" not in nms:
        return f"test_cfg.nms is {cfg.get('nms')!r}, not dict(type='nms', iou_threshold=...)"
    others = set(nms) - {"iou_threshold", "class_agnostic", "split_thr"}
    if others:
        return f"test_cfg.nms.{sorted(others)[0]}"
    if cfg.get("max_per_img", -1) < 1:
        return "test_cfg.max_per_img: a graph needs a limit of the number of boxes"
    return None
