"""Sheets show every image, caption, and legend entry."""

import cv2
import numpy as np
import pytest

from negvision.visualization import (
    LegendEntry,
    contact_sheet,
    save_image,
    shown_path,
    with_legend,
)
from negvision.visualization.boxes import draw_annotations, draw_predictions
from negvision.visualization.canvas import text_width
from negvision.visualization.sheet import shortened


def tile(shade, height=80, width=120):
    return np.full((height, width, 3), (shade, 10, 200), np.uint8)


def where(sheet, shade):
    rows, columns = np.nonzero((sheet == (shade, 10, 200)).all(-1))
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def test_images_are_in_rows_and_not_covered():
    sheet = contact_sheet([tile(s) for s in (10, 60, 110)], ["a", "b", "c"], columns=2)
    first, second, third = (where(sheet, shade) for shade in (10, 60, 110))
    assert first[:2] == second[:2] and first[3] < second[2]
    assert third[0] > first[1] and third[2] == first[2]
    for shade in (10, 60, 110):
        assert (sheet == (shade, 10, 200)).all(-1).sum() == 80 * 120
    sheet = contact_sheet([tile(10, 40, 60), tile(60, 90, 200)], ["small", "large"], columns=2)
    small, large = where(sheet, 10), where(sheet, 60)
    assert small[1] == large[1] and small[3] < large[2]
    assert contact_sheet([], [], title="nothing").shape[2] == 3


def test_caption_is_below_its_image_and_inside_its_column():
    plain = contact_sheet([tile(10), tile(60)], ["", ""], columns=2)
    text = "caption that is far too long for a column of this width"
    sheet = contact_sheet([tile(10), tile(60)], [text, ""], columns=2)
    assert sheet.shape == plain.shape
    rows, columns = np.nonzero((sheet != plain).any(-1))
    _, bottom, left, right = where(sheet, 10)
    assert rows.min() >= bottom and columns.min() >= left and columns.max() <= right + 1
    two = contact_sheet([tile(10), tile(60)], ["one\ntwo", ""], columns=2)
    assert two.shape[0] > sheet.shape[0]
    assert shortened("short", 14, 200) == "short"
    cut = shortened("a class with a name without end", 14, 80)
    assert cut.endswith("…") and text_width(cut, 14) <= 80 and len(cut) > 3


def test_title_and_legend_are_above():
    entries = [
        LegendEntry("box", (250, 0, 0)),
        LegendEntry("ignored", (0, 250, 0), dashed=True),
        LegendEntry("level", (0, 0, 250), level=2),
    ]
    image = tile(10, 80, 300)
    sheet = with_legend(image, "A title", entries)
    assert (sheet[-80:] == image).all()
    for entry in entries:
        assert (sheet == entry.color).all(-1).any()
    assert with_legend(image).shape == image.shape
    narrow = with_legend(tile(10, 80, 110), "A title", entries)
    assert narrow.shape[1] == 110 and narrow.shape[0] > sheet.shape[0]
    for entry in entries:
        assert (narrow == entry.color).all(-1).any()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_saved_images_keep_their_colors(tmp_path, suffix):
    path = save_image(tmp_path / "new" / f"a{suffix}", tile(10))
    loaded = cv2.imread(str(path))[..., ::-1].astype(int)
    assert np.abs(loaded - tile(10)).max() <= (0 if suffix == ".png" else 6)


def test_paths_below_the_current_folder_are_shown_relative_to_it(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert shown_path(tmp_path / "here/a/b.pth") == shown_path("a/b.pth") == "a/b.pth"
    assert shown_path(tmp_path / "b.pth") == str(tmp_path / "b.pth")
    for address in ("torchvision://resnet50", "https://example.org/a.pth"):
        assert shown_path(address) == address


def test_predictions_with_and_without_detections():
    image = np.full((64, 64, 3), 90, np.uint8)
    plain = draw_predictions(image, [], [], [], ("a",), longest=256)
    assert (plain == 90).all()
    truth = draw_predictions(image, [], [], [], ("a",), truth=[(10, 10, 40, 40)], longest=256)
    assert tuple(truth[40, 100]) == (255, 255, 255)
    # A label without a name is shown as its number.
    found = draw_predictions(image, [(5, 5, 50, 50)], [7], [0.9], ("a",), longest=256)
    assert (found != 90).any()
    ignored = draw_predictions(image, [], [], [], ("a",), ignored=[(10, 10, 40, 40)], longest=256)
    assert 0 < (ignored != 90).any(-1).sum() < (found != 90).any(-1).sum()


def test_annotations_with_masks_and_ignore_boxes():
    image = np.full((64, 64, 3), 90, np.uint8)
    masks = np.zeros((1, 64, 64), bool)
    masks[0, 30:34, 30:34] = True
    boxes, labels = [(20, 20, 60, 60)], [0]
    plain = draw_annotations(image, boxes, labels, ("a",), longest=256)
    tinted = draw_annotations(image, boxes, labels, ("a",), masks, longest=256)
    assert (plain != tinted).any(-1).sum() == 16 * 16
    hatched = draw_annotations(image, boxes, labels, ("a",), None, [(2, 2, 15, 15)], longest=256)
    rows, columns = np.nonzero((hatched != plain).any(-1))
    assert len(rows) and rows.max() < 100 and columns.max() < 120
