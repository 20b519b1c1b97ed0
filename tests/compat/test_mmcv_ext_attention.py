"""Multi-scale deformable attention against loops over pixels, and numerical gradients."""

import itertools

import pytest
import torch
from oracles.bilinear import bilinear

SHAPES = torch.tensor([[3, 4], [2, 2], [1, 3]])
STARTS = torch.tensor([0, 12, 16])


def tensors(batch=2, queries=3, heads=2, channels=3, points=2):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    # Some points lie outside of the level, where values are 0.
    locations = draw(batch, queries, heads, len(SHAPES), points, 2) * 1.6 - 0.3
    weights = draw(batch, queries, heads, len(SHAPES), points)
    return draw(batch, 19, heads, channels) - 0.5, locations, weights


def reference(value, locations, weights):
    batch, queries, heads, levels, points, _ = locations.shape
    channels = value.shape[3]
    output = value.new_zeros(batch, queries, heads, channels)
    for b, q, m, level, p in itertools.product(
        range(batch), range(queries), range(heads), range(levels), range(points)
    ):
        height, width = SHAPES[level].tolist()
        x, y = locations[b, q, m, level, p].tolist()
        start = int(STARTS[level])
        plane = value[b, start : start + height * width, m].view(height, width, channels)
        sample = bilinear(plane, y * height - 0.5, x * width - 0.5)
        output[b, q, m] += weights[b, q, m, level, p] * sample
    return output.flatten(2)


def attend(ops, value, locations, weights, im2col_step=64):
    return ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply(
        value, SHAPES, STARTS, locations, weights, im2col_step
    )


def test_equals_reference(substituted_mmcv):
    value, locations, weights = tensors()
    expected = reference(value, locations, weights)
    for im2col_step in (1, 64):
        output = attend(substituted_mmcv, value, locations, weights, im2col_step)
        torch.testing.assert_close(output, expected)


def test_gradcheck(substituted_mmcv):
    inputs = [
        tensor.requires_grad_() for tensor in tensors(batch=1, queries=2, heads=2, channels=2)
    ]
    torch.autograd.gradcheck(lambda *inputs: attend(substituted_mmcv, *inputs), inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(substituted_mmcv, dtype):
    value, locations, weights = (tensor.to(dtype).requires_grad_() for tensor in tensors())
    output = attend(substituted_mmcv, value, locations, weights)
    output.sum().backward()
    expected = reference(*(tensor.detach().double() for tensor in (value, locations, weights)))
    assert output.dtype == value.grad.dtype == dtype
    torch.testing.assert_close(output.double(), expected, rtol=2e-2, atol=2e-2)


def test_no_queries(substituted_mmcv):
    value, locations, weights = (tensor.requires_grad_() for tensor in tensors(queries=0))
    output = attend(substituted_mmcv, value, locations, weights)
    assert output.shape == (2, 0, 6)
    output.sum().backward()
    assert not value.grad.any()
