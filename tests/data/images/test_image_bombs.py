"""Files that announce more pixels than fit the memory are refused before decoding."""

import contextlib
import pickle
import resource
import struct
import zlib

import cv2
import numpy as np
import pytest
from helpers.image_files import (
    PNG_SIGNATURE,
    encoded,
    frame_of_jpeg,
    jpeg_of_size,
    png_bomb,
    png_chunk,
    png_header,
)

from negvision.data.formats.label_files import read_label_image
from negvision.data.images import header
from negvision.data.images.header import read_header
from negvision.data.images.integrity import find_damage
from negvision.data.images.loading import LoadImageFromFile, decode_image
from negvision.data.images.packs import read_image
from negvision.errors import DatasetError
from negvision.face.datasets import FaceBinDataset, FacePairDataset

SIDE = 50_000


def image_of_file(path):
    return LoadImageFromFile()({"img_path": str(path)})


def image_of_bytes(path):
    return LoadImageFromFile()({"img_path": str(path), "img_bytes": path.read_bytes()})


def image_of_pack(path):
    data = path.read_bytes()
    pack = path.with_suffix(".npz")
    np.savez(
        pack,
        data=np.frombuffer(data, np.uint8),
        offsets=np.array([0, len(data)]),
        labels=np.array([0]),
        classes=np.array(["a"]),
    )
    return read_image(f"{pack}:0")


def pairs_of_bin(path):
    bomb, whole = path.read_bytes(), encoded(".png")
    content = ([bomb, whole, whole, whole], [True, True])
    path.with_suffix(".bin").write_bytes(pickle.dumps(content))
    dataset = FaceBinDataset(ann_file=str(path.with_suffix(".bin")), on_bad_sample="skip")
    assert len(dataset.metainfo["pairs"]) == 1
    return FaceBinDataset(ann_file=str(path.with_suffix(".bin")), pipeline=[LoadImageFromFile()])[0]


def pairs_of_files(path):
    (path.parent / "a.png").write_bytes(encoded(".png"))
    (path.parent / "pairs.txt").write_text(f"a.png {path.name} 1\n")
    return FacePairDataset(
        data_root=str(path.parent), ann_file="pairs.txt", on_bad_sample="skip"
    ).metainfo


READERS = [
    image_of_file, image_of_bytes, read_image, image_of_pack, read_label_image, pairs_of_bin,
    pairs_of_files,
]  # fmt: skip


@pytest.fixture(scope="module")
def bombs():
    return {"bomb.png": png_bomb(SIDE, SIDE), "bomb.jpg": jpeg_of_size(SIDE, SIDE)}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["bomb.png", "bomb.jpg"])
def test_fifty_thousand_by_fifty_thousand(tmp_path, bombs, name, reader):
    path = tmp_path / name
    path.write_bytes(bombs[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    says = r"bomb.*50,000 x 50,000 pixels.*134,217,728"
    if reader is pairs_of_files:  # reports shorten what they quote
        says = r"1 x unreadable image"
    with pytest.raises(DatasetError, match=says):
        reader(path)
    risen = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert risen < 100 * 1024


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".gif"])
def test_limit_is_exact_and_can_be_chosen(suffix):
    data = encoded(suffix, 20, 30)
    results = {"img_path": "x", "img_bytes": data}
    assert LoadImageFromFile(max_pixels=600)(dict(results))["img_shape"] == (20, 30)
    with pytest.raises(DatasetError, match="30 x 20 pixels, and an image of more than 599"):
        LoadImageFromFile(max_pixels=599)(dict(results))
    with pytest.raises(ValueError, match="max_pixels is 0"):
        LoadImageFromFile(max_pixels=0)


def test_labels_take_the_limit(tmp_path):
    transforms = pytest.importorskip("negvision.segmentation.datasets.transforms")
    path = tmp_path / "a.png"
    path.write_bytes(png_bomb(30, 20))
    results = {
        "seg_map_path": str(path), "ori_shape": (20, 30), "label_map": {0: 0}, "seg_fields": [],
    }  # fmt: skip
    for kind, options in (("LoadSegAnnotations", {}), ("LoadOODMap", {"ood_classes": [3]})):
        transform = getattr(transforms, kind)
        transform(**options, max_pixels=600)(dict(results))
        with pytest.raises(DatasetError, match=r"a\.png: .*30 x 20 pixels"):
            transform(**options, max_pixels=599)(dict(results))


