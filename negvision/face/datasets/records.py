"""InsightFace's training sets, ``train.rec`` with ``train.idx``, read without MXNet.

A RecordIO file is a sequence of records: the magic number, a word with the kind of the part in its
upper 3 bits and the length in its lower 29, the content, and zeros up to the next multiple of 4.
Where the content itself holds the magic number at a multiple of 4, the writer splits it there and
leaves those four bytes out. An image record begins with a header: the number of labels, one label,
two ids; labels follow if there are several.

Source: the RecordIO and IRHeader formats in Apache MXNet's documentation.
"""

import contextlib
import os
import struct
import zipfile
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from mmengine.dataset import force_full_init

from negvision.errors import DatasetError, Problems, UserError
from negvision.face.datasets.base import FaceIdentityDataset
from negvision.face.datasets.tables import read_integers
from negvision.files import atomic_write
from negvision.registry import DATASETS

MAGIC = 0xCED7230A
_PART = struct.Struct("<II")
_HEADER = struct.Struct("<IfQQ")
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
# No image needs more; a damaged count would otherwise ask for gigabytes.
_MOST_LABELS = 1 << 16
# Missing records beyond this number are counted without naming each.
_MANY = 1000
# Labels of so many images are kept beside the file.
_SLOW = 100_000


@DATASETS.register_module()
class FaceRecordDataset(FaceIdentityDataset):
    """Images in an MXNet record file; MXNet is not needed.

    At the start, the index is read and only the records that say which images belong to which
    identity. Where they do not say it, every record is read. The labels of large files are then
    kept beside the file, in ``NAME.rec.labels.npz``, until either file changes; where the folder
    cannot be written, they are found anew. An image's own record is read, and its label compared,
    when it is requested. ``img_path`` is ``file[key]``.

    Args:
        ann_file: The ``.rec`` file.
        idx_file: Its index; by default the file beside it with the suffix ``.idx``.
        on_bad_sample: "error" raises for records that are missing or cannot be read. "skip" drops
            them at the start and logs their number, and replaces damaged images by random others,
            counted in ``skipped_images``.
        **kwargs: Of :class:`negvision.face.datasets.base.FaceIdentityDataset`.

    Example::

        dataset=dict(type="negvision.FaceRecordDataset", data_root="data/faces_emore/",
                     ann_file="train.rec", pipeline=[...])
    """

    _file_arguments = ("idx_file",)

    def __init__(self, ann_file: str, *args, idx_file: str = "", **kwargs) -> None:
        self.idx_file = idx_file or os.path.splitext(ann_file)[0] + ".idx"
        super().__init__(ann_file, *args, **kwargs)

    def load_columns(self) -> dict[str, Any]:
        self._require_files()
        self._records = RecordFile(self.ann_file)
        problems = Problems()
        stamp = _stamp(self.ann_file, self.idx_file)
        found = _remembered(self.ann_file, stamp)
        if found is None:
            found = _find_images(self._records, *_read_index(self.idx_file, problems), problems)
            if not problems and len(found[0]) >= _SLOW:
                _remember(self.ann_file, stamp, found)
        keys, offsets, labels = found
        usable = labels >= 0
        for row in np.flatnonzero(usable & (offsets + 8 > self._records.size)):
            problems.add("record beyond the end of the file", f"record {keys[row]}")
            usable[row] = False
        for label in np.unique(labels[usable]):
            if kind := self._label_problem(int(label)):
                rows = np.flatnonzero(usable & (labels == label))
                usable[rows] = False
                for row in rows:
                    problems.add(kind, f"record {keys[row]}", int(label))
        counted = f"{len(keys):,} images"
        keys, offsets, labels = keys[usable], offsets[usable], labels[usable]
        self._settle_samples(self.ann_file, problems, counted, len(keys))
        kept, numbers = self._number_identities(labels, self.ann_file)
        return {
            "label": numbers,
            "record_key": keys[kept],
            "record_offset": offsets[kept],
            "record_label": labels[kept],
        }

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """One image with its bytes, ``img_bytes``; raises ``DatasetError`` if damaged."""
        info = super().get_data_info(idx)
        record = self._records.read(int(info.pop("record_offset")))
        expected = int(info.pop("record_label"))
        del info["record_key"]
        if record.label != expected:
            raise DatasetError(
                f"{info['img_path']}: has the label {record.labels[0]}, but its neighbors say "
                f"{expected}; the record or the index is damaged.",
                kind="record with another label than its neighbors",
            )
        return {**info, "img_bytes": record.image}

    def _describe(self, row: int) -> str:
        return f"{self.ann_file}[{self._columns['record_key'][row]}]"


