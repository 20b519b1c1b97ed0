"""RoIPool (Girshick, "Fast R-CNN", ICCV 2015, section 2.1) with mmcv's bins.

torchvision rounds a region to integer pixels before dividing it into bins, mmcv does not: only the
backward, which follows the recorded maxima, can come from torchvision's kernels.
"""

import torch
from torch import Tensor

from negvision.compat.mmcv_ext.precision import compute_dtype


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Maximum of the feature map in each bin of each region.

    Args:
        input: (N, C, H, W) feature map.
        rois: (K, 5) as image index, x1, y1, x2, y2; x2 and y2 are the last pixels inside.
        output: (K, C, pooled_height, pooled_width), overwritten; 0 where a bin has no pixel.
        argmax: int32, shape of ``output``, row * W + column of the maximum, overwritten; -1 where
            a bin has no pixel.
        pooled_height: bins down.
        pooled_width: bins across.
        spatial_scale: pixels of the feature map per pixel of the image.

    A region whose x2 or y2 lies more than a pixel before x1 or y1 gives 0 and no gradient (mmcv:
    0, and a gradient for the first pixel of the map).
    """
    features, rois = input.to(compute_dtype(input)), rois.to(compute_dtype(input))
    height, width = features.shape[2:]
    best = features.new_full(output.shape, -torch.inf)
    best_pixel = torch.full_like(argmax, -1)
    image_index = rois[:, 0].long()
    first_row, end_row = _bins(rois[:, 2], rois[:, 4], pooled_height, height, spatial_scale)
    first_column, end_column = _bins(rois[:, 1], rois[:, 3], pooled_width, width, spatial_scale)
    malformed = (rois[:, 3] + 1 <= rois[:, 1]) | (rois[:, 4] + 1 <= rois[:, 2])
    end_row = torch.where(malformed[:, None], first_row, end_row)
    rows, columns = (end_row - first_row).clamp(min=0), (end_column - first_column).clamp(min=0)
    # One pass per pixel of the largest bin, over all bins of the regions that reach so far.
    for dy in range(int(rows.max()) if len(rois) else 0):
        for dx in range(int(columns.max())):
            inside = (dy < rows)[:, :, None] & (dx < columns)[:, None, :]
            active = inside.flatten(1).any(dim=1).nonzero()[:, 0]
            row = (first_row[active] + dy).clamp(max=height - 1)[:, :, None]
            column = (first_column[active] + dx).clamp(max=width - 1)[:, None, :]
            value = features[image_index[active, None, None], :, row, column].permute(0, 3, 1, 2)
            wins = (value > best[active]) & inside[active, None]
            pixel = (row * width + column)[:, None].to(argmax.dtype)
            best[active] = torch.where(wins, value, best[active])
            best_pixel[active] = torch.where(wins, pixel, best_pixel[active])
    output.copy_(best.masked_fill_(best_pixel < 0, 0))
    argmax.copy_(best_pixel)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add the gradient of :func:`roi_pool_forward` to ``grad_input``, shape (N, C, H, W)."""
    dtype = compute_dtype(grad_output)
    grad_input.add_(
        torch.ops.torchvision._roi_pool_backward(
            grad_output.to(dtype),
            rois.to(dtype),
            argmax,
            spatial_scale,
            pooled_height,
            pooled_width,
            *grad_input.shape,
        )
    )


def _bins(
    first: Tensor, last: Tensor, bins: int, size: int, spatial_scale: float
) -> tuple[Tensor, Tensor]:
    """Along one axis, (K, bins) each: first pixel of a bin, and the pixel after its last."""
    start = (first * spatial_scale)[:, None]
    bin_size = ((last + 1) * spatial_scale)[:, None].sub(start) / bins
    index = torch.arange(bins, device=first.device)
    begin = (index * bin_size + start).floor().long().clamp(0, size)
    end = ((index + 1) * bin_size + start).ceil().long().clamp(0, size)
    return begin, end
