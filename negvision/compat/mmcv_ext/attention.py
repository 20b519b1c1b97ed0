"""Multi-scale deformable attention (Zhu et al., "Deformable DETR", ICLR 2021, section 4.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from negvision.compat.mmcv_ext.precision import compute_dtype


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Weighted sum of the values at the sampling points of each query.

    Args:
        value: (B, S, M, D): S pixels of all levels, M heads, D channels a head.
        value_spatial_shapes: (L, 2), height and width of each level.
        value_level_start_index: (L,), first pixel of each level among the S.
        sampling_locations: (B, Q, M, L, P, 2) as x, y in [0, 1] of the level. Outside of it the
            values are 0.
        attention_weights: (B, Q, M, L, P).
        im2col_step: images per pass of mmcv's kernel; here all run in one.

    Returns:
        (B, Q, M * D) in the type of ``value``.

    The shapes of the levels are read on the host: one synchronization if they are on a GPU.
    """
    dtype = compute_dtype(value)
    output = _attend(
        value.to(dtype),
        value_spatial_shapes.tolist(),
        value_level_start_index.tolist(),
        sampling_locations.to(dtype),
        attention_weights.to(dtype),
    )
    return output.to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Add the gradients of :func:`ms_deform_attn_forward` to the last three tensors."""
    dtype = compute_dtype(value)
    inputs = [
        tensor.detach().to(dtype).requires_grad_()
        for tensor in (value, sampling_locations, attention_weights)
    ]
    with torch.enable_grad():
        output = _attend(
            inputs[0],
            value_spatial_shapes.tolist(),
            value_level_start_index.tolist(),
            *inputs[1:],
        )
    gradients = torch.autograd.grad(output, inputs, grad_output.to(dtype))
    for buffer, gradient in zip(
        (grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True
    ):
        buffer.add_(gradient)


def _attend(
    value: Tensor,
    shapes: list[list[int]],
    starts: list[int],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    batch, _, heads, channels = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    output = value.new_zeros(batch * heads, channels, queries)
    for level, ((height, width), start) in enumerate(zip(shapes, starts, strict=True)):
        pixels = value[:, start : start + height * width]
        image = pixels.permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        locations = sampling_locations[:, :, :, level].transpose(1, 2)
        grid = locations.reshape(batch * heads, queries, points, 2) * 2 - 1
        sampled = F.grid_sample(image, grid, mode="bilinear", align_corners=False)
        weights = attention_weights[:, :, :, level].transpose(1, 2)
        weights = weights.reshape(batch * heads, 1, queries, points)
        output = output + (sampled * weights).sum(dim=-1)
    return output.view(batch, heads * channels, queries).transpose(1, 2).contiguous()