class ImageRecord(NamedTuple):
    """A record's labels, float32 of shape (L,) with L at least 1, and the encoded image."""

    labels: np.ndarray
    image: bytes
    has_label_list: bool

    @property
    def label(self) -> int:
        """The identity; -1 if the label is not a non-negative integer."""
        return _integer(self.labels[0])


class RecordFile:
    """Random access to the records of one ``.rec`` file.

    Reads give their own position, so that processes which share the open file do not disturb each
    other. A pickled copy reopens the file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = os.path.getsize(path)
        self._file: BinaryIO | None = None

    def __getstate__(self) -> dict:
        return {"path": self.path, "size": self.size, "_file": None}

    def read_content(self, offset: int) -> bytes:
        """The content of the record at byte ``offset``; raises ``DatasetError`` if damaged."""
        kind, length = self._part(offset)
        if kind == _WHOLE:
            return self._bytes(offset + _PART.size, length)
        parts, expected = [], (_FIRST,)
        while True:
            if kind not in expected:
                raise self._damaged(offset, f"has parts out of order (a part of kind {kind})")
            parts.append(self._bytes(offset + _PART.size, length))
            if kind == _LAST:
                return struct.pack("<I", MAGIC).join(parts)
            expected = (_MIDDLE, _LAST)
            offset += _PART.size + (length + 3) // 4 * 4
            kind, length = self._part(offset)

    def read(self, offset: int) -> ImageRecord:
        """The labels and the image of the record at byte ``offset``."""
        return self._unpack(self.read_content(offset), offset)

    def read_labels(self, offset: int) -> ImageRecord:
        """Like :meth:`read`, with at most the first bytes of the image."""
        kind, length = self._part(offset)
        if offset + _PART.size + length > self.size:
            raise self._damaged(offset, f"ends beyond the end of the file of {self.size:,} bytes")
        if kind == _WHOLE:
            start = self._bytes(offset + _PART.size, min(length, _HEADER.size + 16))
            count = int.from_bytes(start[:4], "little")
            if len(start) == length or _HEADER.size + 4 * count < len(start):
                return self._unpack(start, offset)
        return self.read(offset)

    def _unpack(self, data: bytes, offset: int) -> ImageRecord:
        if len(data) < _HEADER.size:
            raise self._damaged(offset, f"is too short for a header: {len(data)} bytes")
        count, label, _, _ = _HEADER.unpack_from(data)
        end = _HEADER.size + 4 * count
        if count > _MOST_LABELS or end > len(data):
            raise self._damaged(offset, f"announces {count:,} labels in {len(data):,} bytes")
        labels = (
            np.frombuffer(data, "<f4", count, _HEADER.size) if count else np.array([label], "f4")
        )
        return ImageRecord(labels, data[end:], count > 0)

    def _part(self, offset: int) -> tuple[int, int]:
        magic, word = _PART.unpack(self._bytes(offset, _PART.size))
        if magic != MAGIC:
            raise self._damaged(offset, f"begins with {magic:#x} instead of {MAGIC:#x}")
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


def _stamp(*files: str) -> np.ndarray:
    """Sizes and times of files, by which a change is noticed."""
    facts = [os.stat(file) for file in files]
    return np.array([(fact.st_size, fact.st_mtime_ns) for fact in facts], dtype=np.int64)


_Found = tuple[np.ndarray, np.ndarray, np.ndarray]


def _remembered(path: str, stamp: np.ndarray) -> _Found | None:
    """What :func:`_remember` kept for the files as they are; None without it."""
    try:
        with np.load(f"{path}.labels.npz", allow_pickle=False) as kept:
            if np.array_equal(kept["stamp"], stamp):
                return kept["keys"], kept["offsets"], kept["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    return None


def _remember(path: str, stamp: np.ndarray, found: _Found) -> None:
    keys, offsets, labels = found
    with (
        contextlib.suppress(UserError),
        atomic_write(f"{path}.labels.npz") as partial,
        partial.open("wb") as file,
    ):
        np.savez(file, stamp=stamp, keys=keys, offsets=offsets, labels=labels)


def _read_index(path: str, problems: Problems) -> tuple[np.ndarray, np.ndarray]:
    """Keys in ascending order and the byte offset of each record, from lines ``key offset``."""
    table, lines = read_integers(path, 2, problems)
    keys, first = np.unique(table[:, 0], return_index=True)
    for row in np.setdiff1d(np.arange(len(table)), first):
        problems.add("key used twice in the index", f"{path}:{lines[row]}", int(table[row, 0]))
    return keys, table[first, 1]


def _find_images(
    records: RecordFile, keys: np.ndarray, offsets: np.ndarray, problems: Problems
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find which records are images, and their labels.

    If record 0 has a list of labels, it holds two numbers a and b: images have the keys below a,
    and records a ... b - 1 describe one identity each by two labels, its first key and the key
    after its last. Then three images per identity are read instead of all. If record 0 has a
    single label, it is an image like all others, and every record is read.

    ``keys`` and ``offsets`` are those of all records, int64 (N,), by ascending key. Returns keys,
    offsets and labels of the images, each int64 (M,); unusable labels are -1.
    """

    def read(key: int) -> ImageRecord | None:
        row = int(np.searchsorted(keys, key))
        if row == len(keys) or keys[row] != key:
            return None
        try:
            return records.read_labels(int(offsets[row]))
        except DatasetError:
            return None

    wanted, ranges = keys, {}
    first = records.read_labels(int(offsets[0])) if len(keys) and keys[0] == 0 else None
    if first is not None and first.has_label_list:
        if len(first.labels) < 2 or not 1 <= first.labels[0] <= first.labels[1]:
            raise DatasetError(
                f"{records.path}: record 0 must hold two ascending numbers, the end of the images "
                f"and of the identities; it holds {first.labels[:4].tolist()}."
            )
        announced, identities_end = (_integer(value) for value in first.labels[:2])
        images_end = _end_of_images(read, announced)
        identities_end += _rounding(identities_end)
        wanted = keys[(keys >= 1) & (keys < images_end)]
        missing = images_end - 1 - len(wanted)
        if missing > len(wanted) + _MANY:  # a damaged record 0 may announce any number
            few = f"{len(wanted):,} of {images_end - 1:,}"
            problems.add("index that lists few of the image records", few)
        elif missing:
            for key in np.setdiff1d(np.arange(1, images_end), wanted):
                problems.add("image record that the index does not list", f"record {key}")
        identities = keys[(keys >= images_end) & (keys < identities_end)]
        ranges = _labels_of_ranges(read, identities.tolist(), images_end)
    labels = np.full(len(wanted), -1, dtype=np.int64)
    for (start, end), label in ranges.items():
        labels[np.searchsorted(wanted, start) : np.searchsorted(wanted, end)] = label
    offsets = offsets[np.searchsorted(keys, wanted)]
    for row in np.flatnonzero(labels < 0):
        labels[row] = _checked_label(records, f"record {wanted[row]}", int(offsets[row]), problems)
    return wanted, offsets, labels


