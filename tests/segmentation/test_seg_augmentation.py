"""The faster segmentation transforms equal mmseg's under the same seed."""

import copy

import numpy as np
import pytest
import torch
from mmcv.transforms.utils import cache_random_params
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmseg.datasets.transforms import PhotoMetricDistortion, RandomCrop

from negvision.segmentation.datasets import SegPhotoMetricDistortion, SegRandomCrop

RNG = np.random.default_rng(0)
SIZES = [(1, 1), (1, 9), (7, 1), (5, 8), (31, 17), (40, 64)]


def run(transform, results, seed):
    """The outcome and the next number of NumPy's global generator."""
    np.random.seed(seed)  # noqa: NPY002
    return transform(copy.deepcopy(results)), np.random.random_sample()  # noqa: NPY002


def sample(size, classes=4, dtype=np.uint8):
    labels = RNG.integers(0, classes, size).astype(dtype)
    labels[: size[0] // 2] = RNG.choice([0, 255])  # one class prevails in many crops
    image = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    return {"img": image, "gt_seg_map": labels, "seg_fields": ["gt_seg_map"]}


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
@pytest.mark.parametrize("ratio", [1.0, 0.9, 0.5])
@pytest.mark.parametrize("ignore_index", [255, 0, 300])
def test_crops_equal_mmseg(dtype, ratio, ignore_index):
    options = {"crop_size": (8, 12), "cat_max_ratio": ratio, "ignore_index": ignore_index}
    ours, theirs = SegRandomCrop(**options), RandomCrop(**options)
    for seed, size in enumerate(SIZES * 6):
        results = sample(size, classes=seed % 4 + 1, dtype=dtype)
        (got, after), (want, next_number) = run(ours, results, seed), run(theirs, results, seed)
        assert after == next_number, "the generator stands elsewhere"
        assert got["img_shape"] == want["img_shape"]
        for key in ("img", "gt_seg_map"):
            assert got[key].dtype == want[key].dtype and np.array_equal(got[key], want[key])


@pytest.mark.parametrize("ratio", [0.5, 0.75, 0.9])
@pytest.mark.parametrize("ignore_index", [255, 0])
def test_crops_on_the_edge_of_too_much_of_one_class(ratio, ignore_index):
    """One class fills just ``ratio``, or a pixel more or less, in rows looked at or not."""
    crop = SegRandomCrop(crop_size=(8, 8), cat_max_ratio=ratio, ignore_index=ignore_index)
    verdicts = set()
    for seed in range(400):
        rng = np.random.default_rng(seed)
        height, width = rng.integers(1, 24, 2)
        labels = np.full(height * width, 7, np.uint8)
        ignored = rng.integers(0, labels.size + 1) if seed % 2 else 0
        rest = round((labels.size - ignored) * (1 - ratio)) + rng.integers(-1, 2)
        labels[:ignored] = ignore_index
        others = labels[ignored : max(ignored, ignored + rest)]
        others[:] = rng.integers(1, 2 + seed % 3, len(others))
        if seed % 4 < 2:
            rng.shuffle(labels)
        labels = labels.reshape(width, height).T if seed % 3 else labels.reshape(height, width)
        values, counts = np.unique(labels, return_counts=True)
        counts = counts[values != ignore_index]
        want = len(counts) > 1 and counts.max() / counts.sum() < ratio
        assert crop._is_varied(labels) == want
        verdicts.add(bool(want))
    assert verdicts == {False, True}


def test_a_crop_can_be_held_for_several_images():
    crop = SegRandomCrop(crop_size=(4, 4))
    results = sample((40, 64))
    with cache_random_params([crop]):
        first, second = (crop(copy.deepcopy(results))["img"] for _ in range(2))
    assert np.array_equal(first, second)
    assert RandomCrop._methods_with_randomness == ["crop_bbox"]


LAYOUTS = {
    "plain": lambda image: image,
    "mirrored": lambda image: image[:, ::-1],
    "channels reversed": lambda image: image[..., ::-1],
    "planes": lambda image: image.transpose(2, 0, 1).copy().transpose(1, 2, 0),
    "read-only": lambda image: np.frombuffer(image.tobytes(), image.dtype).reshape(image.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_photometric_distortion_draws_like_mmseg_and_stays_close_to_it(layout, dtype):
    """Equal for float images; for uint8 ones, rounding and truncating differ a little."""
    ours, theirs = SegPhotoMetricDistortion(), PhotoMetricDistortion()
    changed = 0
    for seed in range(60):
        image = RNG.integers(0, 256, (*RNG.integers(8, 40, 2), 3)).astype(dtype)
        results = {"img": LAYOUTS[layout](image)}
        (got, after), (want, next_number) = run(ours, results, seed), run(theirs, results, seed)
        assert after == next_number, "the generator stands elsewhere"
        assert got["img"].dtype == want["img"].dtype and got["img"].shape == want["img"].shape
        apart = np.abs(got["img"].astype(float) - want["img"])
        assert apart.mean() < (2 if dtype == np.uint8 else 1e-6)
        changed += not np.array_equal(want["img"], results["img"])
    assert changed > 40


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_training_pipelines_give_the_same_tensors(flip, tmp_path):
    def pipeline(prefix, crop, distortion):
        with DefaultScope.overwrite_default_scope("mmseg"):
            return Compose(
                [
                    {
                        "type": "RandomResize",
                        "scale": (60, 40),
                        "ratio_range": (0.5, 2.0),
                        "keep_ratio": True,
                    },
                    {"type": crop, "crop_size": (24, 36), "cat_max_ratio": 0.75},
                    {"type": f"{prefix}RandomFlip", "prob": flip},
                    {"type": distortion},
                    {"type": f"{prefix}PackSegInputs"},
                ]
            )

    # One distortion for both: negvision's rounds where mmseg's truncates.
    distortion = "negvision.SegPhotoMetricDistortion"
    ours = pipeline("negvision.", "negvision.SegRandomCrop", distortion)
    theirs = pipeline("", "RandomCrop", distortion)
    for seed in range(20):
        results = {**sample((40, 64)), "img_path": "a.jpg", "ori_shape": (40, 64)}
        (got, _), (want, _) = run(ours, results, seed), run(theirs, results, seed)
        assert list(got) == list(want)
        assert torch.equal(got["inputs"], want["inputs"])
        assert got["inputs"].stride() == want["inputs"].stride()
        mine, other = got["data_samples"], want["data_samples"]
        assert mine.metainfo == other.metainfo
        assert torch.equal(mine.gt_sem_seg.data, other.gt_sem_seg.data)
