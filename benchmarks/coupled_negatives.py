"""The coupled estimation of ``benchmarks/negatives.py``: a hook that is not part of negvision.

Two models are learned together: the detector, which says how likely a place is an object (r), and
a selection model, which says how likely people would have given an object there a box (o), by what
they see alone: its size, how far it is from the border of the image and from the nearest box, and
how many boxes the image has. A place without a box has the likelihood 1 - r o, one with a box r o.

- A negative weighs (1 - r) / (1 - r o), the probability that there is no object, given that there
  is no box.
- A positive weighs 1 / o, its inverse propensity, at most 5 and 1 on average.
- The selection model, a logistic regression, ascends the likelihood with r held fixed, by one step
  a batch.

Source: Cai et al., "Hard Negatives or False Negatives: Correcting Pooling Bias in Training Neural
Ranking Models", CIKM 2022, for the two coupled models; carried over from documents to boxes by us.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.registry import HOOKS
from torch import Tensor, nn

from negvision.detection.heads.dense import grid_priors
from negvision.detection.soft_negatives import SoftNegatives
from negvision.engine.config.model_parts import unwrapped

_FEATURES, _MOST = 5, 5.0


@HOOKS.register_module()
class CoupledNegatives(SoftNegatives):
    """See the module; for dense heads of negvision with one anchor per location."""

    def __init__(self, threshold: float = 0.3, warmup: float = 0.3, lr: float = 0.05) -> None:
        super().__init__(threshold, warmup)
        self.selection = nn.Linear(_FEATURES, 1)
        nn.init.zeros_(self.selection.weight)
        nn.init.constant_(self.selection.bias, 2.0)  # nearly every object has a box
        self._optimizer = torch.optim.Adam(self.selection.parameters(), lr)
        self._levels: list[Tensor] = []

    def before_train(self, runner) -> None:
        super().before_train(runner)
        head = unwrapped(runner.model).bbox_head
        original = head.loss_by_feat

        def watched(cls_scores, bbox_preds, centernesses, instances, metas, *rest):
            sizes = [tuple(level.shape[-2:]) for level in cls_scores]
            pairs = list(zip(instances, metas, strict=True))
            # The classification loss is called level by level, with the images of a batch in turn.
            self._levels = [
                torch.cat([_features(level, one.bboxes, meta) for one, meta in pairs])
                for level in grid_priors(head.prior_generator, sizes, cls_scores[0].device)
            ]
            return original(cls_scores, bbox_preds, centernesses, instances, metas, *rest)

        head.loss_by_feat = watched

    def weights(self, scores: Tensor, labels: Any, sigmoid: bool) -> Tensor:
        features = self._levels.pop(0)
        assert len(features) == len(scores)
        r = scores.detach().float().sigmoid().amax(1).clamp(max=1 - 1e-4)
        positive = (labels >= 0) & (labels < scores.shape[1])
        # Places that are no candidates say nothing about what people leave out.
        doubted = ~positive & (r > self.threshold)
        with torch.enable_grad():
            o = self.selection(features).sigmoid().squeeze(1)
            likelihood = (o[positive] + 1e-6).log().sum() + (1 - r * o)[doubted].log().sum()
            self._optimizer.zero_grad()
            (-likelihood / (positive.sum() + doubted.sum()).clamp(min=1)).backward()
            self._optimizer.step()
        o = o.detach()
        weights = torch.ones_like(r)
        weights[doubted] = ((1 - r) / (1 - r * o))[doubted]
        if positive.any():
            inverse = (1 / o[positive]).clamp(max=_MOST)
            weights[positive] = inverse / inverse.mean()
        return weights


def _features(priors: Tensor, boxes: Tensor, meta: dict) -> Tensor:
    """What an annotator sees of each place, (P, 5), about in [-1, 1]."""
    height, width = meta["img_shape"][:2]
    centers = (priors[:, :2] + priors[:, 2:]) / 2
    side = (priors[:, 2] - priors[:, 0]) / max(height, width)
    border = torch.stack(
        [centers[:, 0], centers[:, 1], width - centers[:, 0], height - centers[:, 1]]
    ).amin(0) / max(height, width)
    nearest = torch.ones_like(side)
    if len(boxes):
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        gaps = torch.cdist(centers, middle.to(centers))
        # A positive's own box is not its neighbor.
        gaps = torch.where(gaps < (priors[:, 2] - priors[:, 0])[:, None] / 4, torch.inf, gaps)
        nearest = (gaps.amin(1) / max(height, width)).clamp(max=1)
    crowd = torch.full_like(side, min(len(boxes) / 30, 1.0))
    return torch.stack([side.log2().clamp(-5, 0) / 5, border, nearest, crowd, crowd * nearest], 1)
