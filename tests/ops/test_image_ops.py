"""Planes and colours of images: the definition, written out, and what the operators refuse."""

import numpy as np
import pytest
import torch
from helpers.atss_cases import COMPILED

from negvision.ops import distort_colours, image_planes

needs_extension = pytest.mark.skipif(not COMPILED, reason="the extension is not built")
RNG = np.random.default_rng(0)
SIZES = [(1, 1, 3), (0, 4, 3), (4, 0, 3), (5, 7, 1), (3, 31, 3), (4, 32, 3), (2, 33, 4), (9, 65, 3)]
TYPES = [torch.uint8, torch.bool, torch.float16, torch.float32, torch.int64, torch.float64]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("columns_reversed", [False, True])
@pytest.mark.parametrize("rows_reversed", [False, True])
def test_planes(path, dtype, rows_reversed, columns_reversed):
    for size in SIZES:
        whole = torch.from_numpy(RNG.integers(0, 256, (size[0] + 2, size[1] + 3, size[2])))
        image = whole.to(dtype)[1 : size[0] + 1, 2 : size[1] + 2]
        if size[2] > 3:
            image = image[..., 1:]  # channels of a wider pixel
        got = image_planes(image, rows_reversed, columns_reversed)
        want = np.array(image)[:: -1 if rows_reversed else 1, :: -1 if columns_reversed else 1]
        assert torch.equal(got, torch.from_numpy(want.transpose(2, 0, 1).copy()))
        assert got.is_contiguous() and got.dtype == dtype


def test_planes_with_a_gradient_and_of_wide_numbers(path):
    image = torch.rand(2, 3, 4, requires_grad=True)
    image_planes(image, True).mul(torch.arange(24.0).reshape(4, 2, 3)).sum().backward()
    assert image.grad[1, 2, 3] == 20
    wide = torch.rand(2, 3, 4, dtype=torch.complex128)
    assert torch.equal(image_planes(wide), wide.permute(2, 0, 1))
    assert image_planes(image.to("meta")).shape == (4, 2, 3)


def test_planes_of_another_shape(path):
    with pytest.raises(ValueError, match=r"shape \(H, W, C\), got \(4, 4\)"):
        image_planes(torch.zeros(4, 4))


def convert(values: np.ndarray, scale: float = 1, shift: float = 0) -> np.ndarray:
    return np.clip(values.astype(np.float32) * scale + shift, 0, 255).astype(np.uint8)


def to_hsv(pixel: np.ndarray) -> np.ndarray:
    """OpenCV's 8-bit HSV of one BGR pixel: hue 0 ... 179, by quotients of 12 bits."""
    b, g, r = (int(channel) for channel in pixel)
    value, low = max(b, g, r), min(b, g, r)
    span = value - low
    if value == r:
        sector = g - b
    elif value == g:
        sector = b - r + 2 * span
    else:
        sector = r - g + 4 * span
    hue = (sector * (round(30 * 4096 / span) if span else 0) + 2048) >> 12
    saturation = (span * (round(255 * 4096 / value) if value else 0) + 2048) >> 12
    return np.array([hue + 180 if hue < 0 else hue, saturation, value], np.uint8)


def to_bgr(pixel: np.ndarray, is_rounded: bool) -> np.ndarray:
    """And back: in float32, with one rounding of what is multiplied and taken off."""
    f = np.float32
    hue, saturation, value = f(pixel[0]) * f(6 / 180), f(pixel[1]) * f(1 / 255), pixel[2]
    sector = int(hue)
    rest = f(hue - f(sector))
    none, all_, falling, rising = f(0), f(1), rest, f(1) - rest
    shares = {  # of blue, green, red
        0: (all_, rising, none), 1: (all_, none, falling), 2: (rising, none, all_),
        3: (none, falling, all_), 4: (none, all_, rising), 5: (falling, all_, none),
    }[sector]  # fmt: skip
    channels = []
    for share in shares:
        left = f(1 - np.float64(saturation) * np.float64(share))
        channel = f(f(f(value) * f(1 / 255)) * left) * f(255)
        channels.append(np.rint(channel) if is_rounded else np.trunc(channel))
    return np.array(channels).astype(np.uint8)


