"""The faster flip equals mmcv's."""

import numpy as np
import pytest
from mmcv.transforms import RandomFlip as MMCVRandomFlip
from mmcv.transforms.utils import cache_random_params

from negvision.data.images.flips import RandomFlip
from negvision.errors import ConfigError

OPTIONS = [
    {"prob": 0.5},
    {"prob": 0.0},
    {"prob": 1.0},
    {"prob": 0.3, "direction": "vertical"},
    {"prob": 0.7, "direction": ["horizontal", "vertical", "diagonal"]},
    {"prob": [0.1, 0.2], "direction": ["diagonal", "horizontal"]},
    {"prob": [0.25, 0.25, 0.5], "direction": ["horizontal", "vertical", "diagonal"]},
    {"prob": 0.5, "swap_seg_labels": [(1, 2)]},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_equals_mmcv_under_the_same_seed(options):
    rng = np.random.default_rng(0)
    ours, theirs = RandomFlip(**options), MMCVRandomFlip(**options)
    seen = set()
    for seed in range(60):
        size = rng.integers(1, 12, 2)
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        labels = rng.integers(0, 4, size, dtype=np.uint8)
        got, want = [], []
        for transform, into in ((ours, got), (theirs, want)):
            np.random.seed(seed)  # noqa: NPY002
            results = transform({"img": image.copy(), "gt_seg_map": labels.copy()})
            into += [results, np.random.random_sample()]  # noqa: NPY002
        assert got[1] == want[1], "the generator stands elsewhere"
        assert got[0].keys() == want[0].keys()
        for key, value in want[0].items():
            assert np.array_equal(got[0][key], value), key
        seen.add(want[0]["flip_direction"])
    directions, chances = ours.direction, ours.prob
    directions = [directions] if isinstance(directions, str) else directions
    chances = (
        chances if isinstance(chances, list) else [chances / len(directions)] * len(directions)
    )
    expected = {way for way, chance in zip(directions, chances, strict=True) if chance}
    assert seen == expected | ({None} if sum(chances) < 1 else set())


def test_boxes_are_refused():
    with pytest.raises(ConfigError, match="does not flip boxes"):
        RandomFlip(prob=1.0)({"img": np.zeros((2, 2, 3)), "gt_bboxes": np.zeros((1, 4))})


def test_a_draw_can_be_held_for_several_images():
    flip = RandomFlip(prob=0.5)
    np.random.seed(0)  # noqa: NPY002
    for _ in range(5):
        with cache_random_params([flip]):
            first, second = (flip({"img": np.zeros((2, 2))})["flip"] for _ in range(2))
        assert first == second
    assert MMCVRandomFlip._methods_with_randomness == ["_choose_direction"]
