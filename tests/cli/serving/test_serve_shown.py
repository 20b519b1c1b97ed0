"""Results at the size of the page, as images, tables and text."""

import numpy as np
import pytest

from negvision.cli.serving.shown import LONGEST, at_page_size
from negvision.inference.drawing import draw
from negvision.inference.runtime import Classification, Detections, LabelMap

CLASSES = ("cat", "dog")
COLUMNS = ["class", "score", "OOD score", "unknown", "x1", "y1", "x2", "y2"]


@pytest.fixture
def boxes() -> Detections:
    return Detections(
        np.array([[100, 200, 1100, 1200], [5, 5, 50, 60]], np.float32),
        np.array([0.9, 0.2], np.float32),
        np.array([1, 7]),
        np.array([-3.0, -1.2344], np.float32),
    )


def _image(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def test_large_image_is_reduced_and_its_table_is_not(boxes):
    shown = at_page_size(_image(1500, 2560), boxes, CLASSES)
    assert shown.image.shape == (750, LONGEST, 3) and shown.zoom == 0.5
    np.testing.assert_array_equal(shown.result.boxes, boxes.boxes / 2)
    assert shown.table(0.1, -2.0)["headers"] == COLUMNS
    assert shown.table(0.1, -2.0)["data"] == [
        ["dog", 0.9, -3.0, "", 100, 200, 1100, 1200],
        ["7", 0.2, -1.234, "yes", 5, 5, 50, 60],
    ]
    assert len(shown.table(0.5, None)["data"]) == 1
    assert shown.summary(0.1, -2.0) == "2560 x 1500 pixels; 2 of 2 boxes, 1 of them unknown."


def test_drawing_is_that_of_predict_in_rgb(boxes):
    image = _image(200, 300)
    shown = at_page_size(image, boxes, CLASSES)
    assert shown.zoom == 1
    options = {"score_threshold": 0.1, "ood_threshold": -2.0, "enlarge": True}
    expected = draw(image, boxes, CLASSES, **options)
    np.testing.assert_array_equal(shown.drawing(0.1, -2.0), expected[..., ::-1])
    assert not np.array_equal(shown.drawing(0.5, -2.0), shown.drawing(0.1, -2.0))


def test_range_includes_all_scores_and_the_threshold(boxes):
    shown = at_page_size(_image(20, 30), boxes, CLASSES)
    assert shown.ood_range() == (-3.0, -1.234)
    assert shown.ood_range(0.5) == (-3.0, 0.5)
    # Nothing is unknown at the upper end.
    assert not (boxes.ood_scores > shown.ood_range()[1]).any()
    none = Detections(*(np.zeros((0, *n)) for n in ((4,), (), ())), np.zeros(0))
    shown = at_page_size(_image(20, 30), none, CLASSES)
    assert shown.ood_range() == (0.0, 0.0) and shown.ood_range(-2.5) == (-2.5, -2.5)
    assert shown.table(0.1, -1.0)["data"] == [] and "0 of 0 boxes" in shown.summary(0.1, -1.0)


def test_model_without_ood_scores(boxes):
    plain = Detections(boxes.boxes, boxes.scores, boxes.labels)
    shown = at_page_size(_image(20, 30), plain, CLASSES)
    assert shown.table(0.5, None) == {
        "headers": ["class", "score", "x1", "y1", "x2", "y2"],
        "data": [["dog", 0.9, 100, 200, 1100, 1200]],
    }
    assert shown.summary(0.95, None) == (
        "30 x 20 pixels; 0 of 2 boxes (the highest score is 0.90)."
    )


def test_class_of_an_image_has_a_table_and_an_ood_score():
    found = Classification(np.array([0.25, 0.75], np.float32), ood_score=-0.5)
    shown = at_page_size(_image(1500, 2560), found, CLASSES)
    assert shown.has_ood and shown.ood_range() == (-0.5, -0.5)
    rows = [[CLASSES[1], 0.75], [CLASSES[0], 0.25]]
    assert shown.table(0.3, 0.0) == {"headers": ["class", "probability"], "data": rows}
    assert shown.summary(0.3, -0.6) == "2560 x 1500 pixels; OOD score -0.500, unknown."
    assert (shown.drawing(0.3, -0.6) != shown.drawing(0.3, 0.0)).any()


def test_maps_are_reduced_without_mixing_labels():
    labels = np.zeros((1000, 2000), np.int32)
    labels[:, 1500:] = 1
    ood = np.where(np.arange(1000)[:, None] < 250, 2.0, -1.0) * np.ones((1, 2000))
    shown = at_page_size(_image(1000, 2000), LabelMap(labels, ood.astype(np.float32)), CLASSES)
    assert shown.result.labels.shape == shown.result.ood_scores.shape == (640, LONGEST)
    assert shown.result.labels.dtype == np.int32
    assert set(np.unique(shown.result.labels)) == {0, 1}
    assert shown.table(0.3, 0.0) == {
        "headers": ["class", "pixels %", "of them unknown %"],
        "data": [["cat", 75.0, 25.0], ["dog", 25.0, 25.0]],
    }
    assert shown.summary(0.3, 0.0) == "2000 x 1000 pixels; 25.0 % unknown."
