"""Boxes, anchors, masks, and tags change the right pixels and no others."""

import numpy as np
import pytest

from negvision.visualization import Canvas, level_color

WHITE, RED = (255, 255, 255), (255, 0, 0)


def gray(height=100, width=120):
    return np.full((height, width, 3), 90, np.uint8)


def changed(drawn, value=90):
    return (drawn != value).any(-1)


def test_small_image_is_enlarged_by_an_integer():
    canvas = Canvas(gray(100, 120))
    assert canvas.zoom == 6
    assert canvas.image().shape == (600, 720, 3)
    assert Canvas(gray(100, 900)).zoom == 1
    assert Canvas(gray(500, 1000), longest=200).image().shape == (100, 200, 3)
    # A line of pixels still gives an image.
    assert Canvas(gray(1, 1000), longest=200).image().shape == (1, 200, 3)


def test_box_is_drawn_at_its_edges_only():
    canvas = Canvas(gray(), longest=240)
    canvas.box((20, 30, 80, 70), RED)
    drawn = changed(canvas.image())
    # Zoom 2: edges at x = 40 and 159, y = 60 and 139.
    for row, column in [(60, 100), (139, 100), (100, 40), (100, 159)]:
        assert drawn[row, column]
    assert not drawn[66:134, 46:154].any()
    assert not drawn[:55].any() and not drawn[:, :35].any() and not drawn[:, 165:].any()
    assert tuple(canvas.image()[60, 100]) == RED


def test_dashes_leave_gaps_and_hatching_fills():
    def drawn(**style):
        canvas = Canvas(gray(), longest=240)
        canvas.box((20, 20, 100, 80), RED, **style)
        return changed(canvas.image())

    edge, inside = (40, slice(40, 199)), (slice(60, 140), slice(60, 180))
    assert drawn()[edge].all() and not drawn()[inside].any()
    assert 0.4 < drawn(dashed=True)[edge].mean() < 0.95
    assert 0.1 < drawn(hatched=True)[inside].mean() < 0.6


def test_anchor_marks_its_center_in_the_color_of_its_level():
    shapes = []
    for level in range(4):
        canvas = Canvas(gray(), longest=240)
        canvas.anchor((20, 20, 80, 80), level_color(level), level)
        drawn = canvas.image()
        assert tuple(drawn[100, 100]) == level_color(level)
        assert not changed(drawn)[60:80, 60:80].any()
        mark = (drawn[80:120, 80:120] == level_color(level)).all(-1)
        shapes.append(mark.tobytes())
    assert len(set(shapes)) == 4


def test_marks_of_neighbors_do_not_touch():
    canvas = Canvas(gray(), longest=120)
    for x in (40, 48):
        canvas.anchor((x - 20, 30, x + 20, 70), RED, 3, spacing=8)
    column_is_free = ~changed(canvas.image())[46:54].any(0)
    assert column_is_free[44] and not column_is_free[40] and not column_is_free[48]


def test_mask_tints_its_pixels():
    mask = np.zeros((100, 120), bool)
    mask[10:20, 30:40] = True
    image = gray()
    canvas = Canvas(image, longest=240)
    canvas.mask(mask, RED)
    assert not changed(image).any()
    drawn = changed(canvas.image())
    assert drawn[20:40, 60:80].all()
    assert drawn.sum() == 400


def tag_places(boxes, size=(300, 300), longest=300):
    """Number of pixels covered by tags; the boxes are not drawn."""
    canvas = Canvas(gray(*size), longest=longest)
    for box in boxes:
        rect = canvas._rect(box)
        canvas._tags.append((rect, "class 0.50", WHITE))
    return (canvas.image() != 90).any(-1).sum()


def test_tags_do_not_hide_one_another():
    one = tag_places([(100, 100, 140, 130)])
    same = [(100, 100, 140, 130)] * 4
    assert tag_places(same) == 4 * one


@pytest.mark.parametrize(
    "box",
    [(0, 0, 300, 300), (0, 0, 10, 10), (290, 290, 300, 300), (-50, -50, 400, 10), (280, 0, 300, 5)],
)
def test_tag_is_complete_wherever_its_box_is(box):
    assert tag_places([box]) == tag_places([(100, 100, 140, 130)])


@pytest.mark.parametrize(
    "box",
    [
        (5, 5, 5, 5),
        (3.3, 5.7, 16.4, 12.3),  # the last dash has no length
        (50, 50, 40, 40),
        (-1e9, -1e9, 1e9, 1e9),
        (200, 200, 300, 300),
        (-40, -40, -10, -10),
    ],
)
@pytest.mark.parametrize("style", [{}, {"dashed": True}, {"hatched": True}])
def test_degenerate_and_far_boxes_are_drawn_without_an_error(box, style):
    canvas = Canvas(gray(), longest=120)
    canvas.box(box, RED, tag="odd", **style)
    canvas.anchor(box, RED)
    assert canvas.image().shape == (100, 120, 3)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((4, 4), "u1"), ((4, 4, 3), "f8"), ((0, 4, 3), "u1"), ((4, 4, 4), "u1")],
)
def test_other_arrays_are_rejected(shape, dtype):
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"):
        Canvas(np.zeros(shape, dtype))
