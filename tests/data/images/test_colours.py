"""Colours change as OpenCV and NumPy change them, whichever of the two ways is taken."""

import cv2
import numpy as np
import pytest

from negvision.data.images import colours
from negvision.data.images.colours import by_opencv, distort_colours
from negvision.ops import extension_info

RNG = np.random.default_rng(0)
needs_extension = pytest.mark.skipif(
    not extension_info()["loaded"], reason="the extension is not built"
)


@pytest.fixture(params=["compiled", "by OpenCV"])
def way(request, monkeypatch):
    if request.param == "by OpenCV":
        monkeypatch.setattr(colours, "_columns_at_once", lambda: None)
    elif colours._columns_at_once() is None:
        pytest.skip("not built, or OpenCV is another one here")


@needs_extension
@pytest.mark.parametrize("step", [("saturation", 1.31), ("saturation", 0.5), ("hue", 77)])
def test_every_colour(step):
    """All 16,777,216, many on the edge of what the arithmetic of 8 bits tells apart."""
    if colours._columns_at_once() is None:
        pytest.skip("OpenCV is another one here")
    green, red = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    image = np.empty((256, 256, 3), np.uint8)
    image[..., 1], image[..., 2] = green, red
    for blue in range(256):
        image[..., 0] = blue
        assert np.array_equal(distort_colours(image, [step]), by_opencv(image, [step]))


@pytest.mark.parametrize("mirrored", [False, True])
def test_every_width(way, mirrored):
    """Columns at the end of a row are rounded in another way."""
    steps = [("contrast", 1.2), ("saturation", 0.9), ("hue", 170), ("brightness", -20.5)]
    for width in [*range(1, 70), 127, 128, 129, 511, 512, 513, 1100]:
        image = RNG.integers(0, 256, (3, width, 3), dtype=np.uint8)
        image[1:] //= 32
        if mirrored:
            image = image[::-1, ::-1]
        want = image.copy()
        want = np.clip(want.astype(np.float32) * 1.2, 0, 255).astype(np.uint8)
        hsv = cv2.cvtColor(want, cv2.COLOR_BGR2HSV)
        hsv[..., 1] = np.clip(hsv[..., 1].astype(np.float32) * 0.9, 0, 255)
        hsv = cv2.cvtColor(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), cv2.COLOR_BGR2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + 170) % 180
        want = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
        want = np.clip(want.astype(np.float32) - 20.5, 0, 255).astype(np.uint8)
        assert np.array_equal(distort_colours(image, steps), want)


def test_the_image_is_not_changed(way):
    image = RNG.integers(0, 256, (8, 40, 3), dtype=np.uint8)
    before = image.copy()
    for steps in ([("brightness", 3.0)], [("hue", 3)]):
        distort_colours(image, steps)[:] = 0
    assert np.array_equal(image, before)
    assert distort_colours(image, []) is image


@pytest.mark.parametrize(
    "view",
    [
        lambda image: image[..., ::-1],
        lambda image: image[:, ::2],
        lambda image: image.transpose(2, 0, 1).copy().transpose(1, 2, 0),
        lambda image: np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape),
    ],
)
def test_layouts_that_the_compiled_pass_does_not_take(way, view):
    image = view(RNG.integers(0, 256, (8, 40, 3), dtype=np.uint8))
    steps = [("saturation", 0.7), ("brightness", 5.5)]
    want = distort_colours(np.ascontiguousarray(image).copy(), steps)
    assert np.array_equal(distort_colours(image, steps), want)


def test_steps_that_are_none(way):
    image = RNG.integers(0, 256, (4, 40, 3), dtype=np.uint8)
    for wrong in (image, image[..., ::-1]):
        with pytest.raises(ValueError, match="step 'gamma' must be one of brightness"):
            distort_colours(wrong, [("gamma", 5)])
        for turn in (-5, 180, 0.5):
            with pytest.raises(ValueError, match=rf"whole number of 0 \.\.\. 179, got {turn}"):
                distort_colours(wrong, [("hue", turn)])


def test_amounts_of_numpy_are_those_of_python(way):
    image = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, 2)
    for amount in np.random.default_rng(1).uniform(0.5, 1.5, 300):
        got = distort_colours(image, [("contrast", amount)])
        assert np.array_equal(got, distort_colours(image, [("contrast", float(amount))]))
        want = np.clip(image.astype(np.float32) * float(amount), 0, 255).astype(np.uint8)
        assert np.array_equal(got, want)


def test_another_opencv_is_noticed_and_asked(monkeypatch):
    """One that rounds throughout."""
    convert = cv2.cvtColor

    def by_single_pixels(image, code):
        return convert(image.reshape(-1, 1, 3), code).reshape(image.shape)

    image = RNG.integers(0, 8, (8, 64, 3), dtype=np.uint8)
    colours._columns_at_once.cache_clear()
    monkeypatch.setattr(cv2, "cvtColor", by_single_pixels)
    try:
        # Without blocks it is one that is known.
        got = distort_colours(image, [("saturation", 1.2)])
        assert np.array_equal(got, by_opencv(image, [("saturation", 1.2)]))
        if extension_info()["loaded"]:
            assert colours._columns_at_once() > 1_000_000
        colours._columns_at_once.cache_clear()
        monkeypatch.setattr(cv2, "cvtColor", lambda image, code: by_single_pixels(image, code) // 2)
        messages = []
        monkeypatch.setattr(colours, "print_log", lambda text, **_: messages.append(text))
        got = distort_colours(image, [("saturation", 1.2)])
        assert np.array_equal(got, by_opencv(image, [("saturation", 1.2)]))
        assert len(messages) == extension_info()["loaded"]
        assert all("in another way on this processor" in text for text in messages)
    finally:
        colours._columns_at_once.cache_clear()
