"""Record files, written here after the format's description: reading, labels, damage, workers."""

import copy
import pickle
import struct

import cv2
import numpy as np
import pytest

from negvision.errors import DatasetError, Problems
from negvision.face.datasets import records
from negvision.face.datasets.records import ImageRecord, RecordFile, _end_of_images, _read_index

MAGIC = struct.pack("<I", 0xCED7230A)


def record(data: bytes) -> bytes:
    """One record; cut into parts where the content holds the magic number at a multiple of 4."""
    parts, start = [], 0
    for position in range(0, len(data) - 3, 4):
        if data[position : position + 4] == MAGIC:
            parts.append(data[start:position])
            start = position + 4
    parts.append(data[start:])
    out = b""
    kinds = [0] if len(parts) == 1 else [1, *[2] * (len(parts) - 2), 3]
    for kind, part in zip(kinds, parts, strict=True):
        out += MAGIC + struct.pack("<I", kind << 29 | len(part)) + part + b"\0" * (-len(part) % 4)
    return out


def image_record(label, image: bytes, labels=None) -> bytes:
    count = 0 if labels is None else len(labels)
    header = struct.pack("<IfQQ", count, 0.0 if labels else label, 0, 0)
    return record(header + struct.pack(f"<{count}f", *(labels or [])) + image)


class Records:
    """A set in a folder: ``records`` maps keys to bytes of the file."""

    def __init__(self, faces, jpeg) -> None:
        self.faces, self.jpeg = faces, jpeg
        self.records: dict[int, bytes] = {}

    def insightface(self, labels, ranges=None) -> None:
        """Images 1 ... N, then one record an identity, then the header in record 0."""
        for key, label in enumerate(labels, 1):
            self.records[key] = image_record(label, self.jpeg(key))
        if ranges is None:
            keys = {label: key for key, label in enumerate(labels, 1)}
            ranges = [(labels.index(label) + 1, last + 1) for label, last in sorted(keys.items())]
        for key, (start, end) in enumerate(ranges, len(labels) + 1):
            self.records[key] = image_record(0, b"", [start, end])
        end = len(labels) + 1
        self.records[0] = image_record(0, b"", [end, end + len(ranges)])

    def write(self) -> None:
        offsets, data = {}, b""
        for key, content in self.records.items():
            offsets[key] = len(data)
            data += content
        (self.faces.root / "train.rec").write_bytes(data)
        lines = [f"{key}\t{offset}" for key, offset in offsets.items()]
        self.faces.text("train.idx", *lines)
        self.offsets = offsets

    def damage(self, key: int, at: int, data: bytes) -> None:
        path = self.faces.root / "train.rec"
        content = bytearray(path.read_bytes())
        start = self.offsets[key] + at
        content[start : start + len(data)] = data
        path.write_bytes(content)

    def build(self, **kwargs):
        return self.faces.dataset("FaceRecordDataset", ann_file="train.rec", **kwargs)


@pytest.fixture
def rec(faces, make_jpeg):
    return Records(faces, make_jpeg)


LABELS = [0, 0, 0, 1, 1, 2, 2, 2, 2]


@pytest.fixture
def good(rec):
    rec.insightface(LABELS)
    rec.write()
    return rec


