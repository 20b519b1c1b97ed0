"""Images reach an exported model as they reach the model in PyTorch, bit for bit."""

import cv2
import numpy as np
import pytest
import torch
from mmdet.models import DetDataPreprocessor
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from PIL import Image

from negvision.errors import DatasetError, ExportError
from negvision.inference.runtime import images
from negvision.inference.runtime.metadata import Preprocessing
from negvision.inference.runtime.preparing import prepare, stack

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def _picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def without_opencv(monkeypatch):
    monkeypatch.setattr(images, "cv2", None)


def test_resize_in_numpy_is_that_of_opencv():
    rng = np.random.default_rng(0)
    for case in range(120):
        height, width = rng.integers(1, 120, 2)
        target = [int(side) for side in rng.integers(1, 160, 2)]
        if case % 5 == 0:
            target = [max(height // 2, 1), max(width // 2, 1)]
        picture = _picture(height, width, case)
        wanted = cv2.resize(picture, target[::-1], interpolation=cv2.INTER_LINEAR)
        found = images.resize_as_opencv(picture, *target)
        assert np.array_equal(found, wanted), (picture.shape, target)


@pytest.mark.parametrize("keep_ratio", [True, False])
@pytest.mark.parametrize("size", [(97, 211), (333, 120), (64, 64)])
def test_prepared_as_the_pipeline_and_the_preprocessor_do(tmp_path, size, keep_ratio):
    files = [tmp_path / f"{number}.png" for number in range(2)]
    for number, file in enumerate(files):
        cv2.imwrite(str(file), _picture(*size[:: 1 - 2 * number], number))
    with DefaultScope.overwrite_default_scope("mmdet"):
        pipeline = Compose(
            [
                {"type": "LoadImageFromFile"},
                {"type": "Resize", "scale": (160, 128), "keep_ratio": keep_ratio},
                {"type": "PackDetInputs", "meta_keys": ("ori_shape", "img_shape", "scale_factor")},
            ]
        )
        packed = [pipeline({"img_path": str(file)}) for file in files]
    own = DetDataPreprocessor(mean=MEAN, std=STD, bgr_to_rgb=True, pad_size_divisor=32)
    data = {key: [one[key] for one in packed] for key in ("inputs", "data_samples")}
    wanted = own(data)
    how = Preprocessing((160, 128), keep_ratio, True, *_as_buffers(own), 32)
    batch = [prepare(images.read_image(file), how) for file in files]
    assert np.array_equal(stack(batch, how), wanted["inputs"].numpy())
    for one, sample in zip(batch, wanted["data_samples"], strict=True):
        assert one.size == sample.img_shape and one.original == sample.ori_shape
        assert one.factors[::-1] == sample.scale_factor


def _as_buffers(own):
    return tuple(own.mean.flatten().tolist()), tuple(own.std.flatten().tolist())


def test_colours_stay_where_nothing_else_is_asked():
    picture = _picture(4, 5)
    values = prepare(picture, Preprocessing(rgb=False)).values
    assert np.array_equal(values, picture.transpose(2, 0, 1).astype(np.float32))


def test_padding_has_its_value():
    how = Preprocessing(rgb=False, pad_divisor=8, pad_value=-2.0)
    batch = [prepare(_picture(*size), how) for size in ((5, 9), (9, 3))]
    stacked = stack(batch, how)
    assert stacked.shape == (2, 3, 16, 16)
    assert (stacked[0, :, 5:] == -2).all() and (stacked[1, :, :, 3:] == -2).all()
    assert np.array_equal(stacked[1, :, :9, :3], batch[1].values)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_pillow_decodes_what_opencv_decodes(tmp_path, mode, monkeypatch):
    file = tmp_path / "a.png"
    Image.fromarray(_picture(20, 30)).convert(mode).save(file)
    wanted = images.read_image(file)
    monkeypatch.setattr(images, "cv2", None)
    assert np.array_equal(images.read_image(file), wanted)


def test_pictures_are_turned_as_their_exif_says(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(_picture(20, 30)).save(file, exif=exif)
    found = images.read_image(file)
    assert found.shape == (30, 20, 3)
    monkeypatch.setattr(images, "cv2", None)
    assert np.array_equal(images.read_image(file), found)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n1234"])
def test_files_that_are_no_images_are_named(tmp_path, content):
    file = tmp_path / "bad.png"
    file.write_bytes(content)
    with pytest.raises(DatasetError, match=r"bad\.png"):
        images.read_image(file)
    with pytest.raises(DatasetError, match=r"nowhere\.png: cannot be read"):
        images.read_image(tmp_path / "nowhere.png")


def test_pillow_alone_refuses_what_it_would_spoil(tmp_path, without_opencv):
    file = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(file)
    with pytest.raises(DatasetError, match="more than 8 bits; install opencv"):
        images.read_image(file)


def test_without_a_decoder_both_are_named(tmp_path, without_opencv, monkeypatch):
    monkeypatch.setattr(images, "Image", None)
    file = tmp_path / "a.png"
    file.write_bytes(b"1")
    with pytest.raises(ExportError, match="opencv or pillow"):
        images.read_image(file)


def test_another_size_than_the_model_takes_is_an_error():
    how = Preprocessing(size=(112, 112))
    with pytest.raises(ExportError, match=r"me\.png: the image is 90 x 112 .* takes 112 x 112"):
        prepare(_picture(112, 90), how, "me.png")


def test_batches_are_float32_however_they_are_normalised():
    values = prepare(_picture(4, 4), Preprocessing(mean=MEAN, std=STD)).values
    assert values.dtype == np.float32
    assert torch.from_numpy(values).dtype == torch.float32