@pytest.mark.parametrize(
    ("suffix", "flags"),
    [
        (".jpg", ()),
        (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        (".jpg", (cv2.IMWRITE_JPEG_RST_INTERVAL, 1)),
        (".png", ()),
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 80)),
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 101)),  # without loss
        (".bmp", ()),
        (".tiff", ()),
        (".gif", ()),
        (".ppm", ()),
        (".jp2", ()),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (80, 260)])
def test_header_has_the_decoded_size(suffix, flags, size):
    data = encoded(suffix, *size, 3, *flags)
    found = read_header(data)
    assert (found.height, found.width) == decode_image(data, "x").shape[:2] == size


def test_jpeg_and_png_are_read_without_pillow(monkeypatch):
    monkeypatch.setattr(header.Image, "open", None)
    assert read_header(encoded(".jpg"))[1:3] == read_header(encoded(".png"))[1:3] == (20, 30)


def test_second_frame_of_a_jpeg_counts():
    data = encoded(".jpg")
    frame = frame_of_jpeg(data)
    length = 2 + struct.unpack(">H", data[frame + 2 : frame + 4])[0]
    large = jpeg_of_size(SIDE, SIDE, data)[frame : frame + length]
    for lying in (
        data[:frame] + large + data[frame:],
        data[: frame + length] + large + data[frame + length :],
        data[:frame] + b"garbage" + large + data[frame:],  # as libjpeg, past what is no marker
        data[:frame] + b"\xff" * 9 + large[1:] + data[frame:],
        data[:frame] + b"\xff\xd3\xff\x01" + large + data[frame:],  # markers without a length
    ):
        assert read_header(lying)[1:3] == (SIDE, SIDE)
        with pytest.raises(DatasetError, match="50,000 x 50,000"):
            decode_image(lying, "x")


def test_thumbnail_of_a_jpeg_does_not_count():
    data, thumbnail = encoded(".jpg"), jpeg_of_size(SIDE, SIDE)
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    with_thumbnail = data[:2] + segment + data[2:]
    assert decode_image(with_thumbnail, "x").shape == (20, 30, 3)
    # Its end marker is not that of the picture.
    with pytest.raises(DatasetError, match="truncated JPEG"):
        decode_image(with_thumbnail[: len(segment) + 500], "x")


@pytest.mark.parametrize("order", ["small first", "large first"])
def test_second_header_of_a_png(order):
    """libpng goes by the first; whatever comes of the other, it takes no memory."""
    small, large = png_header(30, 20), png_header(SIDE, SIDE)
    chunks = small + large if order == "small first" else large + small
    tail = png_chunk(b"IDAT", zlib.compress(bytes(20 * 31))) + png_chunk(b"IEND", b"")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(DatasetError):
        assert decode_image(PNG_SIGNATURE + chunks + tail, "x").shape[:2] == (20, 30)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (PNG_SIGNATURE + png_chunk(b"IDAT", b"") + png_header(9, 9), "PNG"),
        (b"\xff\xd8" + b"\xff\xe0\0\x02" * 20_000, "JPEG"),  # longer than any header
        (jpeg_of_size(0, 0), "JPEG whose header has no size"),
        (b"RIFF\0\0\0\0WEBPVP9 " + bytes(30), "not an image of a known format"),
        (b"P6 60000 60000 255\n", "announces more pixels"),  # beyond Pillow's limit
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
    ],
)
def test_headers_without_a_size(tmp_path, data, says):
    with pytest.raises(DatasetError, match=f"^x: .*{says}"):
        decode_image(data, "x")
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DatasetError, match=r"a\.png: "):
        read_label_image(str(tmp_path / "a.png"))


def test_chunk_that_announces_gigabytes():
    """OpenCV 4.12 would fetch that memory before it looks for the bytes."""
    data = encoded(".png")
    end = data.rfind(b"IEND") - 4
    for length in (0xC0000000, 0x7FFFFFFF, 500):
        chunk = struct.pack(">I", length) + b"tEXtabc"
        for lying in (data[:33] + chunk + data[33:], data[:end] + chunk + data[end:]):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            with pytest.raises(DatasetError, match=r"x: truncated PNG \(a chunk ends .* beyond"):
                decode_image(lying, "x")
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_png_without_its_end_marker_is_complete():
    data = encoded(".png")
    assert find_damage(data[: data.rfind(b"IEND") - 4]) is None
    assert "truncated PNG" in find_damage(data[: data.rfind(b"IEND") - 40])


def test_pack_that_expands(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, data=np.zeros(100 << 20, np.uint8))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DatasetError, match=r"a\.npz: its arrays would expand from .* to 104,857,"):
        read_image(f"{path}:0")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
