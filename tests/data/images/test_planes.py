"""Images of any layout become planes with the same bytes."""

import numpy as np
import pytest
import torch

from negvision.data.images.planes import to_planes

RNG = np.random.default_rng(0)
SIZES = [(1, 1), (1, 7), (5, 1), (2, 3), (31, 17), (64, 48), (113, 211)]
VIEWS = {
    "plain": lambda image: image,
    "horizontal": lambda image: image[:, ::-1],
    "vertical": lambda image: image[::-1],
    "diagonal": lambda image: image[::-1, ::-1],
    "cropped": lambda image: image[image.shape[0] // 3 :, : -(image.shape[1] // 4) or None],
    "cropped and mirrored": lambda image: image[image.shape[0] // 3 :, ::-1],
    "every other column": lambda image: image[:, ::2],
    "RGB": lambda image: image[..., ::-1],
    "columns first": lambda image: image.transpose(1, 0, 2),
    "chosen channels": lambda image: image[..., np.arange(image.shape[2])[::-1]],
}


def slow(image: np.ndarray) -> torch.Tensor:
    """The definition."""
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("channels", [1, 3, 4, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64, np.uint16, bool])
def test_equals_the_definition(view, channels, dtype):
    for size in SIZES:
        image = VIEWS[view](RNG.integers(0, 256, (*size, channels)).astype(dtype))
        got, want = to_planes(image), slow(image)
        assert got.dtype == want.dtype and torch.equal(got, want)
        assert got.stride() == want.stride() and got.is_contiguous()


def test_one_channel_without_a_dimension():
    image = RNG.integers(0, 256, (5, 4), dtype=np.uint8)
    assert torch.equal(to_planes(image[:, ::-1]), torch.from_numpy(image[:, ::-1].copy())[None])


@pytest.mark.parametrize("size", [(0, 4), (4, 0)])
def test_empty_images(size):
    assert to_planes(np.zeros((*size, 3), np.uint8)).shape == (3, *size)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_the_image_is_not_changed(dtype):
    image = RNG.integers(0, 256, (6, 8, 3)).astype(dtype)
    before = image.copy()
    for writeable in (True, False):  # as of np.frombuffer
        image.flags.writeable = writeable
        for view in VIEWS.values():
            to_planes(view(image)).fill_(0)
        np.testing.assert_array_equal(image, before)


def test_views_of_planes_are_not_copied():
    planes = RNG.integers(0, 256, (3, 6, 8), dtype=np.uint8)
    got = to_planes(planes.transpose(1, 2, 0))
    assert got.data_ptr() == planes.ctypes.data
    planes.flags.writeable = False
    assert to_planes(planes.transpose(1, 2, 0)).data_ptr() != planes.ctypes.data
