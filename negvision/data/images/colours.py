"""Changes of colours: brightness, contrast, saturation and hue, as NumPy and OpenCV make them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmengine.logging import print_log

from negvision.data.images.planes import as_stored, upright
from negvision.ops import distort_colours as compiled_distort_colours
from negvision.ops import extension_info
from negvision.ops.pixels import require_colour_steps

# One less than a multiple of every block there is, so that all but one column of a block remain.
_PROBED = 127


def distort_colours(image: np.ndarray, steps: Sequence[tuple[str, float]]) -> np.ndarray:
    """Change the colours of an image, step by step.

    The result is that of NumPy in float32, cut to uint8, for brightness and contrast, and of OpenCV
    for saturation and hue, bit for bit. One compiled pass makes it where that gives OpenCV's bits
    on this processor, which is tried once; OpenCV makes it elsewhere.

    Args:
        image: (H, W, 3), uint8, BGR; a mirrored view costs nothing.
        steps: As of :func:`negvision.ops.distort_colours`.

    Returns:
        A new image, maybe a view of three planes, which the end of a pipeline is quickest with and
        functions of OpenCV do not draw into; ``image`` itself where there are no steps.

    Raises:
        ValueError: An unknown step, or a turn of the hue that is not 0 ... 179.

    Example:
        >>> image = np.full((1, 1, 3), 100, np.uint8)
        >>> distort_colours(image, [("brightness", 7.9), ("contrast", 0.5)]).tolist()
        [[[53, 53, 53]]]
    """
    if not steps:
        return image
    steps = require_colour_steps(steps)
    stored, rows_reversed, columns_reversed = as_stored(image)
    is_packed = stored.strides[1:] == (3, 1) and stored.flags.writeable
    block = _columns_at_once() if is_packed else None
    if block is None:
        return by_opencv(image, steps)
    planes = compiled_distort_colours(
        torch.from_numpy(stored), steps, block, rows_reversed, columns_reversed
    )
    return planes.permute(1, 2, 0).numpy()


def by_opencv(image: np.ndarray, steps: Sequence[tuple[str, float]]) -> np.ndarray:
    """The same by OpenCV, with tables of what becomes of each of the 256 values."""
    image = upright(image)
    for kind, amount in steps:
        if kind == "brightness":
            image = cv2.LUT(image, _table(shift=amount))
        elif kind == "contrast":
            image = cv2.LUT(image, _table(scale=amount))
        else:
            hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
            turned = ((np.arange(256) + amount) % 180).astype(np.uint8)
            channel, table = (1, _table(scale=amount)) if kind == "saturation" else (0, turned)
            cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), table), hsv, channel)
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    return image


def _table(scale: float = 1, shift: float = 0) -> np.ndarray:
    values = np.arange(256, dtype=np.float32) * scale + shift
    return np.clip(values, 0, 255).astype(np.uint8)


@functools.cache
def _columns_at_once() -> int | None:
    """Of OpenCV on this processor; None where the compiled pass does not give its bits."""
    if not extension_info()["loaded"]:
        return None
    # The darkest colour that is not grey: with the fraction cut off its blue is 0, rounded it is 1.
    row = np.tile(np.array([0, 1, 1], np.uint8), (1, _PROBED, 1))
    rounded = int(np.count_nonzero(cv2.cvtColor(row, cv2.COLOR_HSV2BGR)[..., 0]))
    block = rounded + 1 if rounded < _PROBED else 1 << 40
    image = np.random.default_rng(0).integers(0, 256, (32, 2 * _PROBED, 3), np.uint8)
    image[16:] //= 32  # where rounding shows
    steps = [("saturation", 1.25), ("hue", 7), ("saturation", 0.75)]
    got = compiled_distort_colours(torch.from_numpy(image), steps, block).permute(1, 2, 0)
    if np.array_equal(got.numpy(), by_opencv(image, steps)):
        return block
    print_log(
        f"OpenCV {cv2.__version__} converts colours in another way on this processor than "
        "negvision knows of: it is asked to, and distorting colours takes longer.",
        logger="current",
        level=logging.WARNING,
    )
    return None
