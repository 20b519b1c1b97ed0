"""Loading images from files and bytes, and errors for damaged ones."""

import cv2
import mmcv
import numpy as np
import pytest
from mmcv.transforms import Resize
from mmdet.structures.mask import BitmapMasks

from negvision.data.images.decoding import decode_image
from negvision.data.images.files import FileListing
from negvision.data.images.listing import PassedOver
from negvision.data.images.loading import LoadImageFromFile
from negvision.errors import DatasetError

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encoded(suffix: str) -> bytes:
    return cv2.imencode(suffix, IMAGE)[1].tobytes()


def test_bytes_of_the_dataset_are_decoded_and_removed():
    results = LoadImageFromFile()({"img_path": "set.rec[3]", "img_bytes": encoded(".png")})
    np.testing.assert_array_equal(results["img"], IMAGE)
    assert results["img_shape"] == results["ori_shape"] == (20, 30)
    assert "img_bytes" not in results


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "the file is empty, 0 bytes"),
        (encoded(".jpg")[:300], "truncated JPEG"),
        (encoded(".png")[:900], "truncated PNG"),
        (b"<html>404</html>", "not an image"),
    ],
)
def test_damaged_bytes_are_named(data, says):
    with pytest.raises(DatasetError, match=rf"^set.rec\[3\]: {says}"):
        LoadImageFromFile()({"img_path": "set.rec[3]", "img_bytes": data})
    with pytest.raises(DatasetError, match=says):
        decode_image(data, "x")


def test_listing(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.jpg").write_bytes(b"")
    files = FileListing()
    assert str(tmp_path / "a/x.jpg") in files
    assert str(tmp_path / "a/y.jpg") not in files
    assert str(tmp_path / "b/x.jpg") not in files
    assert str(tmp_path / "a/x.jpg/z.jpg") not in files
    monkeypatch.chdir(tmp_path / "a")
    assert "x.jpg" in FileListing()


def test_what_a_folder_holds_besides_images_is_counted(tmp_path):
    names = ["a.JPG", "b.jfif", "c.gif", "._a.jpg", ".hidden", "e.heic", "f.HEIC", "g", "h.txt"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "d.jpg").mkdir()
    passed = PassedOver()
    chosen = passed.chosen(sorted(map(str, tmp_path.iterdir())))
    assert chosen == [str(tmp_path / name) for name in ("a.JPG", "b.jfif", "c.gif")]
    parts = ["1 .txt", "1 folders", "1 without a suffix", "2 .heic", "2 hidden"]
    assert sorted(passed.line().split(", ")) == parts
    assert passed.counts.total() == 7
    assert passed.notes().counts["file passed over: .heic"] == 2
    assert passed.notes().examples("file passed over: without a suffix") == [str(tmp_path / "g")]
    many = PassedOver()
    many.chosen(f"a.{n}" for n in range(20))
    assert many.line().endswith(", 12 others")


@pytest.mark.parametrize(("width", "height"), [(3, 6000), (6000, 3)])
def test_resizing_keeps_a_pixel_of_each_side_of_images_and_masks(width, height):
    """mmcv would round a side to 0, and OpenCV raise an error without a name."""
    results = {"img": np.zeros((height, width, 3), np.uint8)}
    resized = Resize(scale=(96, 72), keep_ratio=True)(results)
    shape = (96, 1) if height > width else (1, 96)
    assert resized["img"].shape[:2] == resized["img_shape"] == shape
    assert resized["scale_factor"] == (shape[1] / width, shape[0] / height)
    masks = BitmapMasks(np.ones((2, height, width), np.uint8), height, width)
    assert masks.rescale((96, 72)).masks.shape == (2, *shape)
    # As Mosaic does it.
    assert mmcv.imresize(results["img"], (0, 5)).shape == (5, 1, 3)
    assert mmcv.rescale_size((64, 48), (32, 32), return_scale=True) == ((32, 24), 0.5)
