"""Decode and resize images as the test pipeline does, with opencv or, in its place, pillow."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from negvision.errors import DatasetError, ExportError

try:
    import cv2
except ImportError:
    cv2 = None
try:
    from PIL import Image, ImageOps

    from negvision.data.images.integrity import require_complete
except ImportError:
    Image = None

Source = str | os.PathLike | np.ndarray

# OpenCV's linear interpolation counts weights in 2048ths.
_ONE = 2048


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Decode a file as (H, W, 3) uint8 with blue first, turned as its EXIF orientation says.

    Raises:
        DatasetError: There is no such file, or it is damaged or no image.
        ExportError: Neither opencv nor pillow is installed.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}.") from None
    return decode(data, str(path))


def decode(data: bytes, name: str) -> np.ndarray:
    """:func:`read_image` of what stands in a file; ``name`` is named in errors."""
    if Image is not None:
        require_complete(data, name)
    if cv2 is not None:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        if image is None:
            raise DatasetError(f"{name}: not an image that opencv can decode.")
        return image
    if Image is None:
        raise ExportError(
            "images are decoded by opencv or pillow, and neither is installed: pip install pillow"
        )
    return _decode_with_pillow(data, name)


def _decode_with_pillow(data: bytes, name: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith(("I", "F")):
                raise DatasetError(
                    f"{name}: pixels of more than 8 bits; install opencv, which reduces them."
                )
            upright = ImageOps.exif_transpose(image).convert("RGB")
            return np.ascontiguousarray(np.asarray(upright)[..., ::-1])
    except DatasetError:
        raise
    except Exception as error:  # pillow raises nearly every kind
        raise DatasetError(f"{name}: not an image that pillow can decode ({error}).") from None


def require_pixels(image: np.ndarray) -> np.ndarray:
    """``image`` itself.

    Raises:
        ValueError: It is not (H, W, 3) uint8.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"an image is (H, W, 3) uint8; got {image.shape} {image.dtype}")
    return image


def named(source: Source) -> str:
    """What errors call an image."""
    return "image" if isinstance(source, np.ndarray) else str(source)


def resized_size(height: int, width: int, scale: tuple[int, int], keep_ratio: bool):
    """Height and width of an image that is fit into ``scale``; see ``Preprocessing``.

    Example:
        >>> resized_size(480, 640, (1333, 800), True)
        (800, 1067)
    """
    if not keep_ratio:
        return scale[1], scale[0]
    longer, shorter = max(scale), min(scale)
    factor = min(longer / max(height, width), shorter / min(height, width))
    return int(height * factor + 0.5), int(width * factor + 0.5)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bring (H, W, 3) uint8 to another size by linear interpolation between four pixels.

    The same bytes with and without opencv.
    """
    if image.shape[:2] == (height, width):
        return image
    if cv2 is not None:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return resize_as_opencv(image, height, width)


def resize_as_opencv(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """OpenCV's ``INTER_LINEAR`` of uint8 in numpy: weights of 11 bits, sums shifted in two steps.

    Source: VResizeLinear and HResizeLinear in modules/imgproc/src/resize.cpp of OpenCV 4.
    """
    left, right, across = _places(image.shape[1], width, clamp=True)
    top, bottom, down = _places(image.shape[0], height, clamp=False)
    pixels = image.astype(np.int32)
    across = across[:, None]
    rows = pixels[:, left] * (_ONE - across) + pixels[:, right] * across
    down = down[:, None, None]
    upper = ((rows[top] >> 4) * (_ONE - down)) >> 16
    lower = ((rows[bottom] >> 4) * down) >> 16
    return ((upper + lower + 2) >> 2).astype(np.uint8)


def _places(size: int, wanted: int, clamp: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each new pixel the two old ones, and the weight of the second in 2048ths."""
    position = (np.arange(wanted) + 0.5) * (1 / (wanted / size)) - 0.5
    position = position.astype(np.float32)
    first = np.floor(position).astype(np.int64)
    share = position - first.astype(np.float32)
    if clamp:
        share[(first < 0) | (first >= size - 1)] = 0
    weight = np.rint(share * np.float32(_ONE)).astype(np.int32)
    return np.clip(first, 0, size - 1), np.clip(first + 1, 0, size - 1), weight
