"""InsightFace's verification files: ``lfw.bin``, ``cfp_fp.bin``, ``agedb_30.bin``."""

import io
import math
import pickle
import re
from typing import Any

import numpy as np

from negvision.data.images.decoding import decode_image
from negvision.data.packed import PackedBytes
from negvision.errors import DatasetError, Problems
from negvision.face.datasets.base import FaceProtocolDataset
from negvision.registry import DATASETS


@DATASETS.register_module()
class FaceBinDataset(FaceProtocolDataset):
    """Every distinct image of a ``.bin`` file, once; no code in the file runs.

    The file is a pickle of encoded images, two per pair, and of flags that say whether the two
    show one person. Images with equal bytes become one sample. ``metainfo`` has ``pairs`` and
    ``same`` as in :class:`negvision.face.datasets.pairs.FacePairDataset`; labels are -1, and
    ``img_path`` is ``file[i]`` for image i of the file.

    Args:
        ann_file: The ``.bin`` file.
        on_bad_sample: "error" raises if there are not two images per flag; damaged images are
            found when they are loaded. "skip" decodes every image once at the start, drops the
            pairs that cannot be compared and logs their number.
        **kwargs: Of :class:`negvision.face.datasets.base.FaceProtocolDataset`.

    Example:
        >>> import pathlib, pickle, tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> content = ([b"image 0", b"image 1", b"image 0", b"image 2"], [True, False])
        >>> _ = (root / "lfw.bin").write_bytes(pickle.dumps(content))
        >>> dataset = FaceBinDataset(data_root=str(root), ann_file="lfw.bin")
        >>> len(dataset), dataset.metainfo["pairs"].tolist()
        (3, [[0, 1], [0, 2]])
    """

    def load_columns(self) -> dict[str, Any]:
        self._require_files()
        images, same = read_bin(self.ann_file)
        problems = Problems()
        if len(images) != 2 * len(same):
            problems.add(
                f"file with {len(images):,} images and {len(same):,} flags, which needs two "
                "images per flag",
                self.ann_file,
            )
        pairs = range(min(len(same), len(images) // 2))
        if self.on_bad_sample == "skip":
            pairs = [pair for pair in pairs if self._is_readable(pair, images, problems)]
        self._settle_samples(
            self.ann_file, problems, f"{len(same):,} pairs", len(pairs), listed="pair"
        )
        index: dict[bytes, int] = {}
        places: list[int] = []
        for i in (2 * pair + side for pair in pairs for side in (0, 1)):
            if index.setdefault(images[i], len(index)) == len(places):
                places.append(i)
        numbers = [(index[images[2 * pair]], index[images[2 * pair + 1]]) for pair in pairs]
        self._set_protocol(pairs=np.array(numbers, dtype=np.int64), same=same[list(pairs)])
        return {
            "bin_index": np.array(places, dtype=np.int64),
            "img_bytes": PackedBytes(index),
            "label": np.full(len(index), -1, dtype=np.int64),
        }

    def _is_readable(self, pair: int, images: list[bytes], problems: Problems) -> bool:
        try:
            for i in (2 * pair, 2 * pair + 1):
                decode_image(images[i], f"{self.ann_file}[{i}]")
        except DatasetError as error:
            problems.add("unreadable image", f"pair {pair}", str(error))
            return False
        return True

    def _describe(self, row: int) -> str:
        return f"{self.ann_file}[{self._columns['bin_index'][row]}]"


# The globals in pickles of bytes and numeric arrays, of Python 2 and 3 and of NumPy 1 and 2.
_ALLOWED = re.compile(
    r"_codecs\.encode|(builtins|__builtin__)\.(bytes|bytearray)|numpy\.(dtype|ndarray)|"
    r"numpy\._?core\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer)"
)


class _Call:
    """A call that a pickle describes, kept as data: nothing is imported or run."""

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: Any = None) -> None:
        self.name, self.args, self.state = name, args, ()

    def __call__(self, *args: object) -> "_Call":
        return _Call(self.name, args)

    def __setstate__(self, state: tuple) -> None:
        self.state = state


class _BinUnpickler(pickle.Unpickler):
    """Builds plain lists, tuples, numbers, strings and bytes, and a :class:`_Call` for the rest."""

    def __init__(self, data: bytes) -> None:
        # Strings of Python 2 become bytes.
        super().__init__(io.BytesIO(data), encoding="bytes")

    def find_class(self, module: str, name: str) -> _Call:
        if not _ALLOWED.fullmatch(f"{module}.{name}"):
            raise DatasetError(
                f"the pickle asks for {module}.{name}, which no file of images and flags needs, "
                "so it was not loaded. Do not open this file with pickle.load: it may run code."
            )
        return _Call(name)


def read_bin(path: str) -> tuple[list[bytes], np.ndarray]:
    """The encoded images of a ``.bin`` file, two per pair, and (P,) bool: is it one person?

    The numbers of images and pairs are as found. Raises ``DatasetError`` for any other file.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        images, same = _BinUnpickler(data).load()
        # A pickle may refer to one object many times, so each is converted once.
        converted = {id(item): item for item in images}
        converted = {key: _image(item) for key, item in converted.items()}
        calls = isinstance(same, _Call)
        flags = (
            _array(same)
            if calls
            else [bool(_array(flag) if isinstance(flag, _Call) else flag) for flag in same]
        )
        return [converted[id(item)] for item in images], np.array(flags, dtype=bool).reshape(-1)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle raises nearly every kind
        cut = "truncated" in str(error) or isinstance(error, EOFError)
        raise DatasetError(
            f"{path}: not a verification file: expected a pickle of (images, flags) "
            f"({type(error).__name__}: {error})."
            + (" The file ends too early; download it again." if cut else "")
        ) from None


def _image(item: object) -> bytes:
    if isinstance(item, _Call) and item.name in ("_reconstruct", "_frombuffer"):
        return _array(item).tobytes()
    return _bytes(item)


def _bytes(item: object) -> bytes:
    """Bytes, or a call that makes them of bytes or, before protocol 3, of Latin-1 text."""
    makes_bytes = isinstance(item, _Call) and item.name in ("bytes", "bytearray", "encode")
    if makes_bytes and item.args is not None:
        item, *encoding = item.args or (b"",)
        if encoding not in ([], ["latin1"], ["latin-1"], [b"latin1"], [b"latin-1"]):
            raise DatasetError(f"bytes encoded as {encoding[0]!r}; Python writes latin1.")
        item = item.encode("latin-1") if isinstance(item, str) else _bytes(item)
    if not isinstance(item, bytes | bytearray):
        raise DatasetError(f"images are bytes; found {type(item).__name__}.")
    return bytes(item)


def _array(call: _Call) -> np.ndarray:
    """The array or scalar that a pickle of NumPy describes."""
    shape, order = (), "C"
    if call.name == "scalar":
        dtype, data = call.args
    elif call.name == "_frombuffer":  # protocol 5
        data, dtype, shape, order = call.args
    else:
        _, shape, dtype, fortran, data = call.state
        order = "F" if fortran else "C"
    kind = _text(dtype.args[0])
    if not re.fullmatch(r"[<>|=]?[biuf]\d{1,2}", kind):
        raise DatasetError(f"array of type {kind!r}; images and flags are plain numbers.")
    plain = np.dtype(kind)
    if dtype.state and _text(dtype.state[1]) == ">":
        plain = plain.newbyteorder(">")
    content = _bytes(data)
    if math.prod(shape) * plain.itemsize != len(content):
        raise DatasetError(f"array of shape {shape} and type {plain} with {len(content)} bytes.")
    return np.frombuffer(content, dtype=plain).reshape(shape, order="F" if order == "F" else "C")


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
