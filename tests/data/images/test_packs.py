"""Packs of images: good ones are read, damaged ones are named, and nothing in them runs."""

import os
import struct
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from negvision.data.images import packs
from negvision.data.images.packs import read_image, read_pack
from negvision.errors import DatasetError


@pytest.fixture(autouse=True)
def no_packs_of_other_tests():
    packs._last_packs.cache_clear()


def pictures(count=4):
    return np.random.default_rng(0).integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)


def arrays(count=4, **changes):
    """The arrays of a good pack, some changed; None takes one out."""
    encoded = [cv2.imencode(".png", picture)[1].tobytes() for picture in pictures(count)]
    ends = np.cumsum([0, *map(len, encoded)])
    good = {
        "data": np.frombuffer(b"".join(encoded), np.uint8),
        "offsets": ends.astype(np.int64),
        "labels": np.arange(count) % 2,
        "classes": np.array(["cat", "dog"]),
    }
    return {name: array for name, array in {**good, **changes}.items() if array is not None}


@pytest.fixture
def write(tmp_path):
    def write_pack(save=np.savez, **changes):
        path = tmp_path / "pack.npz"
        save(path, **arrays(**changes))
        return str(path)

    return write_pack


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_packed_images_are_read_back(write, save):
    pack = read_pack(write(save))
    assert len(pack) == 4 and pack.classes == ("cat", "dog")
    assert pack.labels.tolist() == [0, 1, 0, 1]
    for index, picture in enumerate(pictures()):
        found = cv2.imdecode(np.frombuffer(pack.encoded(index), np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(found, picture)


PROBLEMS = {
    "float labels": ({"labels": np.zeros(4)}, r"labels is float64 of shape \(4,\)"),
    "float offsets": ({"offsets": np.zeros(5)}, r"offsets is float64 of shape \(5,\)"),
    "signed bytes": ({"data": np.zeros(9, np.int8)}, r"data is int8 of shape \(9,\)"),
    "classes by number": ({"classes": np.arange(2)}, r"classes is int64 of shape \(2,\)"),
    "one offset too few": ({"labels": np.zeros(5, np.int64)}, "5 offsets for 5 labels"),
    "backwards, unsigned": (
        {"data": np.zeros(9, np.uint8), "offsets": np.array([0, 5, 3, 7, 9], np.uint64)},
        "1 of 4 offsets are less than the one before",
    ),
    "late start": (
        {"data": np.zeros(9, np.uint8), "offsets": np.array([1, 2, 3, 4, 9])},
        "the offsets run from 1 to 9, and there are 9 bytes",
    ),
    "beyond the end": (
        {"data": np.zeros(9, np.uint8), "offsets": np.array([0, 2, 3, 4, 10])},
        "the offsets run from 0 to 10, and there are 9 bytes",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_arrays_that_do_not_fit_are_named(write, name):
    changes, message = PROBLEMS[name]
    path = write(**changes)
    with pytest.raises(DatasetError, match=message) as caught:
        read_pack(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("absent", ["data", "offsets", "labels", "classes"])
def test_missing_array(write, absent):
    with pytest.raises(DatasetError, match=f"has no array '{absent}', only .*a pack of images"):
        read_pack(write(**{absent: None}))


class Payload:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("array", ["data", "classes"])
def test_a_payload_does_not_run(write, tmp_path, array):
    path = write(**{array: np.array([Payload(tmp_path / "made")], dtype=object)})
    with pytest.raises(DatasetError, match=r"not a pack of images, or a damaged one .*Download"):
        read_pack(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_truncated_file(write, share):
    path = write()
    content = Path(path).read_bytes()
    with open(path, "wb") as file:
        file.write(content[: int(share * len(content))])
    with pytest.raises(DatasetError, match="not a pack of images, or a damaged one"):
        read_pack(path)


def test_bytes_that_are_no_longer_compressed_data(write):
    path = write(np.savez_compressed, data=np.zeros(9000, np.uint8), offsets=np.arange(5) * 2250)
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("data.npy").header_offset
    content = bytearray(Path(path).read_bytes())
    # The local header is followed by a name and an extra field.
    name, extra = struct.unpack("<HH", content[start + 26 : start + 30])
    begin = start + 30 + name + extra
    content[begin : begin + 8] = b"\xff" * 8
    with open(path, "wb") as file:
        file.write(content)
    with pytest.raises(DatasetError, match=r"damaged one .*decompress"):
        read_pack(path)


def test_one_array_and_other_files(tmp_path):
    path = tmp_path / "pack.npz"
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DatasetError, match=r"holds one array; a pack of images is a .npz"):
        read_pack(str(path))
    path.write_text("<html>404</html>")
    with pytest.raises(DatasetError, match="not a pack of images"):
        read_pack(str(path))
    with pytest.raises(DatasetError, match="there is no such file of packed images"):
        read_pack(str(tmp_path))


def test_read_image_of_a_file_and_of_a_pack(write, tmp_path):
    path = write()
    for index, picture in enumerate(pictures()):
        np.testing.assert_array_equal(read_image(f"{path}:{index}"), picture)
    cv2.imwrite(str(tmp_path / "a:1.png"), pictures()[2])
    np.testing.assert_array_equal(read_image(tmp_path / "a:1.png"), pictures()[2])
    # The pack is in memory by now, for the next image of a report.
    os.remove(path)
    assert read_image(f"{path}:3").dtype == np.uint8


def test_read_image_errors(write, tmp_path):
    path = write()
    with pytest.raises(DatasetError, match=r"pack.npz:4: the pack has 4 images, counted from 0"):
        read_image(f"{path}:4")
    with pytest.raises(DatasetError, match=r"none.npz: there is no such file of packed images"):
        read_image(f"{tmp_path}/none.npz:0")
    with pytest.raises(DatasetError, match=r"none.png: cannot be read: No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DatasetError, match="cannot be read: Is a directory"):
        read_image(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"a.png: the file is empty"):
        read_image(tmp_path / "a.png")
    packs._last_packs.cache_clear()
    path = write(data=np.zeros(9, np.uint8), offsets=np.array([0, 0, 3, 4, 9]))
    with pytest.raises(DatasetError, match=r"pack.npz:0: the file is empty"):
        read_image(f"{path}:0")
    with pytest.raises(DatasetError, match=r"pack.npz:1: not an image of a known format"):
        read_image(f"{path}:1")
