"""RoIAlign (He et al., "Mask R-CNN", ICCV 2017, section 3): average and maximum pooling.

The average comes from torchvision's kernels. The maximum, which torchvision has not, is taken
over the same sampling points in plain torch.
"""

import torch
from torch import Tensor

from negvision.compat.mmcv_ext.precision import compute_dtype

MAX_POOL = 0

# Where a bin holds no sampling point at all: outside of every map, hence without a gradient.
_NOWHERE = -2.0


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool each region into a fixed grid of bins.

    Args:
        input: (N, C, H, W) feature map.
        rois: (K, 5) as image index, x1, y1, x2, y2 in pixels of the image.
        output: (K, C, aligned_height, aligned_width), overwritten.
        argmax_y: shape of ``output``, the y of the winning point on the feature map,
            overwritten; empty for the average.
        argmax_x: the same for x.
        aligned_height: bins down.
        aligned_width: bins across.
        spatial_scale: pixels of the feature map per pixel of the image.
        sampling_ratio: points per bin and direction; 0 for as many as the bin has pixels.
        pool_mode: 0 maximum, 1 average.
        aligned: shift the points by half a pixel, so that pixel centers are at integers.

    A bin without sampling points (a region of no height or width, ``aligned``, with
    ``sampling_ratio`` 0) gives 0 in both modes; mmcv's maximum gives -FLT_MAX.
    """
    dtype = compute_dtype(input)
    features, rois = input.to(dtype), rois.to(dtype)
    grid = (aligned_height, aligned_width)
    if pool_mode != MAX_POOL:
        output.copy_(
            torch.ops.torchvision.roi_align(
                features, rois, spatial_scale, *grid, sampling_ratio, aligned
            )
        )
        return

    best = features.new_full(output.shape, -torch.inf)
    best_y = features.new_full(output.shape, _NOWHERE)
    best_x = features.new_full(output.shape, _NOWHERE)
    image_index = rois[:, 0].long()
    start_y, bin_height, points_down = _sampling(
        rois[:, 2], rois[:, 4], aligned_height, spatial_scale, sampling_ratio, aligned
    )
    start_x, bin_width, points_across = _sampling(
        rois[:, 1], rois[:, 3], aligned_width, spatial_scale, sampling_ratio, aligned
    )
    bins_y = torch.arange(aligned_height, device=rois.device)
    bins_x = torch.arange(aligned_width, device=rois.device)
    # One pass per point of a bin, over all bins of all regions that have such a point: memory
    # stays at a few times the output, however large a region is.
    for iy in range(int(points_down.max()) if len(rois) else 0):
        for ix in range(int(points_across.max())):
            active = ((iy < points_down) & (ix < points_across)).nonzero()[:, 0]
            step_y = bins_y + ((iy + 0.5) / points_down[active].to(dtype))[:, None]
            step_x = bins_x + ((ix + 0.5) / points_across[active].to(dtype))[:, None]
            y = start_y[active, None] + step_y * bin_height[active, None]
            x = start_x[active, None] + step_x * bin_width[active, None]
            y = y[:, None, :, None].expand(-1, 1, *grid)
            x = x[:, None, None, :].expand(-1, 1, *grid)
            value = _interpolate(features, image_index[active], y, x)
            wins = value > best[active]
            best[active] = torch.where(wins, value, best[active])
            best_y[active] = torch.where(wins, y, best_y[active])
            best_x[active] = torch.where(wins, x, best_x[active])
    output.copy_(best.masked_fill_(best == -torch.inf, 0))
    argmax_y.copy_(best_y)
    argmax_x.copy_(best_x)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of :func:`roi_align_forward` to ``grad_input``, shape (N, C, H, W)."""
    dtype = compute_dtype(grad_output)
    grad_output, rois = grad_output.to(dtype), rois.to(dtype)
    if pool_mode != MAX_POOL:
        grad_input.add_(
            torch.ops.torchvision._roi_align_backward(
                grad_output,
                rois,
                spatial_scale,
                aligned_height,
                aligned_width,
                *grad_input.shape,
                sampling_ratio,
                aligned,
            )
        )
        return
    channels, height, width = grad_input.shape[1:]
    gradient = grad_output.new_zeros(grad_input.shape)
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)
    plane = plane[:, :, None, None] * (height * width)
    for row, column, weight in _corners(argmax_y.to(dtype), argmax_x.to(dtype), height, width):
        pixel = plane + row * width + column
        gradient.view(-1).index_add_(0, pixel.reshape(-1), (grad_output * weight).reshape(-1))
    grad_input.add_(gradient)


def _sampling(
    start: Tensor, end: Tensor, bins: int, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Along one axis, per region: its start, the size of a bin, the points in a bin."""
    shift = 0.5 if aligned else 0.0
    start, end = start * spatial_scale - shift, end * spatial_scale - shift
    size = end - start
    if not aligned:
        size = size.clamp(min=1)
    if sampling_ratio > 0:
        points = torch.full_like(size, sampling_ratio).long()
    else:
        points = (size / bins).ceil().long()
    return start, size / bins, points


def _corners(y: Tensor, x: Tensor, height: int, width: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The four pixels around points, as (row, column, bilinear weight).

    Points up to one pixel outside of the map take the value at its border; all weights of points
    farther out are 0.
    """
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.floor(), x.floor()
    down, right = y - top, x - left
    top, left = top.long(), left.long()
    bottom, far = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    return [
        (top, left, (1 - down) * (1 - right) * inside),
        (top, far, (1 - down) * right * inside),
        (bottom, left, down * (1 - right) * inside),
        (bottom, far, down * right * inside),
    ]


def _interpolate(features: Tensor, image_index: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Values (K, C, h, w) of the maps of images ``image_index`` (K,) at points (K, 1, h, w)."""
    height, width = features.shape[2:]
    image = image_index[:, None, None]
    value = features.new_zeros(())
    for row, column, weight in _corners(y[:, 0], x[:, 0], height, width):
        # Advanced indices around the slice of channels put these last: (K, h, w, C).
        value = value + features[image, :, row, column] * weight[..., None]
    return value.permute(0, 3, 1, 2)
