"""Operators that torch's exporter lacks; their ONNX forms are in `translation`.

Their control flow depends on the data (how many boxes are kept, from which level a region is
pooled, the size of a result), so it is hidden from the exporter.
"""

from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

# Score of excluded boxes; scores of boxes are 0 or more.
ABSENT = -1.0


@torch.library.custom_op("negvision_export::suppress", mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """Non-maximum suppression in each image.

    Args:
        boxes: (B, K, 4) float32 as x1, y1, x2, y2.
        scores: (B, K) float32; boxes with ``ABSENT`` are excluded.
        iou_threshold: A box with a larger IoU with a kept box is suppressed.
        limit: Largest number of boxes to keep per image, by score.

    Returns:
        (B, K): the scores of kept boxes, ``ABSENT`` for the others.
    """
    left = torch.full_like(scores, ABSENT)
    for image, own in enumerate(scores):
        present = (own > ABSENT / 2).nonzero()[:, 0]
        kept = torchvision.ops.nms(boxes[image, present], own[present], iou_threshold)
        kept = present[kept[:limit]]
        left[image, kept] = own[kept]
    return left


@suppress.register_fake
def _(boxes, scores, iou_threshold, limit):
    return torch.empty_like(scores)


@torch.library.custom_op("negvision_export::pool_regions", mutates_args=())
def pool_regions(
    features: Sequence[Tensor],
    regions: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """RoIAlign of each region on its own level of a feature pyramid.

    Args:
        features: Levels, each (B, C, H, W) float32.
        regions: (N, 5) float32 as image index, x1, y1, x2, y2.
        levels: (N,) int64, the level of each region.
        scales: Pixels of each level per pixel of the image.
        size: Side of the result.
        sampling_ratio: Points per bin and axis; 0 for one per pixel.
        aligned: Whether points are shifted by half a pixel to the upper left.

    Returns:
        (N, C, size, size).
    """
    pooled = regions.new_zeros(len(regions), features[0].shape[1], size, size)
    for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        rows = (levels == level).nonzero()[:, 0]
        pooled[rows] = torchvision.ops.roi_align(
            feature, regions[rows], size, scale, sampling_ratio, aligned
        )
    return pooled


@pool_regions.register_fake
def _(features, regions, levels, scales, size, sampling_ratio, aligned):
    return regions.new_empty(regions.shape[0], features[0].shape[1], size, size)


@torch.library.custom_op("negvision_export::fit_to", mutates_args=())
def fit_to(values: Tensor, size: Tensor, out_size: Tensor, align_corners: bool) -> Tensor:
    """The upper left part of maps, resized.

    Args:
        values: (B, C, H, W) float32.
        size: (2,) int64, height and width of the part; limited to H and W.
        out_size: (2,) int64, height and width of the result; 0 for the size of the part.
        align_corners: As in :func:`torch.nn.functional.interpolate`, bilinear.

    Returns:
        (B, C, h, w).
    """
    height, width = torch.minimum(size.cpu(), torch.tensor(values.shape[-2:])).tolist()
    part = values[..., :height, :width].contiguous()
    out = [wanted or own for wanted, own in zip(out_size.tolist(), (height, width), strict=True)]
    if out == [height, width]:
        return part.clone()
    return F.interpolate(part, out, mode="bilinear", align_corners=align_corners)


@fit_to.register_fake
def _(values, size, out_size, align_corners):
    context = torch.library.get_ctx()
    sides = [context.new_dynamic_size(min=1) for _ in range(2)]
    return values.new_empty(*values.shape[:2], *sides)
