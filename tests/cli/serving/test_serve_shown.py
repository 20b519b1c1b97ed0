"""Results at the size of the page, as images, tables and text."""

import dataclasses
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from negvision.cli.serving.examples import find_examples
from negvision.cli.serving.shown import LONGEST, Scale, at_page_size, headers_of
from negvision.errors import UserError
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


def test_scores_are_shown_as_percentiles_of_known_ones(boxes):
    scale = Scale((-4.0, -3.0, -2.0, -1.0, 0.0), threshold=-1.26)
    assert scale.start == 68.5 and scale.score(68.5) == -1.26
    assert scale.score(25) == -3 and scale.shown(np.array([-9.0, 9.0])).tolist() == [0, 100]
    shown = at_page_size(_image(1500, 2560), boxes, CLASSES, scale)
    table = shown.table(0.1, scale.threshold)
    assert table["headers"][2] == "OOD percentile"
    # A box is unknown if its percentile is above that of the threshold.
    assert [row[2:4] for row in table["data"]] == [[25.0, ""], [69.1, "yes"]]
    one = at_page_size(_image(9, 9), Classification(np.ones(1), -2.0), CLASSES, scale)
    assert one.summary(0, None) == "9 x 9 pixels; OOD percentile 50.0."


@pytest.mark.parametrize("task", ["detection", "classification", "segmentation"])
@pytest.mark.parametrize("has_ood", [False, True])
def test_empty_table_has_the_columns_of_the_full_one(boxes, task, has_ood):
    labels = np.zeros((9, 9), np.int32)
    result = {
        "detection": boxes,
        "classification": Classification(np.ones(1), 0.5),
        "segmentation": LabelMap(labels, labels.astype(np.float32)),
    }[task]
    if not has_ood:
        name = "ood_score" if task == "classification" else "ood_scores"
        result = dataclasses.replace(result, **{name: None})
    table = at_page_size(_image(9, 9), result, CLASSES).table(0, None)
    assert table["headers"] == headers_of(task, has_ood, Scale())
    assert len(table["data"][0]) == len(table["headers"])


def test_examples_are_copies_of_what_is_given(tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(given / name), _image(9, 12))
    model = SimpleNamespace(task="detection", classes=("0", "7"))
    (tmp_path / "one").mkdir()
    found = find_examples([str(given)], model, tmp_path / "one", 108)
    assert [path.name for path in found] == ["a.png", "b.png"]
    assert all(path.is_relative_to(tmp_path / "one") for path in found)
    (tmp_path / "two").mkdir()
    with pytest.raises(UserError, match=r"a.png: 108 pixels; --max-pixels is 107"):
        find_examples([str(given)], model, tmp_path / "two", 107)
    for number, classes in enumerate((("0", "7"), ("cat",))):
        folder = tmp_path / str(number)
        folder.mkdir()
        model.classes = classes
        found = find_examples([], model, folder, 1 << 20)
        assert len(found) >= 2 and all(cv2.imread(str(path)) is not None for path in found)


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
