"""Transforms of images against slow ones written out, and the randomness that seeds fix."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from negvision.classification.transforms import PackImageInputs, RandomPadCrop, TrivialAugment


def noise(height=9, width=12, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8)


def crops(image, side):
    """All results that padding and cropping can have, by the top left corner."""
    padded = np.pad(image, ((side, side), (side, side), (0, 0)))
    height, width = image.shape[:2]
    return {
        (top, left): padded[top : top + height, left : left + width]
        for top in range(2 * side + 1)
        for left in range(2 * side + 1)
    }


@pytest.mark.parametrize(("side", "size"), [(1, (9, 12)), (2, (3, 3)), (2, (1, 1))])
def test_pad_and_crop_is_one_of_all_crops_and_each_comes(side, size):
    image, seen = noise(*size), set()
    before, possible = image.copy(), crops(image, side)
    np.random.seed(0)  # noqa: NPY002  (what MMEngine does)
    for _ in range(60 * len(possible)):
        found = RandomPadCrop(side)({"img": image})["img"]
        assert found.dtype == np.uint8 and found.shape == image.shape
        seen.update(place for place, crop in possible.items() if np.array_equal(crop, found))
    assert len(seen) == len(possible)
    np.testing.assert_array_equal(image, before)


def test_pad_and_crop_takes_other_images_than_of_bytes():
    image = noise().astype(np.float32)[..., :1]
    assert RandomPadCrop(3)({"img": image})["img"].shape == (9, 12, 1)


@pytest.mark.parametrize("transform", [RandomPadCrop(4), TrivialAugment()])
def test_seeds_fix_what_is_drawn(transform):
    from mmengine.runner import set_random_seed

    def drawn(seed):
        set_random_seed(seed)
        return [transform({"img": noise()})["img"].copy() for _ in range(12)]

    state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    first, again, other = drawn(3), drawn(3), drawn(4)
    random.setstate(state[0])
    np.random.set_state(state[1])  # noqa: NPY002
    torch.set_rng_state(state[2])
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert len({image.tobytes() for image in first}) > 3


def test_augmenting_equals_torchvision_on_the_image_in_rgb():
    augment, image = TrivialAugment(), noise(32, 32)
    for seed in range(40):
        torch.manual_seed(seed)
        found = augment({"img": image.copy()})["img"]
        torch.manual_seed(seed)
        rgb = v2.TrivialAugmentWide()(Image.fromarray(image[..., ::-1].copy()))
        np.testing.assert_array_equal(found, np.asarray(rgb)[..., ::-1])
        assert found.dtype == np.uint8 and found.shape == image.shape


def test_channels_keep_their_order():
    """What is blue stays blue, whatever is done that knows no colour."""
    image, augment = np.zeros((32, 32, 3), np.uint8), TrivialAugment()
    image[..., 0] = 200
    torch.manual_seed(0)
    results = [augment({"img": image})["img"] for _ in range(60)]
    unchanged = [r for r in results if np.array_equal(r, image)]
    assert unchanged and all(isinstance(r, np.ndarray) for r in results)
    # Inverting and colour apart, the first channel stays the brightest.
    brightest = [r.reshape(-1, 3).mean(0).argmax() for r in results]
    assert np.mean(np.equal(brightest, 0)) > 0.8


def test_the_augmented_image_can_be_packed():
    image = TrivialAugment()({"img": noise()})
    assert PackImageInputs()(image)["inputs"].is_contiguous()


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
    # The pixels are not those of the image that the next transform may change.
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
    with pytest.raises(ValueError, match=f"the image has {shown}; pipelines of images keep"):
        PackImageInputs()({"img": image, "label": 0})


def test_padding_is_checked():
    with pytest.raises(ValueError, match="padding is 0; it must be 1 or more"):
        RandomPadCrop(0)


def test_how_they_print():
    assert repr(RandomPadCrop(2)) == "RandomPadCrop(padding=2)"
    assert repr(TrivialAugment()) == "TrivialAugment()"
    assert repr(PackImageInputs(("source",))) == "PackImageInputs(meta_keys=('source',))"
