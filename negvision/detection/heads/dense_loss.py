"""The loss that ATSS and FCOS heads share, computed on every prior.

mmdet picks the positives out first, which asks the device how many there are. Here all priors take
part and those that are not positive weigh nothing: the value is the same, and nothing waits.
"""

from collections.abc import Sequence

import torch
from mmdet.utils import reduce_mean
from torch import Tensor

from negvision.detection.heads.targets import DenseTargets


def flatten_level(output: Tensor, channels: int) -> Tensor:
    """Output of a level, (B, n * channels, H, W), as (B, H * W * n, channels)."""
    return output.permute(0, 2, 3, 1).reshape(output.shape[0], -1, channels)


def centerness_of(centres: Tensor, boxes: Tensor) -> Tensor:
    """Centerness of points in boxes (Tian et al., ICCV 2019, eq. 3); both (..., 2 and 4).

    A point outside its box has none: the result is 0 there.
    """
    low, high = centres - boxes[..., :2], boxes[..., 2:] - centres
    nearer = torch.minimum(low, high).clamp(min=0)
    farther = torch.maximum(low, high).clamp(min=torch.finfo(low.dtype).tiny)
    return (nearer / farther).prod(-1).sqrt()


def dense_loss(
    head,
    cls_scores: Sequence[Tensor],
    pred_boxes: Tensor,
    centerness: Tensor,
    targets: DenseTargets,
    centres: Tensor,
    num_positive: Tensor,
    least_centerness: float,
) -> dict:
    """Classification, box and centerness losses.

    Args:
        head: With ``loss_cls``, ``loss_bbox``, ``loss_centerness`` and ``cls_out_channels``.
        cls_scores: Logits of each level, (B, n * C, H, W).
        pred_boxes: Decoded, (B, A, 4).
        centerness: Logits, (B, A).
        targets: Of the same priors, level after level.
        centres: (A, 2), pixels.
        num_positive: Divides the classification and centerness losses.
        least_centerness: Floor of the sum of centerness targets that divides the box loss.
    """
    # What is predicted elsewhere may be infinite, and no weight undoes that.
    pred_boxes = torch.where(targets.positive[..., None], pred_boxes, targets.boxes)
    wanted = centerness_of(centres, targets.boxes) * targets.positive
    scores = [flatten_level(level, head.cls_out_channels) for level in cls_scores]
    sizes = [level.shape[1] for level in scores]
    losses_cls = [
        head.loss_cls(
            level.reshape(-1, level.shape[-1]),
            labels.reshape(-1),
            weights.reshape(-1),
            avg_factor=num_positive,
        )
        for level, labels, weights in zip(
            scores,
            targets.labels.split(sizes, 1),
            targets.weights.split(sizes, 1),
            strict=True,
        )
    ]
    loss_bbox = head.loss_bbox(
        pred_boxes.reshape(-1, 4),
        targets.boxes.reshape(-1, 4),
        weight=wanted.reshape(-1),
        avg_factor=reduce_mean(wanted.sum()).clamp(min=least_centerness),
    )
    loss_centerness = head.loss_centerness(
        centerness.reshape(-1),
        wanted.reshape(-1),
        weight=targets.positive.reshape(-1).to(wanted.dtype),
        avg_factor=num_positive,
    )
    return {"loss_cls": losses_cls, "loss_bbox": loss_bbox, "loss_centerness": loss_centerness}
