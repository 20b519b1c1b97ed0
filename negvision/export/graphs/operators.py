"""Steps that torch's exporter has no operators for; their ONNX forms are in `translation`.

What they do inside depends on the data (how many boxes stay, which level a region is pooled from,
how large a result was asked for): so that does not reach the exporter.
"""

from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

# Scores of what takes no part; those of boxes are 0 or more.
ABSENT = -1.0


@torch.library.custom_op("negvision_export::suppress", mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """Non-maximum suppression of each image by itself.

    Args:
        boxes: (B, K, 4) float32 as x1, y1, x2, y2.
        scores: (B, K) float32; boxes with ``ABSENT`` take no part.
        iou_threshold: A box goes where its IoU with a kept one is greater than this.
        limit: Of each image at most so many stay, those of the highest scores.

    Returns:
        (B, K): the scores of the boxes that stay, ``ABSENT`` for the others.
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
        scales: Of each level its pixels per pixel of the image.
        size: Side of the result.
        sampling_ratio: Points per bin and direction; 0 for as many as the bin has pixels.
        aligned: Whether the points lie half a pixel to the upper left.

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
    """The upper left part of maps, enlarged or reduced.

    Args:
        values: (B, C, H, W) float32.
        size: (2,) int64, height and width of the part; more than H and W is all.
        out_size: (2,) int64, height and width of the result; 0 for those of the part.
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
