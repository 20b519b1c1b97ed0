"""From image files to the input of a graph, exactly as the test pipeline of the config does it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from negvision.data.images.decoding import AS_STORED, decode_image
from negvision.errors import DatasetError, ExportError, WarnOnce
from negvision.inference.runtime.metadata import Preprocessing

Source = str | os.PathLike | np.ndarray
Item = TypeVar("Item")
_thin = WarnOnce()


@dataclass(frozen=True)
class Prepared:
    """One resized and normalized image.

    Attributes:
        values: (3, h, w) float32.
        original: Height and width of the image before it was resized.
    """

    values: np.ndarray
    original: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width without padding."""
        return self.values.shape[1], self.values.shape[2]

    @property
    def factors(self) -> tuple[float, float]:
        """The factors by which height and width were multiplied."""
        (height, width), (old_height, old_width) = self.size, self.original
        return height / old_height, width / old_width


def decode(data: bytes, name: str, as_stored: bool = False) -> np.ndarray:
    """Decode an image as (H, W, 3) uint8 BGR.

    Args:
        data: The encoded image.
        name: Its name in error messages.
        as_stored: Ignore the EXIF orientation; see ``Preprocessing.as_stored``.

    Raises:
        DatasetError: The data are empty, damaged, too large or not an image.
    """
    return decode_image(data, name, f"color{AS_STORED * as_stored}")


def read_bytes(path: str | os.PathLike) -> bytes:
    """The content of a file; DatasetError if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}.") from None


def load(source: Source, as_stored: bool = False) -> np.ndarray:
    """The pixels of a file or an array as (H, W, 3) uint8 BGR; see :func:`decode`.

    Raises:
        DatasetError: See :func:`decode` and :func:`read_bytes`.
        ValueError: An array has another shape or type.
    """
    if not isinstance(source, np.ndarray):
        return decode(read_bytes(source), str(source), as_stored)
    if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
        raise ValueError(f"an image is (H, W, 3) uint8; got {source.shape} {source.dtype}")
    return source


def name_of(source: Source) -> str:
    """The name of an image in error messages."""
    return "image" if isinstance(source, np.ndarray) else str(source)


def resized_size(
    height: int, width: int, scale: tuple[int, int], keep_ratio: bool
) -> tuple[int, int]:
    """Height and width of an image after resizing, at least 1; see ``Preprocessing.scale``.

    Example:
        >>> resized_size(480, 640, (1333, 800), True)
        (800, 1067)
    """
    if not keep_ratio:
        return scale[1], scale[0]
    longer, shorter = max(scale), min(scale)
    factor = min(longer / max(height, width), shorter / min(height, width))
    return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)


def prepare(image: np.ndarray, how: Preprocessing, name: str = "image") -> Prepared:
    """Resize and normalize an image.

    Args:
        image: (H, W, 3) uint8 BGR.
        how: From the metadata of the model.
        name: Its name in error messages.

    Raises:
        ExportError: The model takes images of another size.
    """
    original = image.shape[0], image.shape[1]
    if how.scale is not None:
        height, width = resized_size(*original, how.scale, how.keep_ratio)
        if min(height, width) == 1 < min(original):
            _thin(
                f"{name}: {original[1]} x {original[0]} pixels become {width} x {height}; hardly "
                "anything can be found in so thin an image"
            )
        if (height, width) != original:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if how.size is not None and image.shape[:2] != tuple(how.size):
        height, width = how.size
        raise ExportError(
            f"{name}: the image is {original[1]} x {original[0]} pixels (width x height); this "
            f"model takes {width} x {height}, such as aligned face crops"
        )
    values = np.empty((3, *image.shape[:2]), np.float32)
    # Plane by plane: numpy takes ten times as long on interleaved channels.
    for channel, plane in enumerate(values):
        pixels = image[..., 2 - channel if how.rgb else channel]
        if how.mean is None or how.std is None:
            plane[:] = pixels
        else:
            np.subtract(pixels, np.float32(how.mean[channel]), out=plane, dtype=np.float32)
            plane /= np.float32(how.std[channel])
    return Prepared(values, original)


def stack(batch: Sequence[Prepared], how: Preprocessing) -> np.ndarray:
    """(B, 3, H, W) float32: images padded to the largest and to a multiple of ``pad_divisor``."""
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
    """Consecutive images in batches.

    Args:
        images: Prepared images, consumed lazily.
        batch_size: Largest number of images in a batch.
        fits: Whether an image may run together with the first one of a batch.

    Example:
        >>> list(batched([1, 3, 5, 7, 2], 3, lambda one, other: one % 2 == other % 2))
        [[1, 3, 5], [7], [2]]
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be 1 or more")
    batch: list[Item] = []
    for one in images:
        if batch and (len(batch) == batch_size or not fits(one, batch[0])):
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch
