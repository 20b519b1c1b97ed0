"""Where tiles lie, what they show of boxes, and what cannot be read as tiles."""

import numpy as np
import pytest

from negvision.data.images.tiles import Tiles, cut
from negvision.errors import ConfigError


@pytest.mark.parametrize("text", ["7:3", "64:0.2", "64x32:10", "100:99"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (64, 64), (65, 31), (101, 200)])
def test_tiles_cover_the_image_and_overlap_at_least_as_asked(text, shape):
    tiles, (height, width) = Tiles.of(text), shape
    windows = tiles.windows(height, width)
    seen = np.zeros(shape, int)
    for x1, y1, x2, y2 in windows:
        assert (x2 - x1, y2 - y1) == (min(tiles.size[0], width), min(tiles.size[1], height))
        seen[y1:y2, x1:x2] += 1
    assert seen.min() == 1 if len(windows) == 1 else seen.min() >= 1
    for side, axis in ((tiles.size[0], 0), (tiles.size[1], 1)):
        starts = sorted({window[axis] for window in windows})
        wanted = tiles.overlap * side if tiles.overlap < 1 else tiles.overlap
        gaps = np.diff(starts)
        assert len(starts) == 1 or ((side - gaps >= np.floor(wanted)).all() and gaps.min() > 0)


def test_an_image_no_larger_than_a_tile_is_one_tile():
    for shape in ((50, 40), (64, 64)):
        assert Tiles((64, 64)).windows(*shape) == [(0, 0, shape[1], shape[0])]


@pytest.mark.parametrize("text", ["640", "640:0.25", "1024x768:128", "640:0.2:fusion"])
def test_text_is_kept(text):
    assert Tiles.of(str(Tiles.of(text))) == Tiles.of(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("large", "give SIZE"),
        ("640:a", "give SIZE"),
        ("640:nan", "give SIZE"),
        ("640:1:nms:2", "give SIZE"),
        ("-640", "give SIZE"),
        ("none:3", "give SIZE"),
        ("640:0", "the overlap must be from 1 pixel to less than a tile"),
        ("640:640", "the overlap must be"),
        ("640x64:100", "the overlap must be"),
        ("0x9", "the overlap must be"),
        ("4:0.2", "the overlap must be"),
        ("640:0.2:mean", "joined by nms or fusion"),
    ],
)
def test_what_is_no_tile_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        Tiles.of(text)


def test_boxes_outside_and_without_area_are_not_visible():
    rows = [0.0, 0, 10, 10], [2, 2, 4, 4], [20, 0, 30, 10], [3, 3, 3, 9], [-9, -9, 99, 99]
    boxes = np.array(rows)
    inside, visible = cut(boxes, (2, 2, 12, 12))
    assert visible == pytest.approx([0.64, 1, 0, 0, 100 / 108**2])
    assert inside[1].tolist() == [0, 0, 2, 2] and inside[4].tolist() == [0, 0, 10, 10]
    assert cut(np.zeros((0, 4)), (0, 0, 4, 4))[0].shape == (0, 4)
