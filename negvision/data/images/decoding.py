"""Decode an image: the one place for training, evaluation, drawing, export and prediction.

Decoders differ in what they do about EXIF orientations and about more than 8 bits, so they return
the pixels as stored, and the rest is done here.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from negvision.data.images.header import MAX_PIXELS, Header, with_tag_upright
from negvision.data.images.integrity import require_complete
from negvision.errors import DatasetError, WarnOnce

# Takes an image, its channels ("color", "grayscale" or "unchanged") and its header, and returns
# the pixels as stored, BGR; None or any error if it cannot.
Decoder = Callable[[bytes, str, Header], np.ndarray | None]
# Ending of a color type that leaves pixels as they are stored.
AS_STORED = "_ignore_orientation"
_FLAGS = {
    "color": cv2.IMREAD_COLOR,
    "grayscale": cv2.IMREAD_GRAYSCALE,
    "unchanged": cv2.IMREAD_UNCHANGED,
}
# Formats whose values OpenCV returns in full on request; of others it returns the upper 8 bits.
DEEP = ("PNG", "TIFF", "PPM")
# Of 16 bits: the values of cameras with 10, 12 or 14 bits are less.
DARK = 1 << 14
_dark = WarnOnce()


def decode_image(
    data: bytes,
    name: str,
    color_type: str = "color",
    max_pixels: int = MAX_PIXELS,
    decoder: Decoder | None = None,
) -> np.ndarray:
    """Decode a complete image of at most ``max_pixels``, which its header is checked for first.

    The image is turned and mirrored as its EXIF orientation says. Of 16 bits the upper 8 are
    returned; a warning says so, once, if a camera filled only the lower ones.

    Args:
        data: The encoded image.
        name: Named in errors.
        color_type: "color" or "grayscale", with "_ignore_orientation" appended for pixels as they
            are stored; or "unchanged" for channels, depth and orientation as stored.
        max_pixels: The largest allowed height x width.
        decoder: Used instead of OpenCV.

    Returns:
        H x W x C, BGR, uint8; H x W for "grayscale".

    Raises:
        DatasetError: ``data`` is empty, truncated, too large or no image, or its pixels are
            neither 8 nor 16 bits.
    """
    header = require_complete(data, name, max_pixels)
    channels = color_type.removesuffix(AS_STORED)
    if header.kind in ("TIFF", "") and header.orientation != 1:
        data = with_tag_upright(data)
    reason = "no decoder knows the format"
    try:
        image = (decoder or by_opencv)(data, channels, header)
    except Exception as error:  # each decoder raises its own kinds
        image, reason = None, str(error) or type(error).__name__
    if image is None:
        raise DatasetError(
            f"{name}: not an image that can be decoded ({reason}); the file begins with "
            f"{data[:16]!r}.",
            kind="undecodable image",
        )
    if channels == "unchanged":
        return image
    image = _to_8_bits(image, name)
    return image if color_type.endswith(AS_STORED) else upright(image, header.orientation)


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image as its EXIF orientation shows it.

    Args:
        image: (H, W) or (H, W, C), as stored.
        orientation: 1 to 8.

    Example:
        >>> image = np.array([[1, 2], [3, 4]])
        >>> upright(image, 6).tolist(), upright(image, 2).tolist()
        ([[3, 1], [4, 2]], [[2, 1], [4, 3]])
    """
    if orientation >= 5:  # rows are columns
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def brightest(data: bytes, header: Header) -> int | None:
    """The largest value of a complete image of 16 bits; None for others.

    Example:
        >>> from negvision.data.images.header import read_header
        >>> data = cv2.imencode(".png", np.full((2, 2), 4095, np.uint16))[1].tobytes()
        >>> brightest(data, read_header(data))
        4095
    """
    # Only the header of PNG has been read for this.
    if header.kind not in DEEP or (header.kind == "PNG" and data[24] != 16):
        return None
    image = by_opencv(data, "unchanged", header)
    return int(image.max()) if image is not None and image.dtype == np.uint16 else None


def by_opencv(data: bytes, channels: str, header: Header) -> np.ndarray | None:
    """A :data:`Decoder`."""
    flags = _FLAGS[channels]
    if channels != "unchanged":
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
        if header.kind in DEEP:
            flags |= cv2.IMREAD_ANYDEPTH
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def _to_8_bits(image: np.ndarray, name: str) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype != np.uint16:
        raise DatasetError(
            f"{name}: its pixels are {image.dtype}, which are not read. Convert it to 8 bits.",
            kind="image of neither 8 nor 16 bits",
        )
    most = int(image.max())
    if most < DARK:
        _dark(
            f"{name}: a 16-bit image with values up to {most:,} of 65,535. Networks see the upper "
            f"8 bits, in which it is nearly black (0 to {most >> 8}). Rescale such images to 8 "
            "bits, for training and prediction alike; negvision check-dataset counts them"
        )
    return (image >> 8).astype(np.uint8)
