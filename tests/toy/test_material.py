"""The material of the generated images: photographs, handwriting and scenes."""

import numpy as np
import pytest

from negvision.toy import photos
from negvision.toy.scene import compose_scene, draw_stroke, load_glyphs

SPLITS = photos.SPLITS


def test_splits_share_no_pixel_of_a_photograph():
    for photo in photos.load_photos():
        used = np.zeros(photo.pixels.shape[:2], dtype=int)
        marked = photos.Photo(photo.name, used[..., None])
        for split in SPLITS:
            marked.region(split)[:] += 1
        assert used.min() == used.max() == 1, photo.name


def test_splits_share_no_handwriting_and_use_all():
    for digit in range(10):
        ids = [set(load_glyphs(split).sample_ids[digit]) for split in SPLITS]
        assert not ids[0] & ids[1] and not ids[0] & ids[2] and not ids[1] & ids[2]
    total = sum(len(ids) for split in SPLITS for ids in load_glyphs(split).sample_ids)
    assert total == 1797


def test_unknown_split_is_named():
    with pytest.raises(ValueError, match="'dev'"):
        photos.load_photos()[0].region("dev")


def test_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(photos.PHOTOS, "no_such_package", ("a.jpg",))
    with pytest.raises(FileNotFoundError, match="pip install no_such_package"):
        photos.photo_paths()


def test_missing_photograph_is_named(monkeypatch):
    monkeypatch.setitem(photos.PHOTOS, "sklearn", ("datasets/images/moon.jpg",))
    with pytest.raises(FileNotFoundError, match=r"datasets/images/moon\.jpg is missing"):
        photos.photo_paths()


@pytest.mark.parametrize("size", [9, 14, 40, 110])
def test_strokes_have_the_requested_size(size):
    for seed in range(30):
        alpha = draw_stroke(np.random.default_rng(seed), "train", seed % 10, size).alpha
        inked = alpha > 0.5
        assert inked.any(axis=1)[[0, -1]].all() and inked.any(axis=0)[[0, -1]].all()
        assert abs(max(alpha.shape) - size) <= max(2, 0.06 * size), (seed, alpha.shape)


def test_scene_has_the_requested_digits():
    rng = np.random.default_rng(1)
    image, objects = compose_scene(rng, "val", 192, [3, 5], crowd=8)
    assert image.shape == (192, 192, 3) and image.dtype == np.uint8
    assert [item.digit for item in objects if item.crowd] == [8]
    assert sorted(item.digit for item in objects if not item.crowd) == [3, 5]


def test_digits_overlap_little():
    """Whole strokes overlap by at most 0.12 IoU; what is visible of them by little more."""
    for seed in range(10):
        _, objects = compose_scene(np.random.default_rng(seed), "train", 192, [1] * 8, None)
        boxes = []
        for item in objects:
            ys, xs = np.nonzero(item.mask)
            boxes.append((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
        for i, a in enumerate(boxes):
            for b in boxes[i + 1 :]:
                w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
                inter = max(w, 0) * max(h, 0)
                union = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - inter
                assert inter / union < 0.2
