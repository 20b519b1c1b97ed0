"""What ``imbalance.py`` needs for pixels and what is no part of negvision."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from negvision.registry import METRICS, MODELS

# Scores are counted in bins of their log odds.
_LARGEST, _BINS = 16.0, 4000


@MODELS.register_module()
class PixelFocalLoss(nn.Module):
    """Independent sigmoids, alpha 0.5, gamma 2, mean over all elements.

    As mmseg's FocalLoss, which fails on a CPU if there are several classes.
    """

    loss_name = "loss_focal"

    def forward(
        self, logits: Tensor, labels: Tensor, weight: None = None, ignore_index: int = 255, **kwargs
    ) -> Tensor:
        """Logits (N, C, H, W), labels (N, H, W) -> a scalar."""
        kept = labels != ignore_index
        classes = logits.shape[1]
        hot = functional.one_hot(torch.where(kept, labels, 0), classes).movedim(-1, 1)
        losses = sigmoid_focal_loss(logits.float(), hot.float(), alpha=0.5, gamma=2.0)
        return (losses * kept[:, None]).sum() / (kept.sum() * classes).clamp(min=1)


@METRICS.register_module()
class PixelAP(BaseMetric):
    """Average precision of the pixels of each class, by its probability, over all images.

    It sees what a class that is never the most probable one has learned.

    Args:
        sigmoid: Probabilities are sigmoids instead of a softmax.
    """

    def __init__(self, sigmoid: bool = False) -> None:
        super().__init__()
        self.sigmoid = sigmoid

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count the pixels of each class, and the others, by their score."""
        for one in data_samples:
            logits = one["seg_logits"]["data"].double()
            labels = one["gt_sem_seg"]["data"].squeeze().flatten()
            if not self.sigmoid:  # the log odds of a softmax
                whole = logits.logsumexp(0)
                rest = whole + (1 - (logits - whole).exp()).clamp(min=1e-12).log()
                logits = logits - rest
            odds = ((logits / _LARGEST).clamp(-1, 1) + 1) * (_BINS / 2)
            bins = odds.long().clamp(max=_BINS - 1).flatten(1)[:, labels != 255].numpy()
            kept = labels[labels != 255].numpy()
            self.results.append(
                np.stack([
                    [np.bincount(row[hit], minlength=_BINS) for hit in (kept == c, kept != c)]
                    for c, row in enumerate(bins)
                ])
            )  # fmt: skip

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Percent, of classes that have pixels."""
        counts = np.sum(results, axis=0)[:, :, ::-1].cumsum(2)
        found = {}
        for name, (hits, others) in zip(self.dataset_meta["classes"], counts, strict=True):
            if hits[-1]:
                gained = np.diff(hits, prepend=0) / hits[-1]
                found[f"AP/{name}"] = 100 * float(
                    (gained * hits / np.maximum(hits + others, 1)).sum()
                )
        return found
