"""Many encoded images in one ``.npz`` file."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from negvision.data.images.decoding import decode_image
from negvision.errors import DatasetError

_ARRAYS = ("data", "offsets", "labels", "classes")
# Labels of one class compress a thousandfold; encoded images, which are nearly everything, do not.
_MOST_EXPANSION = 64
_FREE_EXPANSION = 1 << 26


@dataclass(frozen=True)
class ImagePack:
    """The N images of one file, encoded as JPEG, PNG and so on.

    Attributes:
        data: uint8, the encoded images in a row.
        offsets: (N + 1,) int64; image i is ``data[offsets[i] : offsets[i + 1]]``.
        labels: (N,) int64.
        classes: Names, by label.
    """

    data: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, index: int) -> bytes:
        """The bytes of one image."""
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()


def write_pack(
    path: str | os.PathLike, images: Sequence[bytes], labels: Sequence[int], classes: Sequence[str]
) -> None:
    """Write encoded images as a pack; the same images give the same bytes.

    Example:
        >>> import tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "set.npz")
        >>> write_pack(path, [b"first", b"second"], [0, 1], ["cat", "dog"])
        >>> read_pack(path).encoded(1)
        b'second'
    """
    np.savez(
        path,
        data=np.frombuffer(b"".join(images), np.uint8),
        offsets=np.cumsum([0, *map(len, images)], dtype=np.int64),
        labels=np.array(labels, dtype=np.int64),
        classes=np.array(classes),
    )


def read_pack(path: str) -> ImagePack:
    """Read and check a pack; nothing in the file is executed.

    Labels are not compared with the classes: a dataset may leave some out.

    Raises:
        DatasetError: The file is missing, damaged, or not a pack.
    """
    if not os.path.isfile(path):
        raise DatasetError(f"{path}: there is no such file of packed images.")
    try:
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            raise DatasetError(f"{path}: holds one array; a pack of images is a .npz.")
        with stored:
            expanded = sum(entry.file_size for entry in stored.zip.infolist())
            if expanded > _MOST_EXPANSION * os.path.getsize(path) + _FREE_EXPANSION:
                raise DatasetError(
                    f"{path}: its arrays would expand from {os.path.getsize(path):,} to "
                    f"{expanded:,} bytes; encoded images cannot be compressed that much."
                )
            absent = [name for name in _ARRAYS if name not in stored.files]
            if absent:
                raise DatasetError(
                    f"{path}: has no array {', '.join(map(repr, absent))}, only {stored.files}; a "
                    f"pack of images holds {', '.join(_ARRAYS)}."
                )
            data, offsets, labels, classes = (stored[name] for name in _ARRAYS)
    except DatasetError:
        raise
    except Exception as error:  # zipfile and NumPy raise nearly anything for damaged files
        raise DatasetError(
            f"{path}: not a pack of images, or a damaged one ({error}). Download it again."
        ) from None
    problem = _find_problem(data, offsets, labels, classes)
    if problem:
        raise DatasetError(f"{path}: {problem}. The pack is damaged, or was written wrongly.")
    return ImagePack(data, offsets, labels, tuple(map(str, classes)))


def _find_problem(data, offsets, labels, classes) -> str | None:
    kinds = {"data": "u1", "offsets": "iu", "labels": "iu", "classes": "U"}
    for name, array in zip(kinds, (data, offsets, labels, classes), strict=True):
        kind = array.dtype.str[1:] if name == "data" else array.dtype.kind
        if array.ndim != 1 or kind not in kinds[name]:
            return f"{name} is {array.dtype} of shape {array.shape}"
    if len(offsets) != len(labels) + 1:
        return f"{len(offsets)} offsets for {len(labels)} labels; there must be one more"
    # Compared, not subtracted: differences of unsigned numbers wrap around.
    backwards = int((offsets[1:] < offsets[:-1]).sum())
    if backwards:
        return f"{backwards:,} of {len(labels):,} offsets are less than the one before"
    if offsets[0] != 0 or offsets[-1] != len(data):
        return (
            f"the offsets run from {offsets[0]:,} to {offsets[-1]:,}, and there are "
            f"{len(data):,} bytes of images"
        )
    return None


_last_packs = functools.lru_cache(maxsize=4)(read_pack)


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image by the name it has in an evaluation.

    Args:
        path: A file, or ``pack.npz:index``, as :class:`negvision.PackedImageDataset` names images.

    Returns:
        H x W x 3, BGR, uint8.

    Raises:
        DatasetError: There is no such image, or it is damaged.

    Example:
        >>> import cv2, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "a.png")
        >>> _ = cv2.imwrite(str(path), np.zeros((4, 5, 3), np.uint8))
        >>> read_image(str(path)).shape
        (4, 5, 3)
    """
    path = str(path)
    file, _, index = path.rpartition(":")
    if file.endswith(".npz") and index.isdigit():
        pack = _last_packs(file)
        if int(index) >= len(pack):
            raise DatasetError(f"{path}: the pack has {len(pack):,} images, counted from 0.")
        return decode_image(pack.encoded(int(index)), path)
    try:
        with open(path, "rb") as opened:
            return decode_image(opened.read(), path)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}.") from None
