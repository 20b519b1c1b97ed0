"""From the image of a pipeline to the tensor of a model: pixels become planes, quickly."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from negvision.ops import image_planes

# Other types, such as int64, OpenCV converts before it works on them, or refuses.
_TYPES = (np.uint8, np.float32)


def to_planes(image: np.ndarray) -> torch.Tensor:
    """The contiguous (C, H, W) tensor of an image.

    In memory of its own, but for an image that is a view of planes: that gives these very planes.
    The same values and strides as ``np.ascontiguousarray(image.transpose(2, 0, 1))``, which reads
    byte after byte from places three apart: by :func:`negvision.ops.image_planes` this is several
    times faster, of a mirrored view, which is what flips of mmcv and mmdet give, as well.

    Args:
        image: (H, W, C), or (H, W) for one channel; any strides.

    Example:
        >>> image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
        >>> to_planes(image[:, ::-1])[0]
        tensor([[3, 0]], dtype=torch.uint8)
    """
    if image.ndim == 2:
        image = image[..., None]
    stored, rows_reversed, columns_reversed = as_stored(image)
    planes = image.transpose(2, 0, 1)
    # Torch takes no memory that is not to be written, and no channels in reverse.
    if not stored.flags.writeable or stored.strides[2] < 0:
        return torch.from_numpy(planes.copy())
    if planes.flags.c_contiguous and min(planes.shape) > 1:
        return torch.from_numpy(planes)
    return image_planes(torch.from_numpy(stored), rows_reversed, columns_reversed)


def as_stored(image: np.ndarray) -> tuple[np.ndarray, bool, bool]:
    """An image in the order of its memory, which is what torch can be given.

    Args:
        image: (H, W, C).

    Returns:
        A view, and whether in ``image`` its rows, and its columns, lie in reverse.

    Example:
        >>> image = np.zeros((4, 5, 3), np.uint8)[:, ::-1]
        >>> stored, *is_reversed = as_stored(image)
        >>> stored.strides, is_reversed
        ((15, 3, 1), [False, True])
    """
    rows, columns = image.strides[0] < 0, image.strides[1] < 0
    if rows or columns:
        image = image[:: -1 if rows else 1, :: -1 if columns else 1]
    return image, rows, columns


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
    plain, rows, columns = as_stored(image)
    if not (rows or columns) or image.dtype not in _TYPES or image.size == 0:
        return image
    return cv2.flip(plain, -1 if rows and columns else int(columns)).reshape(image.shape)
