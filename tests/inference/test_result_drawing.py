"""Predictions drawn on images."""

import numpy as np
import pytest

from negvision.inference.drawing import draw, label_color
from negvision.inference.runtime import Classification, Detections, Embedding, LabelMap
from negvision.visualization.colors import UNKNOWN_COLOR, class_color

CLASSES = ("cat", "dog", "bird")


def _count(drawn, color) -> int:
    return int((drawn == np.array(color[::-1])).all(-1).sum())


@pytest.fixture
def image():
    return np.full((480, 640, 3), (10, 60, 200), np.uint8)


@pytest.fixture
def found():
    boxes = np.array([[50, 60, 200, 300], [300, 90, 500, 400]], np.float32)
    scores, ood = np.array([0.9, 0.2], np.float32), np.array([-1.0, 2.0], np.float32)
    return Detections(boxes, scores, np.array([0, 1]), ood)


def test_boxes_have_class_colors_and_high_scores(image, found):
    before = image.copy()
    drawn = draw(image, found, CLASSES)
    assert np.array_equal(image, before)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    assert _count(drawn, (200, 60, 10)) > 200_000  # BGR, like the input
    assert _count(drawn, class_color(0)) > 1000 and not _count(drawn, class_color(1))
    assert _count(draw(image, found, CLASSES, score_threshold=0.1), class_color(1)) > 1000


def test_threshold_marks_unknown_boxes(image, found):
    drawn = draw(image, found, CLASSES, score_threshold=0.1, ood_threshold=0.0)
    assert _count(drawn, class_color(0)) > 1000 and not _count(drawn, class_color(1))
    assert _count(drawn, UNKNOWN_COLOR) > 500
    assert not _count(draw(image, found, CLASSES, ood_threshold=3.0), UNKNOWN_COLOR)


def test_best_classes_of_an_image_are_written_below_one_another(image):
    found = Classification(np.array([0.3, 0.699, 0.001], np.float32), ood_score=2.0)
    drawn = draw(image, found, CLASSES)
    assert drawn.shape == image.shape
    rows = [np.nonzero((drawn == np.array(class_color(c)[::-1])).all(-1))[0] for c in (1, 0)]
    assert 0 == rows[0].min() < rows[0].max() < rows[1].min() < 60
    assert not _count(drawn, class_color(2)) and not _count(drawn, UNKNOWN_COLOR)
    one = draw(image, found, CLASSES, top=1, ood_threshold=1.0)
    assert not _count(one, class_color(0)) and _count(one, UNKNOWN_COLOR) > 100


def test_small_images_are_enlarged_on_request(found):
    image, labels = np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.int32)
    for result in (found, LabelMap(labels), Classification(np.ones(1))):
        assert draw(image, result, ()).shape == (48, 64, 3)
        assert draw(image, result, (), enlarge=True).shape == (480, 640, 3)


def test_label_maps_are_blended_and_named(image):
    labels = np.zeros((480, 640), np.int32)
    labels[:, 320:] = 2
    drawn = draw(image, LabelMap(labels), CLASSES)
    assert drawn.shape == image.shape
    for x, label in ((10, 0), (630, 2)):
        wanted = 0.55 * image[0, 0] + 0.45 * np.array(label_color(label)[::-1])
        assert np.abs(drawn[10, x] - wanted).max() <= 2
    # The name is in the middle of the region, on the full color.
    assert _count(drawn[:, 120:200], label_color(0)) > 100
    assert len({label_color(label) for label in range(20)}) == 20


def test_ood_scores_of_pixels_are_next_to_the_image(image):
    scores = np.zeros((480, 640), np.float32)
    scores[100:200, 100:200] = 5
    found = LabelMap(np.zeros((480, 640), np.int32), scores)
    drawn = draw(image, found, CLASSES)
    marked = draw(image, found, CLASSES, ood_threshold=1.0)
    assert drawn.shape[0] == 480 and drawn.shape[1] > 1280
    heat = drawn[:, 646 : 646 + 640].astype(int).sum(-1)
    assert heat[150, 150] > 500 > heat[300, 300]
    edge = slice(95, 105)
    assert not np.array_equal(drawn[edge, 95:205], marked[edge, 95:205])


def test_embeddings_cannot_be_drawn(image):
    with pytest.raises(ValueError, match=r"compare embeddings by similarity\(\)"):
        draw(image, Embedding(np.zeros(4)), ())
