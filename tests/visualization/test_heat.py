"""Maps of a score beside the image."""

import numpy as np
import pytest

from negvision.visualization.colors import UNKNOWN_COLOR
from negvision.visualization.heat import (
    TRUTH_COLOR,
    draw_heat,
    heat_colors,
    heat_range,
    outline,
)


def test_colors_grow_lighter_and_stop_at_the_ends():
    colors = heat_colors(np.array([-9.0, 0.0, 0.25, 0.5, 0.75, 1.0, 9.0]), 0.0, 1.0)
    brightness = colors.astype(int).sum(-1)
    assert (np.diff(brightness[1:6]) > 0).all()
    assert (colors[0] == colors[1]).all() and (colors[5] == colors[6]).all()
    assert colors.dtype == np.uint8


@pytest.mark.parametrize("value", [0.0, -1e12])
def test_a_map_of_one_value_is_drawn(value):
    heat = np.full((4, 6), value, np.float32)
    drawn = draw_heat(np.zeros((4, 6, 3), np.uint8), heat, longest=60)
    assert drawn.shape[0] == 40 and drawn.dtype == np.uint8


def test_range_is_robust_and_includes_the_threshold():
    values = np.linspace(0, 1, 1001)
    values[-1] = 1e6
    low, high = heat_range(values)
    assert 0 < low < 0.02 and 0.98 < high <= 1
    assert heat_range(values, threshold=3.0) == (low, 3.0)
    assert heat_range(values, threshold=-3.0) == (-3.0, high)


def test_outlines_surround_regions_and_dashes_have_gaps():
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    full, dashed = (np.full((40, 60, 3), 128, np.uint8) for _ in range(2))
    outline(full, mask, TRUTH_COLOR)
    outline(dashed, mask, UNKNOWN_COLOR, dashed=True)
    on_full = (full == TRUTH_COLOR).all(-1)
    on_dashed = (dashed == UNKNOWN_COLOR).all(-1)
    assert on_full[10, 20:50].all() and on_full[10:30, 20].all()
    assert not on_full[15:25, 25:45].any()
    assert 0.4 < on_dashed.sum() / on_full.sum() < 0.75
    # The casing is dark on both sides of the line.
    assert (full[9, 25:45] == 32).all() and (full[11, 25:45] == 32).all()
    untouched = np.full((40, 60, 3), 128, np.uint8)
    outline(untouched, np.zeros((40, 60), bool), TRUTH_COLOR)
    assert (untouched == 128).all()


def test_image_map_and_bar_are_side_by_side():
    image = np.full((30, 40, 3), 77, np.uint8)
    heat = np.linspace(0, 1, 1200, dtype=np.float32).reshape(30, 40)
    drawn = draw_heat(image, heat, heat > 0.9, heat > 0.5, threshold=0.5, longest=200)
    assert drawn.shape[0] == 150 and drawn.shape[1] > 2 * 200
    assert (drawn[20, 20] == 77).all()
    # The map is dark at the top left and light at the bottom right, without outlines there.
    left, right = drawn[5, 215].astype(int).sum(), drawn[142, 390].astype(int).sum()
    assert left < 60 < right
    assert (drawn == UNKNOWN_COLOR).all(-1).any() and (drawn == TRUTH_COLOR).all(-1).any()
