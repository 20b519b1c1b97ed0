"""RandomZoom moves images and boxes alike."""

import random

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes

from negvision import RandomZoom


def sample(*boxes, height=60, width=80):
    """A black image with the boxes painted white, one color channel each."""
    image = np.zeros((height, width, 3), np.uint8)
    for channel, (x1, y1, x2, y2) in enumerate(boxes):
        image[y1:y2, x1:x2, channel] = 255
    return {
        "img": image,
        "gt_bboxes": HorizontalBoxes(torch.tensor(boxes).float().reshape(-1, 4)),
        "gt_bboxes_labels": np.arange(len(boxes)),
        "gt_ignore_flags": np.zeros(len(boxes), bool),
    }


def zoomed(results, factor, x=0.5, y=0.5, **options):
    zoom = RandomZoom((factor, factor), **options)
    zoom._draw = lambda: (factor, x, y)
    return zoom(results)


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.0, 1.25, 2.0])
@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_boxes_stay_around_what_they_enclose(factor, x):
    result = zoomed(sample((20, 12, 44, 36), (30, 20, 70, 58)), factor, x=x, y=1 - x)
    assert result["img"].shape == (60, 80, 3)
    assert len(result["gt_bboxes"]) == 2
    # What was never painted is gray.
    painted = result["img"].astype(int)
    for channel, box in enumerate(result["gt_bboxes"].tensor.tolist()):
        rows, columns = np.nonzero(painted[..., channel] > 127)
        found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(np.array(found) - box).max() <= 1


def test_factor_one_changes_nothing():
    before = sample((20, 12, 44, 36))
    image = before["img"].copy()
    after = zoomed(before, 1.0)
    assert (after["img"] == image).all()
    assert after["gt_bboxes"].tensor.tolist() == [[20, 12, 44, 36]]


def test_a_box_cut_beyond_recognition_is_ignored_and_one_outside_is_gone():
    # The left half of the image is shown twice as large.
    boxes = sample((0, 0, 20, 20), (36, 0, 56, 20), (60, 0, 80, 20))
    result = zoomed(boxes, 2.0, x=0.0, y=0.0)
    assert result["gt_bboxes_labels"].tolist() == [0, 1]
    assert result["gt_ignore_flags"].tolist() == [False, True]
    assert result["gt_bboxes"].tensor.tolist() == [[0, 0, 40, 40], [72, 0, 80, 40]]


def test_a_box_at_the_limit_stays():
    result = zoomed(sample((35, 0, 55, 20)), 2.0, x=0.0, y=0.0, min_visible=0.25)
    assert result["gt_ignore_flags"].tolist() == [False]


def test_an_image_without_boxes_is_zoomed():
    result = zoomed(sample(), 0.5)
    assert len(result["gt_bboxes"]) == 0
    assert (result["img"] == 114).any()


def test_draws_follow_the_seed():
    zoom = RandomZoom()
    random.seed(3)
    first = [zoom._draw() for _ in range(3)]
    random.seed(3)
    assert first == [zoom._draw() for _ in range(3)]
    assert len(set(first)) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"scale": (1.2, 0.8)}, "scale is"), ({"scale": (0, 1)}, "scale is"),
     ({"min_visible": 1.5}, "min_visible is")],
)  # fmt: skip
def test_arguments_out_of_range_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        RandomZoom(**arguments)
