"""Many short byte strings in one array, which worker processes share without copies."""

from collections.abc import Iterable
from typing import Self

import numpy as np


class PackedBytes:
    """A sequence of byte strings in one buffer.

    Attributes:
        buffer: All strings one after another, uint8.
        ends: (N + 1,) int64: string i is at ``ends[i]`` to ``ends[i + 1]``.

    A list of millions of Python objects is gradually copied into each worker process, since
    reading an object changes its reference count. One array is not.

    Example:
        >>> packed = PackedBytes([b"ab", b"", b"c"])
        >>> len(packed), packed[0], packed[-1]
        (3, b'ab', b'c')
    """

    def __init__(self, items: Iterable[bytes]) -> None:
        items = list(items)
        self.ends = np.cumsum([0] + [len(item) for item in items], dtype=np.int64)
        self.buffer = np.frombuffer(b"".join(items), dtype=np.uint8)

    @classmethod
    def of(cls, buffer: np.ndarray, ends: np.ndarray) -> Self:
        """The sequence with these attributes, which are not copied.

        Raises:
            ValueError: They do not fit each other.
        """
        fits = buffer.dtype == np.uint8 and buffer.ndim == ends.ndim == 1 and len(ends)
        if not fits or ends[0] or ends[-1] != len(buffer) or (np.diff(ends) < 0).any():
            raise ValueError("the ends of strings do not fit their text")
        packed = cls.__new__(cls)
        packed.buffer, packed.ends = buffer, ends
        return packed

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> bytes:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"index {index} of {count} items")
        index %= count
        start, end = self.ends[index : index + 2].tolist()
        return self.buffer[start:end].tobytes()


class PackedStrings(PackedBytes):
    """:class:`PackedBytes` for strings, such as the paths of all images."""

    def __init__(self, items: Iterable[str]) -> None:
        super().__init__(item.encode("utf-8", "surrogateescape") for item in items)

    def __getitem__(self, index: int) -> str:
        return super().__getitem__(index).decode("utf-8", "surrogateescape")
