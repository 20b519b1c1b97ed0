"""Classification transforms against slow definitions and torchvision, with fixed seeds."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from negvision.classification.transforms import PackImageInputs, RandomPadCrop, TrivialAugment


def noise(height=9, width=12, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8)


def crops(image, side):
    """All possible results of padding and cropping, by the top left corner."""
    padded = np.pad(image, ((side, side), (side, side), (0, 0)))
    height, width = image.shape[:2]
    return {
        (top, left): padded[top : top + height, left : left + width]
        for top in range(2 * side + 1)
        for left in range(2 * side + 1)
    }


@pytest.mark.parametrize(("side", "size"), [(1, (9, 12)), (2, (3, 3)), (2, (1, 1))])
def test_pad_and_crop_gives_every_crop(side, size):
    image, seen = noise(*size), set()
    before, possible = image.copy(), crops(image, side)
    np.random.seed(0)  # noqa: NPY002  (as MMEngine does)
    for _ in range(60 * len(possible)):
        found = RandomPadCrop(side)({"img": image})["img"]
        assert found.dtype == np.uint8 and found.shape == image.shape
        seen.update(place for place, crop in possible.items() if np.array_equal(crop, found))
    assert len(seen) == len(possible)
    np.testing.assert_array_equal(image, before)


def test_augmentation_equals_torchvision_in_rgb():
    augment, image = TrivialAugment(), noise(32, 32)
    for seed in range(40):
        torch.manual_seed(seed)
        found = augment({"img": image.copy()})["img"]
        torch.manual_seed(seed)
        rgb = v2.TrivialAugmentWide()(Image.fromarray(image[..., ::-1].copy()))
        np.testing.assert_array_equal(found, np.asarray(rgb)[..., ::-1])
        assert found.dtype == np.uint8 and found.shape == image.shape


def test_packing():
    image = noise()
    results = {
        "img": image,
        "label": np.int64(3),
        "img_path": "a.png",
        "is_ood": True,
        "source": "far",
        "sample_idx": 7,
        "ori_shape": (9, 12),
        "secret": 1,
    }
    packed = PackImageInputs()(results)
    assert set(packed) == {"inputs", "data_samples"}
    assert packed["inputs"].shape == (3, 9, 12) and packed["inputs"].dtype == torch.uint8
    np.testing.assert_array_equal(packed["inputs"].numpy(), image.transpose(2, 0, 1))
    sample = packed["data_samples"]
    assert sample.label.item() == 3 and sample.label.dtype == torch.int64
    assert set(sample.metainfo_keys()) == set(results) - {"img", "label", "secret"}
    assert sample.is_ood is True and sample.source == "far" and sample.sample_idx == 7
    some = PackImageInputs(meta_keys=("secret",))({"img": image})["data_samples"]
    assert not some.metainfo_keys()
    assert some.label.item() == -1
    # The pixels are a copy, so later transforms may change the image.
    image[:] = 0
    assert packed["inputs"].any()


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        (noise().astype(np.float32), r"shape \(9, 12, 3\) and type float32"),
        (noise()[..., 0], r"shape \(9, 12\) and type uint8"),
        (noise()[..., :1], r"shape \(9, 12, 1\) and type uint8"),
    ],
)
def test_images_that_cannot_be_packed(image, shown):
    with pytest.raises(ValueError, match=f"the image has {shown}, but must be"):
        PackImageInputs()({"img": image, "label": 0})
