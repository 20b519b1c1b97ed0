"""Deformable convolution, plain (Dai et al., ICCV 2017) and modulated (Zhu et al., CVPR 2019).

mmcv and torchvision lay out offsets alike: for each offset group and kernel element, y before x.
``im2col_step`` and the scratch buffers (``columns``, ``ones``) steer the memory of mmcv's
kernels, torchvision's have their own; they are accepted and not used.
"""

import threading
import weakref
from typing import NamedTuple

import torch
from torch import Tensor

from negvision.compat.mmcv_ext.precision import compute_dtype


class _Geometry(NamedTuple):
    """The integers of torchvision's kernels, in their order."""

    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int
    groups: int
    offset_groups: int


class _Gradients(NamedTuple):
    """What torchvision's backward kernel returns, in its order."""

    input: Tensor
    weight: Tensor
    offset: Tensor
    mask: Tensor
    bias: Tensor


# mmcv asks for the gradients of the input and of the weight in two calls, torchvision computes
# both in one: the first call leaves the second one's share here.
_left_by_input_call = threading.local()


def deform_conv_forward(
    input, weight, offset, output, columns, ones, kW, kH, dW, dH, padW, padH,
    dilationW, dilationH, group, deformable_group, im2col_step,
) -> None:  # fmt: skip
    """Overwrite ``output`` (N, C_out, H_out, W_out) with the convolution of ``input``.

    ``offset`` is (N, 2 * deformable_group * kH * kW, H_out, W_out), ``weight`` is
    (C_out, C_in / group, kH, kW); ``dW`` and ``dH`` are the strides.
    """
    geometry = _Geometry(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    _forward(input, weight, offset, None, None, output, geometry)


def deform_conv_backward_input(
    input, offset, gradOutput, gradInput, gradOffset, weight, columns, kW, kH, dW, dH, padW, padH,
    dilationW, dilationH, group, deformable_group, im2col_step,
) -> None:  # fmt: skip
    """Add the gradients by ``input`` and ``offset`` to ``gradInput`` and ``gradOffset``."""
    geometry = _Geometry(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    gradients = _backward(gradOutput, input, weight, offset, None, None, geometry)
    gradInput.add_(gradients.input)
    gradOffset.add_(gradients.offset)
    tensors = tuple(weakref.ref(tensor) for tensor in (input, offset, gradOutput))
    _left_by_input_call.entry = (tensors, geometry, gradients.weight)


def deform_conv_backward_parameters(
    input, offset, gradOutput, gradWeight, columns, ones, kW, kH, dW, dH, padW, padH,
    dilationW, dilationH, group, deformable_group, scale, im2col_step,
) -> None:  # fmt: skip
    """Add ``scale`` times the gradient by the weight to ``gradWeight``."""
    geometry = _Geometry(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    gradient = _take_weight_gradient((input, offset, gradOutput), geometry, gradWeight.shape)
    if gradient is None:
        # The values of the weight do not enter its own gradient, only its shape does.
        weight = torch.zeros_like(gradWeight)
        gradient = _backward(gradOutput, input, weight, offset, None, None, geometry).weight
    gradWeight.add_(gradient, alpha=scale)


def modulated_deform_conv_forward(
    input, weight, bias, ones, offset, mask, output, columns, kernel_h, kernel_w,
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group, with_bias,
) -> None:  # fmt: skip
    """Like :func:`deform_conv_forward`, with ``mask`` (N, deformable_group * kH * kW, H_out,
    W_out) multiplied into the samples, and ``bias`` (C_out,) added if ``with_bias``.
    """
    geometry = _Geometry(
        stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group
    )
    _forward(input, weight, offset, mask, bias if with_bias else None, output, geometry)


def modulated_deform_conv_backward(
    input, weight, bias, ones, offset, mask, columns, grad_input, grad_weight, grad_bias,
    grad_offset, grad_mask, grad_output, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w,
    dilation_h, dilation_w, group, deformable_group, with_bias,
) -> None:  # fmt: skip
    """Add the gradient by each ``x`` to ``grad_x``; ``grad_bias`` only if ``with_bias``."""
    geometry = _Geometry(
        stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group
    )
    gradients = _backward(
        grad_output, input, weight, offset, mask, bias if with_bias else None, geometry
    )
    grad_input.add_(gradients.input)
    grad_weight.add_(gradients.weight)
    grad_offset.add_(gradients.offset)
    grad_mask.add_(gradients.mask)
    if with_bias:
        grad_bias.add_(gradients.bias)


def _tensors(input, weight, offset, mask, bias) -> tuple[Tensor, ...]:
    """The tensors as torchvision's kernels want them: one type, nothing missing."""
    dtype = compute_dtype(input)
    mask = mask if mask is not None else input.new_zeros(input.shape[0], 1)
    bias = bias if bias is not None else input.new_zeros(weight.shape[0])
    return tuple(tensor.to(dtype) for tensor in (input, weight, offset, mask, bias))


def _forward(input, weight, offset, mask, bias, output, geometry: _Geometry) -> None:
    output.copy_(
        torch.ops.torchvision.deform_conv2d(
            *_tensors(input, weight, offset, mask, bias), *geometry, mask is not None
        )
    )


def _backward(grad_output, input, weight, offset, mask, bias, geometry: _Geometry) -> _Gradients:
    return _Gradients(
        *torch.ops.torchvision._deform_conv2d_backward(
            grad_output.to(compute_dtype(input)),
            *_tensors(input, weight, offset, mask, bias),
            *geometry,
            mask is not None,
        )
    )


def _take_weight_gradient(tensors, geometry: _Geometry, shape: torch.Size) -> Tensor | None:
    """The gradient left by :func:`deform_conv_backward_input`, if it was for these tensors."""
    left = _left_by_input_call.__dict__.pop("entry", None)
    if left is None:
        return None
    references, left_geometry, gradient = left
    same = all(reference() is tensor for reference, tensor in zip(references, tensors, strict=True))
    return gradient if same and left_geometry == geometry and gradient.shape == shape else None
