"""Damaged image files: each is read, or raises an error that names it."""

import io
import resource
import time

import cv2
import numpy as np
import pytest
from helpers.image_files import encoded
from helpers.mutations import mutations
from PIL import Image

from negvision.data.formats.label_files import read_label_image
from negvision.data.images.header import MAX_PIXELS
from negvision.data.images.loading import LoadImageFromFile
from negvision.errors import DatasetError

SOURCES = {
    "jpg": encoded(".jpg", 60, 80),
    "progressive.jpg": encoded(".jpg", 60, 80, 3, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "png": encoded(".png", 30, 40),
    "gray.png": encoded(".png", 30, 40, 1),
    "alpha.png": encoded(".png", 30, 40, 4),
}
OTHERS = {".webp": encoded(".webp"), ".bmp": encoded(".bmp"), ".gif": encoded(".gif"),
          ".tiff": encoded(".tiff"), ".jp2": encoded(".jp2", 64, 64)}  # fmt: skip


def corpus(sources: dict[str, bytes], each: int):
    for seed, (name, data) in enumerate(sources.items()):
        other = list(sources.values())[seed - 1]
        for number, damaged in enumerate(mutations(data, other, each, seed)):
            yield f"{number}.{name}", damaged


def load(path) -> np.ndarray:
    # None of the sources is large, and of what a damaged header announces much would fit.
    return LoadImageFromFile(max_pixels=1 << 22)({"img_path": str(path)})["img"]


def outcomes(reader, folder, files) -> list[bool]:
    """Whether each file was read; anything but an array or a DatasetError with its name fails."""
    read = []
    for name, data in files:
        path = folder / name
        path.write_bytes(data)
        try:
            image = reader(path)
        except DatasetError as error:
            assert str(path) in str(error)
            read.append(False)
        else:
            assert isinstance(image, np.ndarray) and image.dtype == np.uint8
            assert 0 < image.shape[0] * image.shape[1] <= MAX_PIXELS
            read.append(True)
        path.unlink()
    return read


def test_five_hundred_damaged_images(tmp_path):
    files = list(corpus(SOURCES, 100))
    assert len(files) == 500 and len({data for _, data in files}) > 450
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    read = outcomes(load, tmp_path, files)
    assert time.process_time() - start < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024
    # Some damage does not show; a corpus of which nothing or all is refused would test little.
    assert 50 < sum(read) < 400


def test_damaged_label_images(tmp_path):
    ids = Image.fromarray(np.arange(1200, dtype=np.uint8).reshape(30, 40) % 11)
    sources = {"gray.png": io.BytesIO(), "palette.png": io.BytesIO()}
    ids.save(sources["gray.png"], "PNG")
    ids.putpalette(range(33))
    ids.save(sources["palette.png"], "PNG")
    files = corpus({name: file.getvalue() for name, file in sources.items()}, 150)
    read = outcomes(lambda path: read_label_image(str(path)), tmp_path, files)
    assert 10 < sum(read) < 250


@pytest.mark.parametrize("suffix", OTHERS)
def test_damaged_images_of_other_formats(tmp_path, suffix):
    sources = {f"a{suffix}": OTHERS[suffix], "b.png": SOURCES["png"]}
    files = [item for item in corpus(sources, 60) if item[0].endswith(suffix)]
    outcomes(load, tmp_path, files)
    outcomes(lambda path: read_label_image(str(path)), tmp_path, files)
