"""Turn the image of a pipeline into the tensor of a model."""

from __future__ import annotations

import numpy as np
import torch

from negvision.ops import image_planes


def to_planes(image: np.ndarray) -> torch.Tensor:
    """The contiguous (C, H, W) tensor of an image.

    The same values and strides as ``np.ascontiguousarray(image.transpose(2, 0, 1))``, several times
    as fast, including for the mirrored views that flips return. An image that is a view of planes
    gives these planes themselves; all others give new memory.

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
    # Torch accepts neither read-only memory nor reversed channels.
    if not stored.flags.writeable or stored.strides[2] < 0:
        return torch.from_numpy(planes.copy())
    if planes.flags.c_contiguous and min(planes.shape) > 1:
        return torch.from_numpy(planes)
    return image_planes(torch.from_numpy(stored), rows_reversed, columns_reversed)


def as_stored(image: np.ndarray) -> tuple[np.ndarray, bool, bool]:
    """An image in memory order, as torch needs it.

    Args:
        image: (H, W, C).

    Returns:
        A view, and whether the rows and the columns of ``image`` are reversed in memory.

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