def pixels(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def test_images_and_labels(good, make_jpeg, log):
    dataset = good.build()
    assert dataset.labels.tolist() == LABELS
    assert dataset.metainfo["num_classes"] == 3
    for i in range(9):
        sample = dataset[i]
        found = sample["inputs"].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(found, pixels(make_jpeg(i + 1)))
        assert sample["data_samples"].label == LABELS[i]
        assert sample["data_samples"].img_path == f"{good.faces.root}/train.rec[{i + 1}]"
    assert set(dataset.get_data_info(0)) == {"img_path", "img_bytes", "label", "sample_idx"}
    assert log == []


def test_ranges_avoid_reading_all_records(rec, monkeypatch):
    rec.insightface([0] * 50 + [1] * 50)
    rec.write()
    read, original = [], RecordFile.read_labels
    counted = lambda self, offset: read.append(offset) or original(self, offset)  # noqa: E731
    monkeypatch.setattr(RecordFile, "read_labels", counted)
    dataset = rec.build()
    assert dataset.labels.tolist() == [0] * 50 + [1] * 50
    assert len(read) == 1 + 2 * 4


def test_without_a_header_every_record_is_an_image(rec, log):
    for key, label in enumerate([3, 3, 8]):
        rec.records[key] = image_record(label, rec.jpeg(key))
    rec.write()
    dataset = rec.build()
    assert dataset.labels.tolist() == [0, 0, 1]
    assert [line for line in log if "become 0 ... 1" in line]
    assert rec.build(num_classes=9).labels.tolist() == [3, 3, 8]


@pytest.mark.parametrize(
    "labels",
    [[0, 1, 1, 0, 1, 0, 2, 2, 2], [2, 0, 1, 1, 0, 2, 0, 1, 2], [0, 1, 0, 1, 2, 0, 2, 1, 1]],
)
@pytest.mark.parametrize(
    "ranges", [[(1, 4), (4, 7), (7, 10)], [(1, 3), (0, 9)], [(2, 2), (7, 99)], []]
)
def test_labels_are_read_where_ranges_are_of_no_use(rec, labels, ranges):
    """Images may be shuffled, and a range may agree by chance, as the first of the third case."""
    rec.insightface(labels, ranges=ranges)
    rec.write()
    assert rec.build().labels.tolist() == labels


def test_a_second_start_takes_the_labels_from_the_file_beside_the_records(rec, monkeypatch):
    monkeypatch.setattr(records, "_SLOW", 3)
    rec.insightface([0, 1, 0, 1])  # shuffled: every record is read
    rec.write()
    first = rec.build()
    monkeypatch.setattr(records, "_find_images", None)
    second = rec.build()
    assert second.labels.tolist() == first.labels.tolist() == [0, 1, 0, 1]
    assert second[3]["data_samples"].label == 1
    monkeypatch.undo()
    rec.records[2] = image_record(5, rec.jpeg(2))
    rec.write()
    assert rec.build().metainfo["num_classes"] == 3  # the files have changed
    kept = rec.faces.root / "train.rec.labels.npz"
    kept.write_bytes(kept.read_bytes()[:50])
    assert len(rec.build()) == 4


def test_label_lists_of_any_length(rec):
    for key, labels in enumerate([[4.0, 9.0], [4.0] * 4, [5.0] * 5, [5.0] * 600], 1):
        rec.records[key] = image_record(0, rec.jpeg(key), labels)
    rec.write()
    dataset = rec.build(num_classes=6)
    assert dataset.labels.tolist() == [4, 4, 5, 5]
    assert dataset.get_data_info(3)["img_bytes"] == rec.jpeg(4)


def test_content_with_the_magic_number_is_read_in_full(tmp_path):
    contents = [
        b"",
        b"a",
        MAGIC,
        b"abcd" + MAGIC + b"efg",
        MAGIC + MAGIC + MAGIC,
        b"ab" + MAGIC + b"cd",  # not at a multiple of 4, so not split
        b"abcd" * 3 + MAGIC + b"abcdefgh" + MAGIC,
    ]
    path = tmp_path / "a.rec"
    path.write_bytes(b"".join(map(record, contents)))
    file, offset = RecordFile(str(path)), 0
    for content in contents:
        assert file.read_content(offset) == content
        offset += len(record(content))


# Damage.


@pytest.fixture
def check_both_modes(in_both_modes):
    def check(rec, kind, left, says):
        dataset = in_both_modes(lambda **kw: rec.build(num_classes=3, **kw), kind, says)
        assert dataset.labels.tolist() == left

    return check


def test_corrupt_record_at_the_end_of_a_range(good, check_both_modes):
    good.damage(5, 0, b"\0\0\0\0")
    left = LABELS[:4] + LABELS[5:]
    check_both_modes(good, "record that cannot be read", left, "record 5")


def test_file_cut_off(good, check_both_modes):
    path = good.faces.root / "train.rec"
    # Record 9 is the last image; the identities and the header go to the front.
    good.records = {key: good.records[key] for key in [0, 10, 11, 12, *range(1, 10)]}
    good.write()
    path.write_bytes(path.read_bytes()[:-200])
    check_both_modes(good, "record that cannot be read", LABELS[:8], "record 9")


def test_record_missing_from_the_index(good, check_both_modes):
    lines = (good.faces.root / "train.idx").read_text().splitlines()
    good.faces.text("train.idx", *lines[:3], *lines[4:])
    kind = "image record that the index does not list"
    check_both_modes(good, kind, LABELS[:3] + LABELS[4:], "record 4")


def test_first_record_with_absurd_counts(good, check_both_modes):
    good.records[0] = image_record(0, b"", [1e30, 2e30])
    del good.records[10], good.records[11], good.records[12]
    good.write()
    kind = "index that lists few of the image records"
    check_both_modes(good, kind, LABELS, "9 of 1,000")


@pytest.mark.parametrize(
    ("line", "kind", "says"),
    [
        ("13\t12x", "line that is not 2 integers", "train.idx:14"),
        ("4\t0", "key used twice in the index", "train.idx:14: 4"),
    ],
)
def test_bad_index_line(good, check_both_modes, line, kind, says):
    path = good.faces.root / "train.idx"
    path.write_text(path.read_text() + line + "\n")
    check_both_modes(good, kind, LABELS, says)


@pytest.mark.parametrize("label", [-1.0, 0.5, float("nan")])
def test_label_that_is_not_an_integer(rec, check_both_modes, label):
    for key, value in enumerate([0, label, 1], 1):
        rec.records[key] = image_record(value, rec.jpeg(key))
    rec.write()
    check_both_modes(rec, "label that is not an integer", [0, 1], "record 2")


def test_unusable_records(rec, check_both_modes):
    rec.insightface([0, 0, 7, 2])
    rec.write()
    kind = "label out of range: num_classes is 3"
    check_both_modes(rec, kind, [0, 0, 2], "record 3: 7")
    rec.records = {1: image_record(0, rec.jpeg(1)), 2: image_record(1, b"")}
    rec.write()
    check_both_modes(rec, "record without an image", [0], "record 2")


@pytest.mark.parametrize("mode", ["error", "skip"])
@pytest.mark.parametrize("labels", [[0.0], [5.0, 2.0], [float("nan"), 3.0]])
def test_useless_first_record(good, mode, labels):
    good.records[0] = image_record(0, b"", labels)
    good.write()
    with pytest.raises(DatasetError, match="record 0 must hold two ascending numbers"):
        good.build(on_bad_sample=mode)
    good.damage(0, 0, b"junk")
    with pytest.raises(DatasetError, match=r"the record at byte .* begins with"):
        good.build(on_bad_sample=mode)


@pytest.mark.parametrize(
    ("at", "data", "says"),
    [
        (0, b"junk", "begins with 0x6b6e756a instead of 0xced7230a"),
        (4, struct.pack("<I", 1 << 28), "ends beyond the end of the file"),
        (4, struct.pack("<I", 4), "is too short for a header: 4 bytes"),
        (4, struct.pack("<I", 2 << 29 | 8), "has parts out of order"),
        (4, struct.pack("<I", 1 << 29 | 8), "begins with"),
        (8, struct.pack("<I", 1 << 31), "announces 2,147,483,648 labels"),
        (12, struct.pack("<f", 1.0), "has the label 1.0, but its neighbors say 0"),
        (32, b"\0" * 400, "train.rec[2]: not an image"),
    ],
)
def test_corrupt_record_found_in_training(rec, log, at, data, says):
    """Record 2 is not the first, middle or last of its range, so it is not read at the start."""
    rec.insightface([0] * 6 + [1] * 3)
    rec.write()
    rec.damage(2, at, data)
    with pytest.raises(DatasetError) as caught:
        rec.build()[1]
    assert says in str(caught.value)
    assert "train.rec" in str(caught.value)
    dataset = rec.build(on_bad_sample="skip")
    assert len(dataset) == 9
    for _ in range(3):
        assert dataset[1]["data_samples"].sample_idx != 1
    assert dataset.skipped_images[f"{rec.faces.root}/train.rec[2]"] >= 3
    assert len([line for line in log if "train.rec" in line]) == 1
    with pytest.raises(DatasetError):
        rec.build(on_bad_sample="skip", test_mode=True)[1]


@pytest.mark.parametrize("mode", ["error", "skip"])
def test_empty_files(good, mode):
    (good.faces.root / "train.idx").write_text("")
    with pytest.raises(DatasetError, match="lists no image"):
        good.build(on_bad_sample=mode)
    (good.faces.root / "train.idx").unlink()
    with pytest.raises(DatasetError, match=r"Missing: idx_file .*/train.idx"):
        good.build(on_bad_sample=mode)


def test_index_elsewhere_and_unsorted(good, tmp_path):
    (good.faces.root / "train.idx").rename(good.faces.root / "other.txt")
    assert len(good.build(idx_file="other.txt")) == 9
    (tmp_path / "a.idx").write_text("7\t0\n\n2\t40\n5\t16\n")
    keys, offsets = _read_index(str(tmp_path / "a.idx"), problems := Problems())
    assert (keys.tolist(), offsets.tolist()) == ([2, 5, 7], [40, 16, 0])
    assert not problems


# Processes.


# Pickling is how the dataset gets to workers that are spawned.
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_reopen_the_file(good, clone):
    dataset = good.build()
    first = dataset.get_data_info(3)["img_bytes"]
    copied = clone(dataset)
    assert copied._records._file is None
    assert copied.get_data_info(3)["img_bytes"] == first
    assert copied.get_subset([8, 3])[0]["data_samples"].img_path.endswith("[9]")


@pytest.mark.parametrize("end", [2**24 - 1, 2**24, 2**24 + 1, 17_091_659, 2**25 + 3])
def test_the_end_of_the_images_is_found_where_float32_rounds_it(end):
    image = ImageRecord(np.zeros(1, np.float32), b"jpeg", False)
    identity = ImageRecord(np.zeros(2, np.float32), b"", True)
    announced = int(np.float32(end))
    assert _end_of_images(lambda key: image if key < end else identity, announced) == end
    assert _end_of_images(lambda key: None, announced) == announced
