"""RoIAlign and RoIPool against loops over pixels, torchvision, and numerical gradients."""

import math

import pytest
import torch
import torchvision
from oracles.bilinear import bilinear

from negvision.compat import mmcv_ext

# Inside; over the border; smaller than a pixel; far outside; of no size; in the second image.
ROIS = [
    [0, 1.3, 2.1, 9.7, 11.2],
    [0, -6.5, -3.2, 30.4, 25.9],
    [1, 4.1, 4.2, 4.6, 4.9],
    [1, 60.0, 60.0, 70.0, 72.0],
    [0, 5.3, 6.4, 5.3, 6.4],
    [1, 0.0, 0.0, 15.0, 13.0],
]


def features_and_rois(channels=2):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, channels, 7, 8, generator=generator, dtype=torch.float64)
    return features, torch.tensor(ROIS, dtype=torch.float64)


def reference_interpolate(plane, y, x):
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    return bilinear(plane.tolist(), y, x)


def reference_roi_align(features, rois, size, scale, sampling_ratio, pool_mode, aligned):
    output = torch.zeros(len(rois), features.shape[1], *size, dtype=features.dtype)
    for k, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (value * scale - (0.5 if aligned else 0) for value in corners)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1), max(height, 1)
        points_y = sampling_ratio or math.ceil(height / size[0])
        points_x = sampling_ratio or math.ceil(width / size[1])
        for c in range(features.shape[1]):
            for row in range(size[0]):
                for column in range(size[1]):
                    values = [
                        reference_interpolate(
                            features[int(image), c],
                            y1 + height / size[0] * (row + (iy + 0.5) / points_y),
                            x1 + width / size[1] * (column + (ix + 0.5) / points_x),
                        )
                        for iy in range(points_y)
                        for ix in range(points_x)
                    ]
                    if values:
                        pooled = max(values) if pool_mode == "max" else sum(values) / len(values)
                        output[k, c, row, column] = pooled
    return output


def align(ops, features, rois, size, scale, sampling_ratio, pool_mode, aligned):
    return ops.RoIAlign(size, scale, sampling_ratio, pool_mode, aligned)(features, rois)


@pytest.mark.parametrize("pool_mode", ["avg", "max"])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_equals_reference(substituted_mmcv, pool_mode, aligned, sampling_ratio):
    features, rois = features_and_rois()
    arguments = (features, rois, (3, 2), 0.5, sampling_ratio, pool_mode, aligned)
    torch.testing.assert_close(align(substituted_mmcv, *arguments), reference_roi_align(*arguments))
    small = features[:, :1, :5, :5].clone().requires_grad_()
    options = (rois[[0, 2, 3, 5]], (2, 2), *arguments[3:])
    torch.autograd.gradcheck(lambda x: align(substituted_mmcv, x, *options), small)


def test_roi_align_backward_adds_to_the_buffer():
    features, rois = features_and_rois()
    grad_output = torch.ones(len(rois), 2, 2, 2, dtype=torch.float64)
    empty = features.new_zeros(0)
    once, twice = torch.zeros_like(features), torch.zeros_like(features)
    for buffer, calls in ((once, 1), (twice, 2)):
        for _ in range(calls):
            mmcv_ext.roi_align_backward(
                grad_output, rois, empty, empty, buffer, 2, 2, 0.5, 0, 1, True
            )
    assert once.abs().sum() > 0
    torch.testing.assert_close(twice, 2 * once)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("pool_mode", ["avg", "max"])
def test_roi_align_in_half_precision(substituted_mmcv, pool_mode, dtype):
    features, rois = features_and_rois()
    half = features.to(dtype).requires_grad_()
    pooled = substituted_mmcv.RoIAlign(3, 0.5, 2, pool_mode)(half, rois.to(dtype))
    pooled.sum().backward()
    expected = substituted_mmcv.RoIAlign(3, 0.5, 2, pool_mode)(
        half.detach().double(), rois.to(dtype).double()
    )
    assert pooled.dtype == half.grad.dtype == dtype
    torch.testing.assert_close(pooled.double(), expected, rtol=1e-2, atol=1e-2)


def reference_roi_pool(features, rois, size, scale):
    height, width = features.shape[2:]
    output = torch.zeros(len(rois), features.shape[1], *size, dtype=features.dtype)
    for k, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = x1 * scale, y1 * scale, (x2 + 1) * scale, (y2 + 1) * scale
        if x2 <= x1 or y2 <= y1:
            continue
        for row in range(size[0]):
            for column in range(size[1]):
                bin_height, bin_width = (y2 - y1) / size[0], (x2 - x1) / size[1]
                rows = range(
                    min(max(math.floor(row * bin_height + y1), 0), height),
                    min(max(math.ceil((row + 1) * bin_height + y1), 0), height),
                )
                columns = range(
                    min(max(math.floor(column * bin_width + x1), 0), width),
                    min(max(math.ceil((column + 1) * bin_width + x1), 0), width),
                )
                if len(rows) and len(columns):
                    region = features[int(image)][:, rows][:, :, columns]
                    output[k, :, row, column] = region.amax(dim=(1, 2))
    return output


def test_roi_pool_equals_reference(substituted_mmcv):
    features, rois = features_and_rois()
    malformed = rois.new_tensor([[0, 9.0, 9, 2, 12], [0, 1, 9, 8, 2]])
    rois = torch.cat([rois, malformed])
    for size, scale in (((3, 2), 0.5), ((2, 3), 0.37)):
        pooled = substituted_mmcv.roi_pool(features, rois, size, scale)
        torch.testing.assert_close(pooled, reference_roi_pool(features, rois, size, scale))


def test_roi_pool_equals_torchvision_on_integer_pixels(substituted_mmcv):
    features, _ = features_and_rois()
    rois = torch.tensor([[0, 1, 2, 6, 5], [1, 0, 0, 7, 6], [1, 3, 3, 3, 3]], dtype=torch.float64)
    torch.testing.assert_close(
        substituted_mmcv.roi_pool(features, rois, (3, 2), 1.0),
        torchvision.ops.roi_pool(features, rois, (3, 2), 1.0),
    )


def test_roi_pool_gradcheck(substituted_mmcv):
    features, rois = features_and_rois(channels=1)
    rois = torch.cat([rois, rois.new_tensor([[0, 9.0, 9, 2, 12]])])
    torch.autograd.gradcheck(
        lambda x: substituted_mmcv.roi_pool(x, rois, (2, 2), 0.5), features.requires_grad_()
    )


def test_no_rois(substituted_mmcv):
    features = torch.randn(1, 3, 5, 5, requires_grad=True)
    rois = torch.zeros(0, 5)
    for pooled in (
        substituted_mmcv.RoIAlign(2, 0.5)(features, rois),
        substituted_mmcv.RoIAlign(2, 0.5, pool_mode="max")(features, rois),
        substituted_mmcv.RoIPool(2, 0.5)(features, rois),
    ):
        assert pooled.shape == (0, 3, 2, 2)
        (gradient,) = torch.autograd.grad(pooled.sum(), features)
        assert gradient.shape == features.shape and not gradient.any()
