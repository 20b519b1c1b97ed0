"""Find out which records are images, and whose, while reading few of them."""

import numpy as np

from negvision.errors import DatasetError, Problems
from negvision.face.datasets.record_io import ImageRecord, RecordFile

_MANY = 1000


def find_images(
    records: RecordFile, keys: np.ndarray, offsets: np.ndarray, problems: Problems
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The image records and their labels.

    Where record 0 has a list of labels, it holds two numbers a and b: images have the keys below
    a, and records a ... b - 1 stand for one identity each, whose labels are the first key and the
    key after the last of its images. Then three images an identity are read rather than all. Where
    record 0 has a single label, it is an image like all others, and each is asked for its label.

    Args:
        records: The record file.
        keys: Rising, int64 of shape (N,).
        offsets: The byte of each record, int64 of shape (N,).
        problems: Takes the records that cannot be used.

    Returns:
        Keys, offsets and labels of the images, each int64 of shape (M,); the label is -1 where
        it cannot be used.

    Raises:
        DatasetError: record 0 is damaged, so that nothing is known about the others.
    """
    table = _Table(records, keys, offsets, problems)
    first = records.read_labels(int(offsets[0])) if len(keys) and keys[0] == 0 else None
    if first is None or not first.has_label_list:
        wanted = keys
        found = {}
    else:
        if len(first.labels) < 2 or not 1 <= first.labels[0] <= first.labels[1]:
            raise DatasetError(
                f"{records.path}: record 0 says where images and identities are, by two rising "
                f"numbers; it holds {first.labels[:4].tolist()}."
            )
        images_end, identities_end = (_whole(value) for value in first.labels[:2])
        wanted = keys[(keys >= 1) & (keys < images_end)]
        _count_missing(wanted, images_end, problems)
        identities = keys[(keys >= images_end) & (keys < identities_end)]
        found = _labels_of_ranges(table, identities.tolist(), images_end)
    labels = np.full(len(wanted), -1, dtype=np.int64)
    for (start, end), label in found.items():
        labels[np.searchsorted(wanted, start) : np.searchsorted(wanted, end)] = label
    for row in np.flatnonzero(labels < 0):
        labels[row] = table.label(int(wanted[row]))
    return wanted, offsets[np.searchsorted(keys, wanted)], labels


def label_of(record: ImageRecord) -> int:
    """The identity of an image record; -1 where its label is no whole number from 0 up."""
    return _whole(record.labels[0])


def _whole(value: float) -> int:
    value = float(value)
    return int(value) if value >= 0 and value.is_integer() else -1


def _count_missing(wanted: np.ndarray, images_end: int, problems: Problems) -> None:
    missing = images_end - 1 - len(wanted)
    if missing > len(wanted) + _MANY:
        # A damaged record 0 may announce any number.
        lists = f"{len(wanted):,} of {images_end - 1:,}"
        problems.add("index that lists few of the image records", lists)
    elif missing:
        for key in np.setdiff1d(np.arange(1, images_end), wanted):
            problems.add("image record that the index does not list", f"record {key}")


def _labels_of_ranges(
    table: "_Table", identities: list[int], images_end: int
) -> dict[tuple[int, int], int]:
    """Ranges of image keys whose first, middle and last image agree on their label.

    Images elsewhere are left to be asked. They all are where most ranges disagree: the file was
    shuffled after the ranges were written, and some would agree by chance.
    """
    found, disagree = {}, 0
    for key in identities:
        record = table.read(key)
        if record is None or len(record.labels) < 2:
            continue
        start, end = (_whole(value) for value in record.labels[:2])
        if not 1 <= start < end <= images_end:
            continue
        three = [table.read(image) for image in (start, (start + end) // 2, end - 1)]
        labels = {label_of(image) if image else -1 for image in three}
        if len(labels) == 1 and min(labels) >= 0:
            (found[start, end],) = labels
        else:
            disagree += 1
    return found if disagree <= len(found) else {}


class _Table:
    """Records by key."""

    def __init__(
        self, records: RecordFile, keys: np.ndarray, offsets: np.ndarray, problems: Problems
    ) -> None:
        self._records, self._keys, self._offsets = records, keys, offsets
        self._problems = problems

    def offset(self, key: int) -> int | None:
        row = int(np.searchsorted(self._keys, key))
        found = row < len(self._keys) and self._keys[row] == key
        return int(self._offsets[row]) if found else None

    def read(self, key: int) -> ImageRecord | None:
        """The labels of a record, or None where it cannot be read; nothing is counted."""
        offset = self.offset(key)
        if offset is None:
            return None
        try:
            return self._records.read_labels(offset)
        except DatasetError:
            return None

    def label(self, key: int) -> int:
        """The label of an image; -1, and counted, where it has none that can be used."""
        try:
            record = self._records.read_labels(self.offset(key))
        except DatasetError as error:
            self._problems.add("record that cannot be read", f"record {key}", str(error))
            return -1
        label = label_of(record)
        if not record.image:
            self._problems.add("record without an image", f"record {key}")
            return -1
        if label < 0:
            value = float(record.labels[0])
            self._problems.add("label that is not a whole number", f"record {key}", value)
        return label
