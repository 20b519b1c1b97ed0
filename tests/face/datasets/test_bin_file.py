"""InsightFace's .bin: what the unpickler reads, what it refuses, and damaged files."""

import pickle

import cv2
import numpy as np
import pytest

from negvision.errors import DatasetError
from negvision.face.datasets.bin_file import read_bin

SAME = [True, False, True]


@pytest.fixture
def images(make_jpeg):
    """Six images of three pairs; image 3 equals image 0."""
    return [make_jpeg(i) for i in (0, 1, 2, 0, 3, 4)]


def write(faces, content, protocol=4) -> str:
    data = content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol)
    (faces.root / "lfw.bin").write_bytes(data)
    return str(faces.root / "lfw.bin")


def build(faces, **kwargs):
    return faces.dataset("FaceBinDataset", ann_file="lfw.bin", **kwargs)


def test_every_distinct_image_once(faces, images, log):
    write(faces, (images, SAME))
    dataset = build(faces)
    assert len(dataset) == 5
    assert dataset.metainfo["pairs"].tolist() == [[0, 1], [2, 0], [3, 4]]
    assert dataset.metainfo["same"].tolist() == SAME
    sample = dataset[3]["data_samples"]
    assert sample.img_path == f"{faces.root}/lfw.bin[4]"
    assert (sample.sample_idx, int(sample.label)) == (3, -1)
    expected = cv2.imdecode(np.frombuffer(images[4], np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(dataset[3]["inputs"].permute(1, 2, 0).numpy(), expected)
    assert log == []


def contents(images):
    return {
        "lists": (images, SAME),
        "list of both": [images, SAME],
        "tuples": (tuple(images), tuple(SAME)),
        "bytearrays": ([bytearray(image) for image in images], SAME),
        "arrays": ([np.frombuffer(image, np.uint8) for image in images], SAME),
        "flags in an array": (images, np.array(SAME)),
        "NumPy flags": (images, list(np.array(SAME))),
        "int flags": (images, [1, 0, 1]),
        "integer array, big endian": (images, np.array(SAME, dtype=">i4")),
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", contents([]))
def test_plain_content_in_all_protocols(faces, images, kind, protocol):
    found, same = read_bin(write(faces, contents(images)[kind], protocol))
    assert found == images
    assert same.tolist() == SAME


def test_module_names_of_both_numpy_versions(faces, images):
    data = pickle.dumps((images, [*np.array(SAME), np.float64(0)]), protocol=2)
    names = (b"numpy._core", b"numpy.core")
    for old, new in (names, names[::-1]):
        assert read_bin(write(faces, data.replace(old, new)))[1].tolist() == [*SAME, False]


def python2_pickle(images, flags) -> bytes:
    """As Python 2 writes it in protocol 2: strings as BINSTRING, NumPy flags by module names."""
    parts = [pickle.PROTO + b"\x02", pickle.MARK, pickle.EMPTY_LIST, pickle.MARK]
    for image in images:
        parts.append(pickle.BINSTRING + len(image).to_bytes(4, "little") + image)
    parts += [pickle.APPENDS, pickle.EMPTY_LIST, pickle.MARK]
    for flag in flags:
        parts += [
            b"cnumpy.core.multiarray\nscalar\n" + pickle.MARK,
            b"cnumpy\ndtype\n" + pickle.MARK + b"U\x02b1K\x00K\x01" + pickle.TUPLE + pickle.REDUCE,
            pickle.MARK + b"K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00",
            pickle.TUPLE + pickle.BUILD,
            b"U\x01" + bytes([flag]) + pickle.TUPLE + pickle.REDUCE,
        ]
    return b"".join([*parts, pickle.APPENDS, pickle.TUPLE, pickle.STOP])


def test_file_of_python_2(faces, images):
    data = python2_pickle(images, SAME)
    found, same = read_bin(write(faces, data))
    assert found == images and same.tolist() == SAME


def image_of(data: bytes) -> bytes:
    """A pickle, protocol 0, of one image and one flag; ``data`` makes the image."""
    return b"((l" + data + b"a(lI01\nat."


def call(name: bytes, arguments: bytes) -> bytes:
    return b"c" + name + b"\n(" + arguments + b"tR"


def array_of(dtype: bytes, shape: bytes = b"I1\n", data: bytes = b"Va\n") -> bytes:
    made = call(b"numpy._core.multiarray\n_reconstruct", b"cnumpy\nndarray\n(I0\ntVb\n")
    kind = call(b"numpy\ndtype", b"V" + dtype + b"\nI0\nI1\n")
    return made + b"(I1\n(" + shape + b"t" + kind + b"I00\n" + data + b"tb"


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (call(b"builtins\nbytearray", b"I99999999999\n"), "images are bytes; found int"),
        (array_of(b"O8"), "array of type 'O8'"),
        (array_of(b"V8"), "array of type 'V8'"),
        (array_of(b"b1,O8"), "array of type 'b1,O8'"),
        (array_of(b"u1", b"I99999999999\n", call(b"builtins\nbytes", b"")), "with 0 bytes"),
        (call(b"_codecs\nencode", b"V41\nVhex\n"), "bytes encoded as 'hex'"),
        (b"cnumpy\ndtype.__class__\n", "asks for numpy.dtype.__class__"),
        (b"\x8c\x05numpy\x8c\x0fdtype.__class__\x93", "asks for numpy.dtype.__class__"),
        (b"Vx\nQ", "persistent"),
        # BUILD must not be able to change what a name stands for.
        (b"c_codecs\nencode\n(N}V__func__\nV\nstb", "images are bytes; found _Call"),
        (b"cnumpy\ndtype\n}V__setstate__\nc_codecs\nencode\nsb}b", "images are bytes; found _Call"),
        (b"Vx\n", "images are bytes; found str"),
    ],
)
def test_tricks(faces, image, says):
    with pytest.raises(DatasetError) as caught:
        read_bin(write(faces, image_of(image)))
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{faces.root}/lfw.bin: ")
    harmless = image_of(call(b"_codecs\nencode", b"Vab\nVlatin1\n"))
    assert read_bin(write(faces, harmless))[0] == [b"ab"]


@pytest.mark.parametrize(
    "content", [b"", b"<html>", 7, (1, 2, 3), ([1, 2], [True]), ({"a": 1}, 5), (["x"], [1])]
)
def test_other_file(faces, content):
    with pytest.raises(DatasetError, match=r"lfw.bin: (not a verification file|images are bytes)"):
        read_bin(write(faces, content))


def test_more_flags_than_images(faces, images, in_both_modes):
    write(faces, (images[:5], SAME))
    dataset = in_both_modes(lambda **kw: build(faces, **kw), "file with 5 images and 3 flags")
    assert dataset.metainfo["pairs"].tolist() == [[0, 1], [2, 0]]


def test_damaged_image(faces, images, log):
    images[2] = images[2][: len(images[2]) // 2]
    write(faces, (images, SAME))
    with pytest.raises(DatasetError, match=r"lfw.bin\[2\]: truncated JPEG"):
        build(faces)[2]
    dataset = build(faces, on_bad_sample="skip")
    assert dataset.metainfo["pairs"].tolist() == [[0, 1], [2, 3]]
    assert dataset[3]["data_samples"].img_path.endswith("lfw.bin[5]")
    assert any("1 x unreadable image" in line for line in log)


@pytest.mark.parametrize("mode", ["error", "skip"])
def test_no_pair(faces, mode):
    write(faces, ([], []))
    with pytest.raises(DatasetError, match="lists no pair"):
        build(faces, on_bad_sample=mode)
    write(faces, ([b"", b""], [True]))
    if mode == "skip":
        with pytest.raises(DatasetError, match="No pair is left"):
            build(faces, on_bad_sample=mode)
