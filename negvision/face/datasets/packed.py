"""Many short byte strings in one array, which worker processes share without copies."""

from collections.abc import Iterable

import numpy as np


class PackedBytes:
    """A sequence of byte strings in one buffer.

    A list of millions of Python objects is gradually copied into each worker process, since
    reading an object changes its reference count. One array is not.

    Example:
        >>> packed = PackedBytes([b"ab", b"", b"c"])
        >>> len(packed), packed[0], packed[-1]
        (3, b'ab', b'c')
    """

    def __init__(self, items: Iterable[bytes]) -> None:
        items = list(items)
        self._ends = np.cumsum([0] + [len(item) for item in items], dtype=np.int64)
        self._buffer = np.frombuffer(b"".join(items), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> bytes:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"index {index} of {count} items")
        index %= count
        start, end = self._ends[index : index + 2].tolist()
        return self._buffer[start:end].tobytes()


class PackedStrings(PackedBytes):
    """:class:`PackedBytes` for strings, such as the paths of all images."""

    def __init__(self, items: Iterable[str]) -> None:
        super().__init__(item.encode("utf-8", "surrogateescape") for item in items)

    def __getitem__(self, index: int) -> str:
        return super().__getitem__(index).decode("utf-8", "surrogateescape")
