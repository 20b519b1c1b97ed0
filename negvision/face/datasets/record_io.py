"""Read MXNet's RecordIO files without MXNet.

A file is a row of records: the magic number, a word with the kind of the part in its upper 3 bits
and the length in its lower 29, the content, and zeros up to the next multiple of 4. Where the
content itself holds the magic number at a multiple of 4, the writer cuts it there into parts and
leaves those four bytes out. An image record begins with a header: the number of labels, one
label, two ids; labels follow where there are several.

Source: the RecordIO and IRHeader formats as Apache MXNet's documentation describes them.
"""

import os
import struct
from typing import NamedTuple

import numpy as np

from negvision.errors import DatasetError, Problems
from negvision.face.datasets.text_files import read_integers

MAGIC = 0xCED7230A
_PART = struct.Struct("<II")
_HEADER = struct.Struct("<IfQQ")
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
# No image needs more; a damaged count would otherwise ask for gigabytes.
_MOST_LABELS = 1 << 16


class ImageRecord(NamedTuple):
    """A record's labels, float32 of shape (L,) with L of 1 or more, and the encoded image."""

    labels: np.ndarray
    image: bytes
    has_label_list: bool


class RecordFile:
    """Random access to the records of one ``.rec`` file.

    Reads name their position, so that processes that share the open file do not disturb one
    another; a pickled copy opens the file anew.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = os.path.getsize(path)
        self._file = None

    def __getstate__(self) -> dict:
        return {"path": self.path, "size": self.size, "_file": None}

    def read(self, offset: int) -> bytes:
        """The content of the record at byte ``offset``; raises ``DatasetError`` if damaged."""
        kind, length = self._part(offset)
        if kind == _WHOLE:
            return self._bytes(offset + _PART.size, length)
        parts, expected = [], (_FIRST,)
        while True:
            if kind not in expected:
                raise self._damaged(offset, f"its parts are out of order (a part of kind {kind})")
            parts.append(self._bytes(offset + _PART.size, length))
            if kind == _LAST:
                return struct.pack("<I", MAGIC).join(parts)
            expected = (_MIDDLE, _LAST)
            offset += _PART.size + (length + 3) // 4 * 4
            kind, length = self._part(offset)

    def read_image(self, offset: int) -> ImageRecord:
        """The labels and image of the record at byte ``offset``."""
        return self._unpack(self.read(offset), offset)

    def read_labels(self, offset: int) -> ImageRecord:
        """Like :meth:`read_image`, with no more than the first bytes of the image."""
        kind, length = self._part(offset)
        if offset + _PART.size + length > self.size:
            raise self._damaged(offset, f"ends beyond the end of the file of {self.size:,} bytes")
        if kind != _WHOLE:
            return self.read_image(offset)
        start = self._bytes(offset + _PART.size, min(length, _HEADER.size + 16))
        count = int.from_bytes(start[:4], "little")
        if len(start) < length and _HEADER.size + 4 * count >= len(start):
            return self.read_image(offset)
        return self._unpack(start, offset)

    def _unpack(self, data: bytes, offset: int) -> ImageRecord:
        if len(data) < _HEADER.size:
            raise self._damaged(offset, f"is too short for a header: {len(data)} bytes")
        count, label, _, _ = _HEADER.unpack_from(data)
        end = _HEADER.size + 4 * count
        if count > _MOST_LABELS or end > len(data):
            raise self._damaged(offset, f"announces {count:,} labels in {len(data):,} bytes")
        labels = np.frombuffer(data, "<f4", count, _HEADER.size) if count else np.float32([label])
        return ImageRecord(labels, data[end:], count > 0)

    def _part(self, offset: int) -> tuple[int, int]:
        magic, word = _PART.unpack(self._bytes(offset, _PART.size))
        if magic != MAGIC:
            raise self._damaged(offset, f"begins with {magic:#x} in place of {MAGIC:#x}")
        return word >> 29, word & ((1 << 29) - 1)

    def _bytes(self, offset: int, count: int) -> bytes:
        if self._file is None:
            self._file = open(self.path, "rb", buffering=0)  # noqa: SIM115 (open as long as self)
        data = os.pread(self._file.fileno(), count, offset) if offset >= 0 else b""
        if len(data) < count:
            raise self._damaged(offset, f"ends beyond the end of the file of {self.size:,} bytes")
        return data

    def _damaged(self, offset: int, reason: str) -> DatasetError:
        return DatasetError(
            f"{self.path}: the record at byte {offset:,} {reason}.", kind="damaged record"
        )


def read_index(path: str, problems: Problems) -> tuple[np.ndarray, np.ndarray]:
    """The index of a record file: lines ``key offset``.

    Returns:
        Keys, in rising order, and the byte at which each record begins; both int64 of shape (N,).
    """
    table, lines = read_integers(path, 2, problems)
    keys, first = np.unique(table[:, 0], return_index=True)
    for row in np.setdiff1d(np.arange(len(table)), first):
        problems.add("key used twice in the index", f"{path}:{lines[row]}", int(table[row, 0]))
    return keys, table[first, 1]
