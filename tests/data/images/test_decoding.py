"""Pixels are the same whoever decodes: orientations, depths, files of several images."""

import io
import logging

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from negvision.data.images import decoding, header
from negvision.data.images.decoding import brightest, decode_image
from negvision.data.images.header import read_header
from negvision.data.images.loading import LoadImageFromFile, reader_of
from negvision.errors import DatasetError, WarnOnce

# Quarters of other colors, so that each of the eight orientations looks different.
STORED = np.zeros((24, 32, 3), np.uint8)
STORED[:12, :16], STORED[12:, 16:], STORED[:12, 16:] = (250, 10, 10), (10, 250, 10), (10, 10, 250)
FORMATS = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "TIFF of 64 bits": {"big_tiff": True},
    "AVIF": {"quality": 95},
}


def turned(kind: str, orientation: int) -> bytes:
    """``STORED`` with an EXIF orientation."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x112] = orientation
    Image.fromarray(STORED).save(file, kind.split()[0], exif=exif, **FORMATS[kind])
    return file.getvalue()


def same(one: np.ndarray, rgb: np.ndarray) -> bool:
    """Whether a BGR image shows an RGB image; JPEG and AVIF blur edges."""
    return one.shape == rgb.shape and np.abs(one[..., ::-1].astype(int) - rgb).mean() < 20


@pytest.mark.parametrize("kind", FORMATS)
def test_each_orientation_is_applied_by_every_decoder_or_ignored(kind):
    for orientation in range(1, 9):
        data = turned(kind, orientation)
        upright = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
        found = read_header(data)
        assert (found.orientation, found.height, found.width) == (orientation, 24, 32)
        for backend in ("cv2", "pillow"):
            for ending, wanted in (("", upright), ("_ignore_orientation", STORED)):
                loading = LoadImageFromFile(imdecode_backend=backend, color_type=f"color{ending}")
                assert same(loading.decode(data, "x"), wanted), (orientation, backend, ending)
        assert same(decode_image(data, "x", "unchanged"), STORED)
        assert decode_image(data, "x", "grayscale").shape == upright.shape[:2]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientations_are_read_without_pillow(kind, monkeypatch):
    data = turned(kind, 6)
    with_pillow = decode_image(data, "x")
    monkeypatch.setattr(header, "Image", None)
    np.testing.assert_array_equal(decode_image(data, "x"), with_pillow)
    with pytest.raises(DatasetError, match="x: not an image that can be decoded"):
        decode_image(b"II*\0 no image", "x")


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientations_that_exif_does_not_define_are_upright(value):
    assert same(decode_image(turned("JPEG", value), "x"), STORED)


@pytest.fixture
def said(caplog, monkeypatch):
    """What the decoder warns of."""
    monkeypatch.setattr(decoding, "_dark", WarnOnce())
    caplog.set_level(logging.WARNING, "negvision")
    return caplog


def deep(suffix: str, most: int, dtype=np.uint16, channels: int = 3) -> bytes:
    """A gradient up to ``most``."""
    image = np.linspace(0, most, 12 * 15).reshape(12, 15, 1).repeat(channels, 2).astype(dtype)
    return cv2.imencode(suffix, image)[1].tobytes()


@pytest.mark.parametrize("backend", ["cv2", "pillow"])
@pytest.mark.parametrize(
    ("suffix", "channels"), [(".png", 3), (".png", 1), (".tiff", 3), (".ppm", 3)]
)
def test_values_that_fill_12_of_16_bits_are_warned_of_once(said, suffix, channels, backend):
    loading = LoadImageFromFile(imdecode_backend=backend)
    image = loading.decode(deep(suffix, 4095, channels=channels), "a")
    assert image.dtype == np.uint8 and image.shape == (12, 15, 3) and image.max() == 15
    loading.decode(deep(suffix, 1023), "b")
    assert len(said.messages) == 1
    assert said.messages[0].startswith("a: a 16-bit image with values up to 4,095 of 65,535.")


def test_full_16_bits_are_read_silently(said):
    data = deep(".png", 65535)
    assert decode_image(data, "x").max() == 255 and not said.messages
    assert decode_image(data, "x", "unchanged").dtype == np.uint16
    assert brightest(data, read_header(data)) == 65535
    eight = cv2.imencode(".png", STORED)[1].tobytes()
    assert brightest(eight, read_header(eight)) is None


def test_other_numbers_are_refused():
    with pytest.raises(DatasetError, match="x: its pixels are int16, which are not read") as caught:
        decode_image(deep(".tiff", 900, np.int16, channels=1), "x")
    assert caught.value.kind == "image of neither 8 nor 16 bits"


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize("count", [1, 3])
def test_further_pages_and_frames_are_known(kind, count):
    first, *rest = (Image.fromarray(np.roll(STORED, 5 * n, 0)) for n in range(count))
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=rest)
    assert read_header(file.getvalue()).several is (count > 1)


class Part:
    """A data set with a transform that loads."""

    def __init__(self, names, **options):
        self.names = names
        self.pipeline = type("Pipeline", (), {"transforms": [LoadImageFromFile(**options)]})

    def __len__(self):
        return len(self.names)

    def get_data_info(self, index):
        return {"img_path": self.names[index]}


def test_drawings_are_read_as_each_data_set_reads(tmp_path):
    names = [str(tmp_path / f"{n}.jpg") for n in range(2)]
    for name in names:
        with open(name, "wb") as file:
            file.write(turned("JPEG", 6))
    parts = [Part(names[:1]), Part(names[1:], color_type="color_ignore_orientation")]
    both = type("Concatenated", (), {"datasets": parts})
    wrapped = type("Wrapped", (), {"dataset": parts[1]})
    assert [reader_of(both)(name).shape for name in names] == [(32, 24, 3), (24, 32, 3)]
    assert reader_of(wrapped)(names[0]).shape == (24, 32, 3)
    assert reader_of(None)(names[0]).shape == (32, 24, 3)
    gray = Part(names, color_type="grayscale", to_float32=True)
    found = reader_of(gray)(names[0])
    assert found.shape == (32, 24, 3) and found.dtype == np.uint8
    # RGB, as drawings are.
    assert same(reader_of(parts[1])(names[1])[..., ::-1], STORED)
