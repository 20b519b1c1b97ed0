"""RoIAlign (He et al., "Mask R-CNN", ICCV 2017, section 3) and RoIPool (Girshick, "Fast R-CNN",
ICCV 2015, section 2.1).

torchvision's kernels average the sampling points of RoIAlign; their maximum is taken here in plain
torch. torchvision rounds the regions of RoIPool to integer pixels before dividing them into bins,
mmcv does not: only its backward, which follows the recorded maxima, can come from torchvision.
"""

import torch
from torch import Tensor

from negvision.compat.mmcv_ext.precision import upcast

MAX_POOL = 0
# Where a bin holds no sampling point: outside of every map, hence without a gradient.
_NOWHERE = -2.0


def roi_align_forward(
    input, rois, output, argmax_y, argmax_x, aligned_height, aligned_width, spatial_scale,
    sampling_ratio, pool_mode, aligned,
) -> None:  # fmt: skip
    """Pool each region into a fixed grid of bins.

    A bin without sampling points (a region of no height or width, ``aligned``, with
    ``sampling_ratio`` 0) gives 0 in both modes; mmcv's maximum gives -FLT_MAX.

    Args:
        input: (N, C, H, W) feature map.
        rois: (K, 5) as image index, x1, y1, x2, y2 in pixels of the image.
        output: (K, C, aligned_height, aligned_width), overwritten.
        argmax_y, argmax_x: Shape of ``output``, the winning point on the feature map, overwritten;
            empty for the average.
        spatial_scale: Pixels of the feature map per pixel of the image.
        sampling_ratio: Points per bin and direction; 0 for as many as the bin has pixels.
        pool_mode: 0 maximum, 1 average.
        aligned: Shift the points by half a pixel, so that pixel centers are at integers.
    """
    features, rois = upcast(input, rois)
    grid = (aligned_height, aligned_width)
    options = (sampling_ratio, aligned)
    if pool_mode != MAX_POOL:
        pooled = torch.ops.torchvision.roi_align(features, rois, spatial_scale, *grid, *options)
        output.copy_(pooled)
        return
    best = features.new_full(output.shape, -torch.inf)
    best_y, best_x = (features.new_full(output.shape, _NOWHERE) for _ in range(2))
    image_index = rois[:, 0].long()
    _, x1, y1, x2, y2 = (rois * spatial_scale).unbind(1)
    start_y, bin_height, points_down = _sampling(y1, y2, aligned_height, *options)
    start_x, bin_width, points_across = _sampling(x1, x2, aligned_width, *options)
    bins_y, bins_x = (torch.arange(count, device=rois.device) for count in grid)
    # One pass per point of a bin, over all bins of all regions that have such a point: memory
    # stays at a few times the output, however large a region is.
    for iy in range(int(points_down.max()) if len(rois) else 0):
        for ix in range(int(points_across.max())):
            active = ((iy < points_down) & (ix < points_across)).nonzero()[:, 0]
            step_y = bins_y + ((iy + 0.5) / points_down[active].to(rois.dtype))[:, None]
            step_x = bins_x + ((ix + 0.5) / points_across[active].to(rois.dtype))[:, None]
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
    grad_output, rois, argmax_y, argmax_x, grad_input, aligned_height, aligned_width,
    spatial_scale, sampling_ratio, pool_mode, aligned,
) -> None:  # fmt: skip
    """Add the gradient of :func:`roi_align_forward` to ``grad_input``, shape (N, C, H, W)."""
    grad_output, rois = upcast(grad_output, rois)
    if pool_mode != MAX_POOL:
        sizes = (spatial_scale, aligned_height, aligned_width, *grad_input.shape)
        backward = torch.ops.torchvision._roi_align_backward
        grad_input.add_(backward(grad_output, rois, *sizes, sampling_ratio, aligned))
        return
    channels, height, width = grad_input.shape[1:]
    gradient = grad_output.new_zeros(grad_input.shape)
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)
    plane = plane[:, :, None, None] * (height * width)
    _, y, x = upcast(grad_output, argmax_y, argmax_x)
    for row, column, weight in _corners(y, x, height, width):
        pixel = plane + row * width + column
        gradient.view(-1).index_add_(0, pixel.reshape(-1), (grad_output * weight).reshape(-1))
    grad_input.add_(gradient)


def roi_pool_forward(
    input, rois, output, argmax, pooled_height, pooled_width, spatial_scale
) -> None:
    """Take the maximum of the feature map in each bin of each region.

    A region whose x2 or y2 lies more than a pixel before x1 or y1 gives 0 and no gradient (mmcv:
    0, and a gradient for the first pixel of the map).

    Args:
        input: (N, C, H, W) feature map.
        rois: (K, 5) as image index, x1, y1, x2, y2; x2 and y2 are the last pixels inside.
        output: (K, C, pooled_height, pooled_width), overwritten; 0 where a bin has no pixel.
        argmax: int32, shape of ``output``, row * W + column of the maximum, overwritten; -1 where
            a bin has no pixel.
        spatial_scale: Pixels of the feature map per pixel of the image.
    """
    features, rois = upcast(input, rois)
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
    grad_output, rois, argmax, grad_input, pooled_height, pooled_width, spatial_scale
) -> None:
    """Add the gradient of :func:`roi_pool_forward` to ``grad_input``, shape (N, C, H, W)."""
    sizes = (spatial_scale, pooled_height, pooled_width, *grad_input.shape)
    backward = torch.ops.torchvision._roi_pool_backward
    grad_input.add_(backward(*upcast(grad_output, rois), argmax, *sizes))


def _sampling(
    start: Tensor, end: Tensor, bins: int, sampling_ratio: int, aligned: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Along one axis, per region: its start, the size of a bin, the points in a bin."""
    size = end - start
    if not aligned:
        size = size.clamp(min=1)
    points = (size / bins).ceil().long()
    if sampling_ratio > 0:
        points = torch.full_like(points, sampling_ratio)
    return start - (0.5 if aligned else 0.0), size / bins, points


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