def _rounding(count: int) -> int:
    """How far a count in a header, a float32, may be from the true one."""
    # Far beyond the largest set it is damaged.
    return 0 if count < 1 << 24 or count > 1 << 30 else int(np.spacing(np.float32(count)))


def _end_of_images(read, announced: int) -> int:
    """The key after the last image, where the header may be rounded.

    A record that describes an identity has two labels and no image.
    """
    error = _rounding(announced)
    for key in range(announced - error, announced + error + 1) if error else ():
        record = read(key)
        if record is not None and len(record.labels) > 1 and not record.image:
            return key
    return announced


def _labels_of_ranges(read, identities: list[int], images_end: int) -> dict[tuple[int, int], int]:
    """Ranges of image keys whose first, middle and last image agree on their label.

    Empty if most ranges disagree: the file was shuffled after the ranges were written, and some
    would agree by chance.
    """
    found, disagree = {}, 0
    for key in identities:
        record = read(key)
        if record is None or len(record.labels) < 2:
            continue
        start, end = (_integer(value) for value in record.labels[:2])
        if not 1 <= start < end <= images_end:
            continue
        three = [read(image) for image in (start, (start + end) // 2, end - 1)]
        labels = {image.label if image else -1 for image in three}
        if len(labels) == 1 and min(labels) >= 0:
            (found[start, end],) = labels
        else:
            disagree += 1
    return found if disagree <= len(found) else {}


def _checked_label(records: RecordFile, name: str, offset: int, problems: Problems) -> int:
    """The label of an image record; -1, and a problem, if it has none that can be used."""
    try:
        record = records.read_labels(offset)
    except DatasetError as error:
        problems.add("record that cannot be read", name, str(error))
        return -1
    if not record.image:
        problems.add("record without an image", name)
        return -1
    if record.label < 0:
        problems.add("label that is not an integer", name, float(record.labels[0]))
    return record.label


def _integer(value: float) -> int:
    value = float(value)
    return int(value) if value >= 0 and value.is_integer() else -1
