"""Planes and colors of images against their definitions."""

import cv2
import numpy as np
import pytest
import torch
from helpers.atss_cases import COMPILED
from oracles import colors

from negvision.ops import distort_colors, image_planes

needs_extension = pytest.mark.skipif(not COMPILED, reason="the extension is not built")
RNG = np.random.default_rng(0)
SIZES = [(1, 1, 3), (0, 4, 3), (4, 0, 3), (5, 7, 1), (3, 31, 3), (4, 32, 3), (2, 33, 4), (9, 65, 3)]
TYPES = [torch.uint8, torch.bool, torch.float16, torch.float32, torch.int64, torch.float64]
STEPS = [
    [],
    [("brightness", -31.7)],
    [("contrast", 1.5), ("brightness", 12.5)],
    [("saturation", 0.5)],
    [("hue", 179), ("hue", -90)],
    [("brightness", 9.0), ("saturation", 1.49), ("hue", 17), ("contrast", 0.6)],
    [("saturation", 1.0), ("saturation", 0.0)],
]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("columns_reversed", [False, True])
@pytest.mark.parametrize("rows_reversed", [False, True])
def test_planes(path, dtype, rows_reversed, columns_reversed):
    for size in SIZES:
        wide = torch.from_numpy(RNG.integers(0, 256, (size[0] + 2, size[1] + 3, size[2])))
        image = wide.to(dtype)[1 : size[0] + 1, 2 : size[1] + 2]
        if size[2] > 3:
            image = image[..., 1:]  # some channels of a wider pixel
        got = image_planes(image, rows_reversed, columns_reversed)
        want = np.array(image)[:: -1 if rows_reversed else 1, :: -1 if columns_reversed else 1]
        assert torch.equal(got, torch.from_numpy(want.transpose(2, 0, 1).copy()))
        assert got.is_contiguous() and got.dtype == dtype


def test_planes_with_a_gradient_of_wide_numbers_and_of_a_wrong_shape(path):
    image = torch.rand(2, 3, 4, requires_grad=True)
    image_planes(image, True).mul(torch.arange(24.0).reshape(4, 2, 3)).sum().backward()
    assert image.grad[1, 2, 3] == 20
    wide = torch.rand(2, 3, 4, dtype=torch.complex128)
    assert torch.equal(image_planes(wide), wide.permute(2, 0, 1))
    assert image_planes(image.to("meta")).shape == (4, 2, 3)
    with pytest.raises(ValueError, match=r"shape \(H, W, C\), got \(4, 4\)"):
        image_planes(torch.zeros(4, 4))


@pytest.mark.parametrize("steps", STEPS)
def test_colors_match_the_oracle(path, steps):
    for size in [(1, 1), (2, 8), (1, 31), (1, 45), (1, 550)]:
        image = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
        image[:, ::3] //= 16  # dark colors, where rounding shows
        image[:, ::5] = image[:, ::5, :1]  # gray
        got = distort_colors(torch.from_numpy(image), steps)
        assert torch.equal(got.permute(1, 2, 0), torch.from_numpy(colors.distort(image, steps)))


def test_halves_round_up(path):
    image = torch.tensor([[[1, 3, 200]]], dtype=torch.uint8)
    assert distort_colors(image, [("contrast", 0.5)]).flatten().tolist() == [1, 2, 100]
    assert distort_colors(image, [("brightness", -0.5)]).flatten().tolist() == [1, 3, 200]


def by_opencv(image: np.ndarray, kind: str, amount: float) -> np.ndarray:
    """One step of mmseg's ``PhotoMetricDistortion``, which truncates."""

    def convert(values: np.ndarray, scale: float = 1, shift: float = 0) -> np.ndarray:
        return np.clip(values.astype(np.float32) * scale + shift, 0, 255).astype(np.uint8)

    if kind == "brightness":
        return convert(image, shift=amount)
    if kind == "contrast":
        return convert(image, scale=amount)
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    if kind == "saturation":
        hsv[..., 1] = convert(hsv[..., 1], scale=amount)
    else:
        hsv[..., 0] = (hsv[..., 0].astype(int) + int(amount)) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


@needs_extension
@pytest.mark.parametrize(
    "step",
    [("brightness", -20.6), ("contrast", 1.37), ("saturation", 1.31), ("saturation", 0.5),
     ("hue", 77), ("hue", -18)],
)  # fmt: skip
def test_each_step_is_within_one_gray_level_of_mmseg(step):
    """All values of green and red beside every eighth of blue."""
    green, red = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    image = np.empty((256, 256, 3), np.uint8)
    image[..., 1], image[..., 2] = green, red
    for blue in [*range(0, 256, 8), 255]:
        image[..., 0] = blue
        got = distort_colors(torch.from_numpy(image), [step]).permute(1, 2, 0).numpy()
        assert np.abs(got.astype(int) - by_opencv(image, *step)).max() <= 1


@pytest.mark.parametrize("rows_reversed", [False, True])
@pytest.mark.parametrize("columns_reversed", [False, True])
def test_colors_of_mirrored_images_and_crops(path, rows_reversed, columns_reversed):
    wide = torch.from_numpy(RNG.integers(0, 256, (20, 700, 3), dtype=np.uint8))
    before = wide.clone()
    for width in (1, 40, 512, 600):
        crop = wide[3:11, 7 : 7 + width]
        flipped = crop.flip([d for d, f in enumerate((rows_reversed, columns_reversed)) if f])
        got = distort_colors(crop, STEPS[5], rows_reversed, columns_reversed)
        assert torch.equal(got, distort_colors(flipped.contiguous(), STEPS[5]))
    nothing = distort_colors(wide[:0], STEPS[5], rows_reversed, columns_reversed)
    assert nothing.shape == (3, 0, 700)
    assert torch.equal(wide, before)


def test_wrong_arguments(path):
    image = torch.zeros(4, 4, 3, dtype=torch.uint8)
    for wrong in (image.float(), image[0], image.to("meta"), image[..., :2]):
        with pytest.raises(ValueError, match=r"must be uint8 of shape \(H, W, 3\) on the CPU, got"):
            distort_colors(wrong, [("hue", 1)])
    with pytest.raises(ValueError, match="must be packed, got strides"):
        distort_colors(image[:, ::2], [("hue", 1)])
    with pytest.raises(ValueError, match=r"hue turns by an integer, got 2\.5"):
        distort_colors(image, [("hue", 2.5)])
    with pytest.raises(ValueError, match="step 'gamma' must be one of brightness, contrast"):
        distort_colors(image, [("gamma", 1.0)])


@needs_extension
def test_the_operators_check_their_arguments():
    image, distort = torch.zeros(4, 5, 3, dtype=torch.uint8), torch.ops.negvision.distort_colors
    for arguments, message in [
        (([3], [180.0]), r"0 \.\.\. 179, got 180"),
        (([4], [1.0]), "unknown step 4"),
        (([0], []), "1 steps and 0 amounts"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            distort(image, False, False, *arguments)
    with pytest.raises(RuntimeError, match="packed uint8 with three channels"):
        distort(image[:, ::2], False, False, [], [])
    torch.library.opcheck(torch.ops.negvision.image_planes.default, (image, False, True))
    torch.library.opcheck(distort.default, (image, True, False, [0, 3], [1.0, 2.0]))
