"""Faster R-CNN as one graph, with mmdet's box head or one with an OOD score."""

from typing import Any

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from torch import Tensor, nn

from negvision.detection.heads import OODBBoxHead
from negvision.detection.heads.dense import flatten_level
from negvision.export.graphs import candidates
from negvision.export.graphs.dense import why_not_decoded, why_not_suppressed
from negvision.export.graphs.operators import ABSENT, pool_regions
from negvision.ood import ood_score


class TwoStageDetector(nn.Module):
    """``image (B, 3, H, W), sizes (B, 2) -> boxes, scores, labels[, ood_scores], counts``.

    Each image always has ``rpn.max_per_img`` regions; those that are not proposals are empty and
    excluded.

    Args:
        model: A detector accepted by :func:`why_not_two_stage`, in evaluation mode.
    """

    model: BaseModel
    cfg: ConfigDict

    def __init__(self, model: BaseModel) -> None:
        super().__init__()
        self.model = model
        self.cfg = model.roi_head.test_cfg
        self.has_ood = isinstance(self.head, OODBBoxHead)

    @property
    def head(self) -> BBoxHead:
        """The box head. As a submodule of its own it would have two names."""
        return self.model.roi_head.bbox_head

    def forward(self, image: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """See the class; M is ``rcnn.max_per_img``."""
        head, cfg = self.head, self.cfg
        sizes = candidates.image_sizes(image, sizes)
        features = self.model.extract_feat(image)
        regions, present = self._proposals(features, sizes)
        output, deltas = head(self._pooled(features, regions).to(image.dtype))
        batch, count = present.shape
        output, deltas = output.float().unflatten(0, (batch, count)), deltas.float()
        logits, temperature = output, None
        if self.has_ood:
            logits, temperature = head.split_output(output.flatten(0, 1))
            logits = logits.unflatten(0, (batch, count))
        scores = logits.softmax(-1)[..., :-1]
        classes = scores.shape[-1]
        scores = torch.where((scores > cfg.score_thr) & present[..., None], scores, ABSENT)
        # (B, P * classes, 4), or (B, P, 4) shared by all classes.
        each = 1 if head.reg_class_agnostic else classes
        priors = regions[:, :, None].expand(-1, -1, each, -1).flatten(1, 2)
        boxes = candidates.decode(head.bbox_coder, priors, deltas.reshape(batch, -1, 4), sizes)
        if head.reg_class_agnostic:
            boxes = boxes[:, :, None].expand(-1, -1, classes, -1).flatten(1, 2)
        labels = torch.arange(classes, device=image.device).expand_as(scores).flatten(1)
        scores, kept = candidates.suppress_by_group(
            boxes, scores.flatten(1), labels, cfg.nms, cfg.max_per_img
        )
        ood = None
        if self.has_ood:
            rows = kept // classes
            if temperature is not None:
                temperature = temperature.unflatten(0, (batch, count)).gather(1, rows)
            ood = ood_score(head.score, candidates.gather(logits, rows)[..., :classes], temperature)
        return candidates.padded_outputs(
            candidates.gather(boxes, kept), scores, kept % classes, ood
        )

    def _proposals(self, features: tuple[Tensor], sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Regions (B, P, 4), and whether each region is a proposal, (B, P) bool."""
        rpn = self.model.rpn_head
        cfg = rpn.test_cfg
        outputs = [[level.float() for level in part] for part in rpn(features)]
        priors = rpn.prior_generator.grid_priors(
            [level.shape[-2:] for level in outputs[0]], dtype=torch.float32, device=sizes.device
        )
        boxes, scores, groups = [], [], []
        for level, (logits, deltas, own) in enumerate(zip(*outputs, priors, strict=True)):
            own_scores = flatten_level(logits, 1)[..., 0].sigmoid()
            own_deltas = flatten_level(deltas, 4)
            places = torch.arange(own_scores.shape[1], device=sizes.device).expand_as(own_scores)
            if cfg.nms_pre > 0:
                own_scores, places = candidates.best(own_scores, cfg.nms_pre)
            own_deltas = candidates.gather(own_deltas, places)
            boxes.append(candidates.decode(rpn.bbox_coder, own[places], own_deltas, sizes))
            scores.append(own_scores)
            groups.append(torch.full_like(places, level))
        boxes, scores, groups = (torch.cat(part, 1) for part in (boxes, scores, groups))
        large = candidates.large_enough(boxes, cfg.get("min_bbox_size", -1))
        scores, kept = candidates.suppress_by_group(
            boxes, torch.where(large, scores, ABSENT), groups, cfg.nms, cfg.max_per_img
        )
        present = scores > ABSENT / 2
        return torch.where(present[..., None], candidates.gather(boxes, kept), 0), present

    def _pooled(self, features: tuple[Tensor, ...], regions: Tensor) -> Tensor:
        """(B * P, C, S, S) of regions (B, P, 4)."""
        extractor = self.model.roi_head.bbox_roi_extractor
        layers = extractor.roi_layers
        features = features[: extractor.num_inputs]
        batch, count = regions.shape[:2]
        images = torch.arange(batch, device=regions.device)[:, None, None].expand(-1, count, -1)
        regions = torch.cat([images.to(regions), regions], -1).flatten(0, 1)
        levels = extractor.map_roi_levels(regions, len(layers))
        return pool_regions(
            [feature.float() for feature in features],
            regions,
            levels,
            [layer.spatial_scale for layer in layers],
            layers[0].output_size[0],
            layers[0].sampling_ratio,
            layers[0].aligned,
        )


def why_not_two_stage(model: BaseModel) -> str | None:
    """The part of ``model`` that :class:`TwoStageDetector` does not support, or None."""
    roi_head: Any = getattr(model, "roi_head", None)
    if (
        type(roi_head) is not StandardRoIHead
        or type(getattr(model, "rpn_head", None)) is not RPNHead
    ):
        return f"{type(model).__name__} with {type(roi_head).__name__}"
    head, extractor = roi_head.bbox_head, roi_head.bbox_roi_extractor
    known = [kind._predict_by_feat_single for kind in (BBoxHead, OODBBoxHead)]
    if getattr(type(head), "_predict_by_feat_single", None) not in known:
        return f"the box head {type(head).__name__} has a _predict_by_feat_single of its own"
    if head.custom_cls_channels and not isinstance(head, OODBBoxHead):
        return f"the loss {type(head.loss_cls).__name__} has an activation of its own"
    if roi_head.with_mask or roi_head.with_shared_head or not head.with_reg:
        return f"masks, a shared head, or a box head without boxes ({type(model).__name__})"
    layers = getattr(extractor, "roi_layers", [])
    if type(extractor) is not SingleRoIExtractor or {type(la).__name__ for la in layers} != {
        "RoIAlign"
    }:
        return f"the RoI extractor {type(extractor).__name__}"
    if layers[0].pool_mode != "avg" or len(set(layers[0].output_size)) > 1:
        return "a RoIAlign with max pooling or a non-square output"
    if not model.rpn_head.use_sigmoid_cls:
        return "an RPN head with softmax"
    coders = (model.rpn_head.bbox_coder, head.bbox_coder)
    cfgs = (model.rpn_head.test_cfg, roi_head.test_cfg)
    reasons = [*map(why_not_decoded, coders), *map(why_not_suppressed, cfgs)]
    return next(filter(None, reasons), None)
