"""Deformable convolutions against loops over pixels, torchvision, and numerical gradients."""

import itertools

import pytest
import torch
from oracles.bilinear import bilinear

from negvision.compat import mmcv_ext

# stride, padding, dilation, groups, offset groups; all differ between height and width
CASES = [
    ((1, 1), (1, 1), (1, 1), 1, 1),
    ((2, 1), (1, 2), (1, 2), 2, 1),
    ((1, 2), (0, 1), (2, 1), 1, 2),
    ((1, 1), (1, 0), (1, 1), 2, 4),
]
KERNEL = (2, 3)


def case_tensors(case, batch=2, size=(5, 6)):
    """Input, offset, mask, weight and bias; samples lie well away from whole pixels."""
    stride, padding, dilation, groups, offset_groups = case
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    out = [
        (size[d] + 2 * padding[d] - dilation[d] * (KERNEL[d] - 1) - 1) // stride[d] + 1
        for d in range(2)
    ]
    elements = offset_groups * KERNEL[0] * KERNEL[1]
    offset = draw(batch, 2 * elements, *out).mul(1.5)
    offset = offset.floor() + 0.2 + 0.6 * (offset - offset.floor())
    return (
        draw(batch, 4, *size),
        offset,
        draw(batch, elements, *out).sigmoid(),
        draw(6, 4 // groups, *KERNEL),
        draw(6),
    )


def reference(input, offset, mask, weight, bias, case):
    stride, padding, dilation, groups, offset_groups = case
    out_channels, group_channels, kernel_h, kernel_w = weight.shape
    output = input.new_zeros(len(input), out_channels, *offset.shape[2:])
    columns = input.new_zeros(input.shape[1], kernel_h, kernel_w, *offset.shape[2:])
    for n in range(len(input)):
        for c, i, j, row, column in itertools.product(*map(range, columns.shape)):
            group = c // (input.shape[1] // offset_groups)
            element = (group * kernel_h + i) * kernel_w + j
            dy, dx = offset[n, 2 * element : 2 * element + 2, row, column].tolist()
            y = row * stride[0] - padding[0] + i * dilation[0] + dy
            x = column * stride[1] - padding[1] + j * dilation[1] + dx
            columns[c, i, j, row, column] = bilinear(input[n, c].tolist(), y, x)
            if mask is not None:
                columns[c, i, j, row, column] *= mask[n, element, row, column]
        for o in range(out_channels):
            first = o // (out_channels // groups) * group_channels
            seen = columns[first : first + group_channels]
            output[n, o] = (seen * weight[o][..., None, None]).sum(dim=(0, 1, 2))
            output[n, o] += 0 if bias is None else bias[o]
    return output


def deform(ops, case):
    return lambda x, offset, weight: ops.deform_conv2d(x, offset, weight, *case)


@pytest.mark.parametrize("case", CASES)
def test_deform_conv_equals_reference(substituted_mmcv, case):
    x, offset, _, weight, _ = case_tensors(case)
    output = deform(substituted_mmcv, case)(x, offset, weight)
    torch.testing.assert_close(output, reference(x, offset, None, weight, None, case))


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_modulated_deform_conv_equals_reference(substituted_mmcv, case, with_bias):
    x, offset, mask, weight, bias = case_tensors(case)
    bias = bias if with_bias else None
    output = substituted_mmcv.modulated_deform_conv2d(x, offset, mask, weight, bias, *case)
    torch.testing.assert_close(output, reference(x, offset, mask, weight, bias, case))


@pytest.mark.parametrize("needed", [(0,), (2,), (1, 2)])
def test_deform_conv_gradcheck_of_some_inputs(substituted_mmcv, needed):
    x, offset, _, weight, _ = case_tensors(CASES[2], batch=1, size=(3, 4))
    inputs = [x, offset, weight]
    for index in needed:
        inputs[index].requires_grad_()
    torch.autograd.gradcheck(deform(substituted_mmcv, CASES[2]), inputs)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("case", CASES[1:3])
def test_modulated_deform_conv_gradcheck(substituted_mmcv, case, with_bias):
    tensors = [tensor.requires_grad_() for tensor in case_tensors(case, batch=1, size=(3, 4))]
    if not with_bias:
        tensors.pop()

    def convolve(x, offset, mask, weight, bias=None):
        return substituted_mmcv.modulated_deform_conv2d(x, offset, mask, weight, bias, *case)

    torch.autograd.gradcheck(convolve, tensors)


def test_scale_and_accumulation_of_the_weight_gradient():
    x, offset, _, weight, _ = case_tensors(CASES[0])
    grad_output = torch.randn(2, 6, *offset.shape[2:], dtype=torch.float64)
    once, thrice = torch.zeros_like(weight), torch.zeros_like(weight)
    geometry = (KERNEL[1], KERNEL[0], 1, 1, 1, 1, 1, 1, 1, 1)
    for buffer, scales in ((once, [1]), (thrice, [0.5, 2.5])):
        for scale in scales:
            mmcv_ext.deform_conv_backward_parameters(
                x, offset, grad_output, buffer, x, x, *geometry, scale, 1
            )
    torch.testing.assert_close(thrice, 3 * once)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(substituted_mmcv, dtype):
    x, offset, mask, weight, bias = (
        tensor.to(dtype).requires_grad_() for tensor in case_tensors(CASES[1])
    )
    output = substituted_mmcv.modulated_deform_conv2d(x, offset, mask, weight, bias, *CASES[1])
    output.sum().backward()
    expected = reference(
        *(tensor.detach().double() for tensor in (x, offset, mask, weight, bias)), CASES[1]
    )
    assert output.dtype == x.grad.dtype == offset.grad.dtype == dtype
    torch.testing.assert_close(output.double(), expected, rtol=2e-2, atol=5e-2)
