"""Deformable convolution, plain (Dai et al., ICCV 2017) and modulated (Zhu et al., CVPR 2019).

mmcv and torchvision lay out offsets alike: for each offset group and kernel element, y before x.
``im2col_step`` and the scratch buffers (``columns``, ``ones``) belong to mmcv's kernels and are not
used. mmcv asks for the gradients of the input and of the weight in two calls; each of them runs
torchvision's kernel, which computes both.
"""

import torch
from torch import Tensor

from negvision.compat.mmcv_ext.precision import upcast


def deform_conv_forward(
    input, weight, offset, output, columns, ones, kW, kH, dW, dH, padW, padH,
    dilationW, dilationH, group, deformable_group, im2col_step,
) -> None:  # fmt: skip
    """Overwrite ``output`` (N, C_out, H_out, W_out) with the convolution of ``input``.

    ``offset`` is (N, 2 * deformable_group * kH * kW, H_out, W_out), ``weight`` is
    (C_out, C_in / group, kH, kW); ``dW`` and ``dH`` are the strides.
    """
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    output.copy_(_forward(input, weight, offset, None, None, geometry))


def deform_conv_backward_input(
    input, offset, gradOutput, gradInput, gradOffset, weight, columns, kW, kH, dW, dH, padW, padH,
    dilationW, dilationH, group, deformable_group, im2col_step,
) -> None:  # fmt: skip
    """Add the gradients by ``input`` and ``offset`` to ``gradInput`` and ``gradOffset``."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    by_input, _, by_offset, *_ = _backward(gradOutput, input, weight, offset, None, None, geometry)
    gradInput.add_(by_input)
    gradOffset.add_(by_offset)


def deform_conv_backward_parameters(
    input, offset, gradOutput, gradWeight, columns, ones, kW, kH, dW, dH, padW, padH,
    dilationW, dilationH, group, deformable_group, scale, im2col_step,
) -> None:  # fmt: skip
    """Add ``scale`` times the gradient by the weight to ``gradWeight``."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    # The values of the weight do not enter its own gradient, only its shape does.
    weight = torch.zeros_like(gradWeight)
    _, by_weight, *_ = _backward(gradOutput, input, weight, offset, None, None, geometry)
    gradWeight.add_(by_weight, alpha=scale)


def modulated_deform_conv_forward(
    input, weight, bias, ones, offset, mask, output, columns, kernel_h, kernel_w,
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group, with_bias,
) -> None:  # fmt: skip
    """Like :func:`deform_conv_forward`, with ``mask`` (N, deformable_group * kH * kW, H_out,
    W_out) multiplied into the samples, and ``bias`` (C_out,) added if ``with_bias``.
    """
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    output.copy_(_forward(input, weight, offset, mask, bias if with_bias else None, geometry))


def modulated_deform_conv_backward(
    input, weight, bias, ones, offset, mask, columns, grad_input, grad_weight, grad_bias,
    grad_offset, grad_mask, grad_output, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w,
    dilation_h, dilation_w, group, deformable_group, with_bias,
) -> None:  # fmt: skip
    """Add the gradient by each ``x`` to ``grad_x``; ``grad_bias`` only if ``with_bias``."""
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    bias = bias if with_bias else None
    gradients = _backward(grad_output, input, weight, offset, mask, bias, geometry)
    buffers = (grad_input, grad_weight, grad_offset, grad_mask, grad_bias)
    for buffer, gradient in zip(buffers[: 4 + with_bias], gradients, strict=False):
        buffer.add_(gradient)


def _tensors(input, weight, offset, mask, bias) -> list[Tensor]:
    """The tensors as torchvision's kernels want them: one type, nothing missing."""
    mask = mask if mask is not None else input.new_zeros(input.shape[0], 1)
    bias = bias if bias is not None else input.new_zeros(weight.shape[0])
    return upcast(input, weight, offset, mask, bias)


def _forward(input, weight, offset, mask, bias, geometry) -> Tensor:
    tensors = _tensors(input, weight, offset, mask, bias)
    return torch.ops.torchvision.deform_conv2d(*tensors, *geometry, mask is not None)


def _backward(grad_output, input, weight, offset, mask, bias, geometry) -> tuple[Tensor, ...]:
    """Gradients by input, weight, offset, mask and bias."""
    _, grad_output = upcast(input, grad_output)
    tensors = _tensors(input, weight, offset, mask, bias)
    backward = torch.ops.torchvision._deform_conv2d_backward
    return backward(grad_output, *tensors, *geometry, mask is not None)
