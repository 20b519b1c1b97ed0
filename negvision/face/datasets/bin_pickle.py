"""Unpickle InsightFace's verification files without running what they might hold.

A pickle is a program that may call anything that can be imported. Here it can name a dozen
globals, and each is answered by a function of this module that builds plain bytes, numbers or
lists; nothing of the pickle's choosing is imported, and NumPy's own reconstructors are not called.
"""

import io
import math
import pickle
from collections.abc import Callable

import numpy as np

from negvision.errors import DatasetError


class BinUnpickler(pickle.Unpickler):
    """Builds lists, tuples, dicts, numbers, texts, bytes and plain NumPy arrays; nothing else.

    Strings of Python 2 become bytes. Arrays are read-only :class:`PlainArray` objects until
    :func:`plain` makes NumPy's of them.

    Args:
        data: The pickle.
        path: Named in errors.

    Raises:
        DatasetError: the pickle names any other global.
    """

    def __init__(self, data: bytes, path: str) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self._path = path

    def find_class(self, module: str, name: str) -> Callable:
        """The stand-in for a global; raises ``DatasetError`` for one without."""
        found = _STAND_INS.get((module, name))
        if found is None:
            raise DatasetError(
                f"{self._path}: the pickle asks for {module}.{name}, which no file of images and "
                "flags needs; it was not loaded. Do not open this file with pickle.load: it may "
                "run code."
            )
        # A bound method takes no new attributes, so that BUILD cannot alter it.
        return found


def plain(value: object) -> object:
    """``value`` with :class:`PlainArray` replaced by NumPy's array, also in lists and tuples."""
    if isinstance(value, PlainArray):
        return value.array
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


class PlainType:
    """Stands for ``numpy.dtype`` while the pickle sets it up."""

    __slots__ = ("dtype",)

    def __init__(self, text: object) -> None:
        text = text.decode("latin-1") if isinstance(text, bytes) else text
        if not isinstance(text, str) or text.lstrip("<>|=")[:1] not in ("b", "i", "u", "f"):
            raise DatasetError(f"array of type {text!r}; images and flags are plain numbers.")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple) -> None:
        order = state[1]
        order = order.decode("latin-1") if isinstance(order, bytes) else order
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class PlainArray:
    """Stands for ``numpy.ndarray`` while the pickle sets it up."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array = np.empty(0, dtype=np.uint8)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _array(data, dtype, shape, "F" if fortran else "C")


def _array(data: object, dtype: PlainType, shape: tuple, order: str) -> np.ndarray:
    if isinstance(data, str):  # bytes of Python 2
        data = data.encode("latin-1")
    if not isinstance(data, bytes | bytearray) or not isinstance(dtype, PlainType):
        raise DatasetError("array whose content is not bytes; images and flags are plain numbers.")
    if math.prod(shape) * dtype.dtype.itemsize != len(data):
        raise DatasetError(f"array of shape {shape} and type {dtype.dtype} with {len(data)} bytes.")
    return np.frombuffer(data, dtype=dtype.dtype).reshape(shape, order=order)


class _StandIns:
    """What the globals of such files are answered by."""

    __slots__ = ()

    def encode(self, text: str, encoding: object = "latin1") -> bytes:
        """``_codecs.encode``, by which protocols below 3 write bytes."""
        if encoding not in ("latin1", "latin-1", b"latin1", b"latin-1"):
            raise DatasetError(f"bytes written as {encoding!r}; Python writes latin1.")
        return text if isinstance(text, bytes) else text.encode("latin-1")

    def bytes(self, *arguments: object) -> bytes:
        """``bytes()`` or ``bytearray(...)``; a number, which asks for memory, is refused."""
        if not arguments:
            return b""
        if isinstance(arguments[0], str):
            return self.encode(*arguments)
        if not isinstance(arguments[0], bytes | bytearray):
            raise DatasetError(f"bytes made of a {type(arguments[0]).__name__}.")
        return bytes(arguments[0])

    def bool(self, *arguments: object) -> bool:
        return bool(*arguments)

    def dtype(self, text: object, *_: object) -> PlainType:
        return PlainType(text)

    def ndarray(self, *_: object) -> None:
        """Only an argument of :meth:`reconstruct`."""

    def reconstruct(self, *_: object) -> PlainArray:
        return PlainArray()

    def scalar(self, dtype: PlainType, data: object = b"") -> object:
        return _array(data, dtype, (1,), "C")[0].item()

    def frombuffer(self, data: object, dtype: PlainType, shape: tuple, order: str) -> PlainArray:
        """``numpy.core.numeric._frombuffer``, by which protocol 5 writes arrays."""
        made = PlainArray()
        made.array = _array(data, dtype, shape, "F" if order == "F" else "C")
        return made


_own = _StandIns()
_STAND_INS: dict[tuple[str, str], Callable] = {
    ("_codecs", "encode"): _own.encode,
    ("numpy", "dtype"): _own.dtype,
    ("numpy", "ndarray"): _own.ndarray,
}
for _module in ("builtins", "__builtin__"):
    _STAND_INS[_module, "bytes"] = _STAND_INS[_module, "bytearray"] = _own.bytes
    _STAND_INS[_module, "bool"] = _own.bool
for _module in ("numpy.core", "numpy._core"):  # of NumPy 1 and 2
    _STAND_INS[f"{_module}.multiarray", "_reconstruct"] = _own.reconstruct
    _STAND_INS[f"{_module}.multiarray", "scalar"] = _own.scalar
    _STAND_INS[f"{_module}.numeric", "_frombuffer"] = _own.frombuffer


def read_bin(path: str) -> tuple[list[bytes], np.ndarray]:
    """The content of a verification file ``.bin``.

    Returns:
        The encoded images, two for each pair, and shape (P,), bool: whether a pair shows one
        person. The numbers of images and pairs are as found.

    Raises:
        DatasetError: the file is no such pickle.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        content = plain(BinUnpickler(data, path).load())
        images, same = content
        images = [
            bytes(memoryview(item)) if isinstance(item, bytearray | np.ndarray) else item
            for item in images
        ]
        same = np.asarray([bool(item) for item in same], dtype=bool)
    except DatasetError as error:
        text = str(error)
        raise DatasetError(text if text.startswith(path) else f"{path}: {text}") from None
    except Exception as error:  # a damaged pickle raises nearly every kind
        cut = "truncated" in str(error) or isinstance(error, EOFError)
        raise DatasetError(
            f"{path}: not a verification file: a pickle of (images, flags) is expected "
            f"({type(error).__name__}: {error})."
            + (" The file ends too early; fetch it anew." if cut else "")
        ) from None
    if not all(isinstance(image, bytes) for image in images):
        kinds = sorted({type(image).__name__ for image in images} - {"bytes"})
        raise DatasetError(f"{path}: images are bytes; found {', '.join(kinds)}.")
    return images, same