def slowly(image: np.ndarray, steps: list, block: int) -> np.ndarray:
    """One pixel at a time."""
    image = image.copy()
    for kind, amount in steps:
        for x in range(image.shape[1]):
            is_rounded = x >= image.shape[1] // block * block
            for y in range(image.shape[0]):
                pixel = image[y, x]
                if kind == "brightness":
                    pixel = convert(pixel, shift=amount)
                elif kind == "contrast":
                    pixel = convert(pixel, scale=amount)
                else:
                    hsv = to_hsv(pixel)
                    if kind == "saturation":
                        hsv[1] = convert(hsv[1:2], scale=amount)[0]
                    else:
                        hsv[0] = (int(hsv[0]) + amount) % 180
                    pixel = to_bgr(hsv, is_rounded)
                image[y, x] = pixel
    return image


STEPS = [
    [],
    [("brightness", -31.7)],
    [("contrast", 1.5), ("brightness", 12.25)],
    [("saturation", 0.5)],
    [("hue", 179)],
    [("brightness", 9.0), ("saturation", 1.49), ("hue", 17), ("contrast", 0.6)],
    [("hue", 90), ("hue", 90), ("saturation", 1.0), ("saturation", 0.0)],
]


@needs_extension
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("block", [1, 8, 32, 1 << 40])
def test_colours_are_those_of_the_definition(steps, block):
    for size in [(1, 1), (2, 8), (1, 31), (2, 32), (1, 45), (1, 550)]:
        image = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
        image[:, ::3] //= 16  # where rounding shows
        image[:, ::5] = image[:, ::5, :1]  # grey
        want = slowly(image, steps, block)
        got = distort_colours(torch.from_numpy(image), steps, block)
        assert torch.equal(got.permute(1, 2, 0), torch.from_numpy(want))


@needs_extension
@pytest.mark.parametrize("rows_reversed", [False, True])
@pytest.mark.parametrize("columns_reversed", [False, True])
def test_mirrored_images_and_crops(rows_reversed, columns_reversed):
    whole = torch.from_numpy(RNG.integers(0, 256, (20, 700, 3), dtype=np.uint8))
    for width in (1, 40, 512, 600):
        crop = whole[3:11, 7 : 7 + width]
        flipped = crop.flip([d for d, f in enumerate((rows_reversed, columns_reversed)) if f])
        got = distort_colours(crop, STEPS[5], 32, rows_reversed, columns_reversed)
        assert torch.equal(got, distort_colours(flipped.contiguous(), STEPS[5], 32))
    nothing = distort_colours(whole[:0], STEPS[5], 32, rows_reversed, columns_reversed)
    assert nothing.shape == (3, 0, 700)


@needs_extension
def test_what_is_refused(monkeypatch):
    image = torch.zeros(4, 4, 3, dtype=torch.uint8)
    for wrong in (image.float(), image[0], image.to("meta")):
        with pytest.raises(ValueError, match=r"must be uint8 of shape \(H, W, 3\) on the CPU, got"):
            distort_colours(wrong, [("hue", 1)], 32)
    for wrong in (image[..., :2], image[:, ::2], torch.zeros(4, 4, 4).byte()):
        with pytest.raises(RuntimeError, match="three channels of uint8"):
            distort_colours(wrong, [("hue", 1)], 32)
    for turn in (-1, 180, 2.5):
        with pytest.raises(ValueError, match=rf"whole number of 0 \.\.\. 179, got {turn}"):
            distort_colours(image, [("hue", turn)], 32)
    with pytest.raises(RuntimeError, match="block must be 1 or more, got 0"):
        distort_colours(image, [], 0)
    with pytest.raises(ValueError, match="step 'gamma' must be one of brightness, contrast"):
        distort_colours(image, [("gamma", 1.0)], 32)
    with pytest.raises(RuntimeError, match=r"0 \.\.\. 179, got 180"):
        torch.ops.negvision.distort_colours(image, False, False, [3], [180.0], 32)
    with pytest.raises(RuntimeError, match="no step 4"):
        torch.ops.negvision.distort_colours(image, False, False, [4], [1.0], 32)
    with pytest.raises(RuntimeError, match="1 steps and 0 amounts"):
        torch.ops.negvision.distort_colours(image, False, False, [0], [], 32)
    monkeypatch.setattr("negvision.ops.pixels.is_compiled_for", lambda device: False)
    with pytest.raises(RuntimeError, match="distort_colours has no other way"):
        distort_colours(image, [], 32)


@needs_extension
def test_opcheck():
    image = torch.zeros(4, 5, 3, dtype=torch.uint8)
    operators = torch.ops.negvision
    torch.library.opcheck(operators.image_planes.default, (image, False, True))
    arguments = (image, True, False, [0, 3], [1.0, 2.0], 32)
    torch.library.opcheck(operators.distort_colours.default, arguments)
