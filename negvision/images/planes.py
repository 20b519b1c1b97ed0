"""From the image of a pipeline to the tensor of a model: pixels become planes, quickly."""

from __future__ import annotations

import cv2
import numpy as np
import torch

# Other types, such as int64, OpenCV converts before it works on them, or refuses.
_TYPES = (np.uint8, np.float32)
# Bytes up to which torch, which writes to new memory, mirrors before OpenCV has begun.
_SMALL = 1 << 19


def to_planes(image: np.ndarray) -> torch.Tensor:
    """The contiguous (C, H, W) tensor of an image, in memory of its own.

    The same values and strides as ``np.ascontiguousarray(image.transpose(2, 0, 1))``, which reads
    byte after byte from places three apart: with uint8 or float32 this is several times faster. A
    mirrored view, which is what flips of mmcv and mmdet give, is undone first and the planes are
    mirrored instead, whose rows are reversed many pixels at a time.

    Args:
        image: (H, W, C), or (H, W) for one channel; any strides.

    Example:
        >>> image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
        >>> to_planes(image[:, ::-1])[0]
        tensor([[3, 0]], dtype=torch.uint8)
    """
    if image.ndim == 2:
        image = image[..., None]
    planes = image.transpose(2, 0, 1)
    # Choosing channels by number leaves planes behind already.
    if planes.flags.c_contiguous or image.dtype not in _TYPES or image.size == 0:
        return torch.from_numpy(planes.copy())
    down, across = _mirrored(image)
    if down:
        image = cv2.flip(image[::-1, :: -1 if across else 1], 0).reshape(image.shape)
    elif across:
        image = image[:, ::-1]
    height, width, channels = image.shape
    planes = np.empty((channels, height, width), image.dtype)
    cv2.split(image, list(planes))
    if across and planes.nbytes < _SMALL:
        return torch.from_numpy(planes).flip(-1)
    if across:
        rows = planes.reshape(-1, width)
        cv2.flip(rows, 1, rows)
    return torch.from_numpy(planes)


def upright(image: np.ndarray) -> np.ndarray:
    """``image`` without the negative strides of a mirrored view, which OpenCV copies slowly.

    Args:
        image: (H, W) or (H, W, C).

    Returns:
        A mirrored copy of uint8 or float32; all else as it is.

    Example:
        >>> image = np.arange(6, dtype=np.uint8).reshape(2, 3)[::-1]
        >>> upright(image).tolist(), upright(image).strides
        ([[3, 4, 5], [0, 1, 2]], (3, 1))
    """
    down, across = _mirrored(image)
    if not (down or across) or image.dtype not in _TYPES or image.size == 0:
        return image
    plain = image[:: -1 if down else 1, :: -1 if across else 1]
    return cv2.flip(plain, -1 if down and across else int(across)).reshape(image.shape)


def _mirrored(image: np.ndarray) -> tuple[bool, bool]:
    """Whether rows, and whether columns, are stored in reverse."""
    return image.strides[0] < 0, image.strides[1] < 0
