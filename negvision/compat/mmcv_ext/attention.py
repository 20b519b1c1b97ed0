"""Multi-scale deformable attention (Zhu et al., "Deformable DETR", ICLR 2021, section 4.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from negvision.compat.mmcv_ext.precision import upcast


def ms_deform_attn_forward(
    value, value_spatial_shapes, value_level_start_index, sampling_locations, attention_weights,
    im2col_step,
) -> Tensor:  # fmt: skip
    """Weighted sum of the values at the sampling points of each query.

    Reads the shapes of the levels on the host: one synchronization if they are on a GPU.

    Args:
        value: (B, S, M, D): S pixels of all levels, M heads, D channels a head.
        value_spatial_shapes: (L, 2), height and width of each level.
        value_level_start_index: (L,), first pixel of each level among the S.
        sampling_locations: (B, Q, M, L, P, 2) as x, y in [0, 1] of the level. Outside of it the
            values are 0.
        attention_weights: (B, Q, M, L, P).
        im2col_step: Images per pass of mmcv's kernel; here all run in one.

    Returns:
        (B, Q, M * D) in the type of ``value``.
    """
    inputs = upcast(value, sampling_locations, attention_weights)
    return _attend(*inputs, value_spatial_shapes, value_level_start_index).to(value.dtype)


def ms_deform_attn_backward(
    value, value_spatial_shapes, value_level_start_index, sampling_locations, attention_weights,
    grad_output, grad_value, grad_sampling_loc, grad_attn_weight, im2col_step,
) -> None:  # fmt: skip
    """Add the gradients of :func:`ms_deform_attn_forward` to the three ``grad_`` buffers."""
    *inputs, grad_output = upcast(value, sampling_locations, attention_weights, grad_output)
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    with torch.enable_grad():
        output = _attend(*inputs, value_spatial_shapes, value_level_start_index)
    gradients = torch.autograd.grad(output, inputs, grad_output)
    buffers = (grad_value, grad_sampling_loc, grad_attn_weight)
    for buffer, gradient in zip(buffers, gradients, strict=True):
        buffer.add_(gradient)


def _attend(
    value: Tensor, locations: Tensor, weights: Tensor, shapes: Tensor, starts: Tensor
) -> Tensor:
    batch, _, heads, channels = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    output = value.new_zeros(batch * heads, channels, queries)
    levels = zip(shapes.tolist(), starts.tolist(), strict=True)
    for level, ((height, width), start) in enumerate(levels):
        pixels = value[:, start : start + height * width]
        image = pixels.permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        grid = locations[:, :, :, level].transpose(1, 2)
        grid = grid.reshape(batch * heads, queries, points, 2) * 2 - 1
        sampled = F.grid_sample(image, grid, mode="bilinear", align_corners=False)
        shares = weights[:, :, :, level].transpose(1, 2)
        output = output + (sampled * shares.reshape(batch * heads, 1, queries, points)).sum(-1)
    return output.view(batch, heads * channels, queries).transpose(1, 2).contiguous()
