"""Images reach an exported model as they reach the model in PyTorch, bit for bit."""

import cv2
import numpy as np
import pytest
from mmdet.models import DetDataPreprocessor
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from PIL import Image

from negvision.data.images import header
from negvision.errors import DatasetError, ExportError, WarnOnce
from negvision.inference.runtime import images
from negvision.inference.runtime.images import load, prepare, stack
from negvision.inference.runtime.metadata import Preprocessing

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def _noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# The last ones are so thin that rounding would make a side 0.
SIZES = [(97, 211), (333, 120), (64, 64), (6000, 3), (2, 700)]


@pytest.mark.parametrize("keep_ratio", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_same_tensors_as_pipeline_and_preprocessor(tmp_path, size, keep_ratio):
    files = [tmp_path / f"{number}.png" for number in range(2)]
    for number, file in enumerate(files):
        cv2.imwrite(str(file), _noise(*size[:: 1 - 2 * number], number))
    with DefaultScope.overwrite_default_scope("mmdet"):
        pipeline = Compose(
            [
                {"type": "negvision.LoadImageFromFile"},
                {"type": "Resize", "scale": (160, 128), "keep_ratio": keep_ratio},
                {"type": "PackDetInputs", "meta_keys": ("ori_shape", "img_shape", "scale_factor")},
            ]
        )
        packed = [pipeline({"img_path": str(file)}) for file in files]
    own = DetDataPreprocessor(mean=MEAN, std=STD, bgr_to_rgb=True, pad_size_divisor=32)
    wanted = own({key: [one[key] for one in packed] for key in ("inputs", "data_samples")})
    mean, std = (tuple(values.flatten().tolist()) for values in (own.mean, own.std))
    how = Preprocessing((160, 128), keep_ratio, True, mean, std, 32)
    batch = [prepare(load(file), how) for file in files]
    stacked = stack(batch, how)
    assert stacked.dtype == np.float32
    assert np.array_equal(stacked, wanted["inputs"].numpy())
    for one, sample in zip(batch, wanted["data_samples"], strict=True):
        assert one.size == sample.img_shape and one.original == sample.ori_shape
        assert one.factors[::-1] == sample.scale_factor


def test_images_without_normalization_are_padded_with_the_value():
    pixels = [_noise(5, 9), _noise(9, 3)]
    how = Preprocessing(rgb=False, pad_divisor=8, pad_value=-2.0)
    stacked = stack([prepare(one, how) for one in pixels], how)
    assert stacked.shape == (2, 3, 16, 16)
    assert (stacked[0, :, 5:] == -2).all() and (stacked[1, :, :, 3:] == -2).all()
    assert np.array_equal(stacked[1, :, :9, :3], pixels[1].transpose(2, 0, 1))


def test_exif_orientation_is_applied_or_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(_noise(20, 30)).save(tmp_path / "a.png", exif=exif)
    assert load(tmp_path / "a.png").shape == (30, 20, 3)
    assert load(tmp_path / "a.png", as_stored=True).shape == (20, 30, 3)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n1234"])
@pytest.mark.parametrize("has_pillow", [True, False])
def test_invalid_files_are_named(tmp_path, monkeypatch, content, has_pillow):
    if not has_pillow:
        monkeypatch.setattr(header, "Image", None)
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(DatasetError, match=r"bad\.png"):
        load(tmp_path / "bad.png")
    with pytest.raises(DatasetError, match=r"nowhere\.png: cannot be read"):
        load(tmp_path / "nowhere.png")


@pytest.mark.parametrize("pixels", [np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_other_arrays_are_rejected(pixels):
    with pytest.raises(ValueError, match=r"an image is \(H, W, 3\) uint8; got"):
        load(pixels)


def test_wrong_size_is_an_error():
    how = Preprocessing(size=(112, 112))
    with pytest.raises(ExportError, match=r"me\.png: the image is 90 x 112 .* takes 112 x 112"):
        prepare(_noise(112, 90), how, "me.png")


def test_extremely_thin_images_are_named_once(caplog, monkeypatch):
    monkeypatch.setattr(images, "_thin", WarnOnce())
    for name in ("a.png", "b.png"):
        assert prepare(_noise(6000, 3), Preprocessing((96, 72)), name).size == (96, 1)
    [said] = caplog.messages
    assert said.startswith("a.png: 3 x 6000 pixels become 1 x 96;")
