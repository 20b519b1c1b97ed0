"""From the pixels of an image to the input of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from negvision.errors import ExportError
from negvision.inference.runtime.images import resize, resized_size
from negvision.inference.runtime.metadata import Preprocessing

Item = TypeVar("Item")


@dataclass(frozen=True)
class Prepared:
    """One image, resized and normalised.

    Attributes:
        values: (3, h, w) float32.
        original: Height and width of the image.
    """

    values: np.ndarray
    original: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width without any padding."""
        return self.values.shape[1], self.values.shape[2]

    @property
    def factors(self) -> tuple[float, float]:
        """What height and width were multiplied by."""
        (height, width), (old_height, old_width) = self.size, self.original
        return height / old_height, width / old_width


def prepare(image: np.ndarray, how: Preprocessing, name: str = "image") -> Prepared:
    """Resize an image and normalise it.

    Args:
        image: (H, W, 3) uint8, blue first.
        how: As the metadata of the model say.
        name: Named in errors.

    Raises:
        ExportError: The model is made for images of another size.
    """
    original = image.shape[:2]
    if how.scale is not None:
        image = resize(image, *resized_size(*original, how.scale, how.keep_ratio))
    if how.size is not None and image.shape[:2] != tuple(how.size):
        height, width = how.size
        raise ExportError(
            f"{name}: the image is {original[1]} x {original[0]} pixels (width x height); this "
            f"model takes {width} x {height}, such as aligned crops of faces"
        )
    values = np.empty((3, *image.shape[:2]), np.float32)
    # Plane by plane: numpy takes ten times as long for all at once, whose colours lie side by side.
    for channel, plane in enumerate(values):
        pixels = image[..., 2 - channel if how.rgb else channel]
        if how.mean is None:
            plane[:] = pixels
        else:
            np.subtract(pixels, np.float32(how.mean[channel]), out=plane, dtype=np.float32)
            plane /= np.float32(how.std[channel])
    return Prepared(values, original)


def stack(batch: Sequence[Prepared], how: Preprocessing) -> np.ndarray:
    """(B, 3, H, W) float32: the images, filled up to the largest and to ``pad_divisor``."""
    height, width = (
        -(-max(one.size[axis] for one in batch) // how.pad_divisor) * how.pad_divisor
        for axis in (0, 1)
    )
    stacked = np.full((len(batch), 3, height, width), how.pad_value, np.float32)
    for row, one in zip(stacked, batch, strict=True):
        row[:, : one.size[0], : one.size[1]] = one.values
    return stacked


def batched(
    images: Iterable[Item], batch_size: int, fits: Callable[[Item, Item], bool]
) -> Iterator[list[Item]]:
    """Images in their order, as many together as may run together.

    Args:
        images: Prepared, one by one as they are asked for.
        batch_size: At most so many in a batch.
        fits: Whether an image may run with the first of a batch.

    Example:
        >>> list(batched([1, 3, 5, 7, 2], 3, lambda one, other: one % 2 == other % 2))
        [[1, 3, 5], [7], [2]]
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be 1 or more")
    waiting: list[Item] = []
    for one in images:
        if waiting and (len(waiting) == batch_size or not fits(one, waiting[0])):
            yield waiting
            waiting = []
        waiting.append(one)
    if waiting:
        yield waiting
