"""Focal loss of pixels for ``imbalance.py``: mmseg's fails on a CPU with several classes."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from negvision.registry import MODELS


@MODELS.register_module()
class PixelFocalLoss(nn.Module):
    """As mmseg's FocalLoss: independent sigmoids, alpha 0.5, gamma 2, mean over all elements."""

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
