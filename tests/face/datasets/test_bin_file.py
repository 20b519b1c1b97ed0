"""InsightFace's .bin: what the unpickler reads, what it refuses, and what damage does."""

import os
import pickle
import pickletools

import numpy as np
import pytest

from negvision.errors import DatasetError
from negvision.face.datasets.bin_pickle import read_bin

SAME = [True, False, True]


@pytest.fixture
def images(make_jpeg):
    """Six images of three pairs; image 3 is image 0 once more."""
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
    import cv2

    expected = cv2.imdecode(np.frombuffer(images[4], np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(dataset[3]["inputs"].permute(1, 2, 0).numpy(), expected)
    assert log == []


def contents(images):
    arrays = [np.frombuffer(image, np.uint8) for image in images]
    return {
        "lists": (images, SAME),
        "list of both": [images, SAME],
        "tuples": (tuple(images), tuple(SAME)),
        "bytearrays": ([bytearray(image) for image in images], SAME),
        "arrays": (arrays, SAME),
        "flags in an array": (images, np.array(SAME)),
        "NumPy flags": (images, list(np.array(SAME))),
        "int flags": (images, [1, 0, 1]),
        "integer array, big endian": (images, np.array(SAME, dtype=">i4")),
    }


KINDS = list(contents([b""]))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", KINDS)
def test_plain_content_in_all_protocols(faces, images, kind, protocol):
    path = write(faces, contents(images)[kind], protocol)
    found, same = read_bin(path)
    assert found == images
    assert same.tolist() == SAME


@pytest.mark.parametrize(("old", "new"), [(b"numpy._core", b"numpy.core"), (b"", b"")])
def test_module_names_of_both_numpy_versions(faces, images, old, new):
    content = (images, list(np.array(SAME)) + [np.float64(0)])
    data = pickle.dumps((images, content[1]), protocol=2)
    if np.__version__.startswith("1"):
        old, new = new, old
    written = data.replace(old, new) if old else data
    assert not old or (old in data and old not in written)
    assert read_bin(write(faces, written))[1].tolist() == [*SAME, False]


def python2_pickle(images, flags) -> bytes:
    """As Python 2 writes it in protocol 2: strings as BINSTRING, a NumPy flag by its modules."""
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
    pickletools.dis(data, out=open(os.devnull, "w"))  # noqa: SIM115 (is well formed)
    found, same = read_bin(write(faces, data))
    assert found == images and same.tolist() == SAME


class Exploit:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_that_would_run_code_does_not(faces, images, protocol):
    target = faces.root / "created"
    exploit = Exploit(os.system, f"touch {target}")
    data = pickle.dumps((images, SAME, exploit), protocol=protocol)
    with pytest.raises(DatasetError, match=r"lfw.bin: the pickle asks for (posix|nt|os)\.system"):
        read_bin(write(faces, data))
    assert not target.exists()
    pickle.loads(data)  # the exploit is one
    assert target.exists()


@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (eval, ("1",), "eval"),
        (getattr, ("", "join"), "getattr"),
        (__import__, ("os",), "__import__"),
        (np.load, ("x.npy",), "load"),
        (np.frombuffer, (b"ab", "u1"), "frombuffer"),
        (print, ("x",), "print"),
        (type, ("x",), "type"),
        (memoryview, (b"x",), "memoryview"),
    ],
)
def test_any_other_global_is_named(faces, images, function, arguments, named):
    path = write(faces, (images, [Exploit(function, *arguments)]))
    with pytest.raises(DatasetError, match=rf"asks for \S*\b{named}, which"):
        read_bin(path)


def reduce_of(name: bytes, arguments: bytes) -> bytes:
    return b"c" + name + b"\n(" + arguments + b"tR."


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (reduce_of(b"builtins\nbytearray", b"I99999999999\n"), "bytes made of a int"),
        (reduce_of(b"numpy\ndtype", b"VO8\nI0\nI1\n"), "array of type 'O8'"),
        (reduce_of(b"numpy\ndtype", b"VV8\nI0\nI1\n"), "array of type 'V8'"),
        (reduce_of(b"_codecs\nencode", b"V41\nVhex\n"), "bytes written as 'hex'"),
        (b"cnumpy\ndtype.__class__\n.", "asks for numpy.dtype.__class__"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0fdtype.__class__\x93.", "asks for numpy.dtype.__class__"),
        (b"Vx\nQ.", "persistent"),
        # BUILD with slots would set attributes of a stand-in.
        (b"c_codecs\nencode\n(N}V__func__\nV\nstb.", "not a verification file: a pickle"),
        (b"cnumpy\ndtype\n}V__setstate__\nc_codecs\nencode\nsb}b.", "not a verification file"),
    ],
)
def test_tricks(faces, data, says):
    with pytest.raises(DatasetError) as caught:
        read_bin(write(faces, data))
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{faces.root}/lfw.bin: ")


def test_array_that_lies_about_its_size(faces, images):
    data = pickle.dumps(([np.frombuffer(b"abcd", np.uint8)], [True]), protocol=2)
    cut = data.replace(b"K\x04\x85", b"K\x05\x85")
    assert cut != data
    with pytest.raises(DatasetError, match=r"array of shape \(5,\).* with 4 bytes"):
        read_bin(write(faces, cut))


@pytest.mark.parametrize("mode", ["error", "skip"])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.999])
def test_truncated_file(faces, images, share, mode):
    data = pickle.dumps((images, SAME), protocol=4)
    write(faces, data[: int(share * len(data))])
    with pytest.raises(DatasetError, match=r"(?s)lfw.bin: not a verification file.*too early"):
        build(faces, on_bad_sample=mode)


@pytest.mark.parametrize(
    "content", [b"<html>404</html>", 7, (1, 2, 3), ([1, 2], [True]), ({"a": 1}, 5), (["x"], [1])]
)
def test_file_that_is_something_else(faces, content):
    with pytest.raises(DatasetError, match=r"lfw.bin: (not a verification file|images are bytes)"):
        read_bin(write(faces, content))


def test_more_flags_than_images(faces, images, log):
    write(faces, (images[:5], SAME))
    says = "file with 5 images and 3 flags"
    with pytest.raises(DatasetError, match=says):
        build(faces)
    dataset = build(faces, on_bad_sample="skip")
    assert dataset.metainfo["pairs"].tolist() == [[0, 1], [2, 0]]
    assert says in log[0]


def test_damaged_image(faces, images, log):
    images[2] = images[2][: len(images[2]) // 2]
    write(faces, (images, SAME))
    with pytest.raises(DatasetError, match=r"lfw.bin\[2\]: truncated JPEG"):
        build(faces)[2]
    dataset = build(faces, on_bad_sample="skip")
    assert dataset.metainfo["pairs"].tolist() == [[0, 1], [2, 3]]
    assert dataset.metainfo["same"].tolist() == [True, True]
    assert dataset[3]["data_samples"].img_path.endswith("lfw.bin[5]")
    assert [line for line in log if "left out of 3 pairs: 1 x pair with an unreadable" in line]


@pytest.mark.parametrize("mode", ["error", "skip"])
def test_no_pair(faces, mode):
    write(faces, ([], []))
    with pytest.raises(DatasetError, match="holds no pair"):
        build(faces, on_bad_sample=mode)
    write(faces, ([b"", b""], [True]))
    if mode == "skip":
        with pytest.raises(DatasetError, match="No pair is left"):
            build(faces, on_bad_sample=mode)
