"""Every kind of bad input: a clear error, or with "skip" a counted and logged skip."""

import re

import cv2
import numpy as np
import pytest
from helpers.checked_training import check
from torch.utils.data import DataLoader

from negvision.detection.metrics.coco_annotations import load_coco_annotations
from negvision.engine import training_check
from negvision.errors import DatasetError


def boxes_of(dataset) -> int:
    return sum(len(dataset.get_data_info(i)["instances"]) for i in range(len(dataset)))


def check_problem(coco, log, kind: str, where: str, boxes: int = 7, images: int = 4) -> None:
    """An error that names kind, place and fix; with "skip" a logged count and the rest kept."""
    with pytest.raises(DatasetError) as caught:
        coco.dataset()
    message = str(caught.value)
    assert f"1 x {kind}" in message
    assert where in message
    assert "labels.json" in message
    assert 'on_bad_sample="skip"' in message

    dataset = coco.dataset(on_bad_sample="skip")
    assert (len(dataset), boxes_of(dataset)) == (images, boxes)
    assert [line for line in log if f"1 x {kind}" in line and "left out of 4 images" in line]
    assert dataset[0]["inputs"].shape == (3, 80, 100)


def test_good_input_is_kept_and_logs_nothing(coco, log):
    dataset = coco.dataset()
    assert (len(dataset), boxes_of(dataset)) == (4, 8)
    assert log == []


def _bad_box(box):
    return lambda coco: coco.first.update(bbox=box)


NAN, INF = float("nan"), float("inf")
NO_NUMBERS = ([1, 2, 3], [1, 2, 3, None], ["1", "2", "3", "4"], 7)
OUTSIDE = ([100, 10, 20, 30], [5, 90, 20, 30], [-30, 10, 20, 30])
BAD_ANNOTATIONS = [
    (
        _bad_box([NAN, 10, 20, 30]),
        "box with NaN or infinite coordinates",
        "annotation id 10 of image 'a.jpg' (id 1): [nan, 10, 20, 30]",
    ),
    (_bad_box([5, 10, INF, 30]), "box with NaN or infinite coordinates", "[5, 10, inf, 30]"),
    *((_bad_box(box), "box that is not four numbers", "annotation id 10") for box in NO_NUMBERS),
    (_bad_box([5, 10, 20, 0]), "box of zero area", "[5, 10, 20, 0]"),
    (_bad_box([25, 40, -20, -30]), "box of negative size", "[25, 40, -20, -30]"),
    *((_bad_box(box), "box outside its image of 100 x 80", str(box)) for box in OUTSIDE),
    *(
        (lambda coco, flag=flag: coco.first.update(flag), f"{key} that is not 0 or 1", "id 10")
        for flag in ({"iscrowd": 2}, {"iscrowd": "maybe"}, {"iscrowd": [0]}, {"ignore": "x"})
        for key in flag
    ),
    (
        lambda coco: coco.first.update(category_id=4),
        "unknown category id",
        "annotation id 10 of image 'a.jpg' (id 1): 4",
    ),
    (
        lambda coco: coco.first.update(image_id=99),
        "annotation of an image that the file does not list",
        "99",
    ),
    (
        lambda coco: coco.first.pop("bbox"),
        "box that is not four numbers",
        "annotation id 10",
    ),
]


@pytest.mark.parametrize(("damage", "kind", "where"), BAD_ANNOTATIONS)
def test_bad_annotations(coco, log, damage, kind, where):
    damage(coco)
    check_problem(coco, log, kind, where)


KEPT = "used before, kept all the same"


@pytest.mark.parametrize(
    ("change", "noted"),
    [
        ({"id": 11}, f"1 x annotation id that was {KEPT}"),
        ({"id": [1]}, None),
        ({"id": None}, None),
        ({"area": NAN}, "1 x area that is not a positive number, computed from the box"),
        ({"area": 0}, "1 x area that is not a positive number, computed from the box"),
        ({"area": "600"}, "1 x area that is not a positive number, computed from the box"),
        ({"iscrowd": "0"}, "1 x iscrowd or ignore that is text, read as a number"),
        ({"iscrowd": False, "ignore": "false"}, "1 x iscrowd or ignore that is text"),
        ({"iscrowd": None}, None),
    ],
)
def test_bookkeeping_costs_no_box_in_training_and_evaluation(coco, log, change, noted):
    coco.first.update(change)
    dataset = coco.dataset()
    instances = dataset.get_data_info(0)["instances"]
    assert [item["ignore_flag"] for item in instances] == [0, 0] and boxes_of(dataset) == 8
    assert any(noted in line for line in log) if noted else log == []
    (first, *rest) = load_coco_annotations(coco.ann_file)["annotations"]
    assert (first["iscrowd"], first["area"], first["id"], len(rest)) == (0, 600, 1, 7)


@pytest.mark.parametrize("change", [{"iscrowd": "1"}, {"iscrowd": True}, {"ignore": "true"}])
def test_a_crowd_is_ignored_in_training_and_evaluation(coco, change):
    coco.first.update(change)
    assert [i["ignore_flag"] for i in coco.dataset().get_data_info(0)["instances"]] == [1, 0]
    assert load_coco_annotations(coco.ann_file)["annotations"][0]["iscrowd"] == 1


@pytest.mark.parametrize(
    ("options", "reasons"),
    [
        ({"min_size": 100}, ["4 x image smaller than min_size=100"]),
        (
            {"filter_empty_gt": True, "min_size": 32},
            ["8 x box left out that is narrower than a pixel", "4 x image without boxes"],
        ),
    ],
)
def test_a_filter_that_leaves_no_image_says_why(coco, options, reasons):
    if "filter_empty_gt" in options:
        for annotation in coco.content["annotations"]:
            annotation["bbox"] = [0.1, 0.2, 0.3, 0.4]
    with pytest.raises(DatasetError, match="filter_cfg leaves 0 of 4 images") as caught:
        coco.dataset(filter_cfg=options)
    assert all(reason in str(caught.value) for reason in reasons)


def test_a_data_set_that_counts_is_asked_for_the_reasons(coco, monkeypatch):
    warned = []
    monkeypatch.setattr(training_check, "_warn", warned.append)
    for annotation in coco.content["annotations"]:
        annotation["bbox"] = [0.1, 0.2, 0.3, 0.4]
    with pytest.raises(DatasetError, match=r"labels\.json: no object is left .* 4") as caught:
        check(coco.dataset())
    assert "8 x box left out that is narrower than a pixel" in str(caught.value)
    coco.first["bbox"] = [5, 10, 20, 30]
    coco.write()
    check(coco.dataset())
    assert "labels.json: 1 of 8 annotations are left to train" in warned[0]
    assert "7 x box left out that is narrower than a pixel" in warned[0]
    coco.content["annotations"] = []
    coco.write()
    with pytest.raises(DatasetError, match="4 x image without a usable annotation"):
        check(coco.dataset())


def _repeated_image_id(coco):
    coco.content["images"][3]["id"] = 3
    coco.content["annotations"] = coco.content["annotations"][:6]


@pytest.mark.parametrize(
    ("damage", "kind", "where"),
    [
        (
            lambda coco: coco.content["images"][0].pop("width"),
            "image record without a positive width and height",
            "image 'a.jpg' (id 1)",
        ),
        (_repeated_image_id, "image id that was used before", "'d.png'"),
        (
            lambda coco: (coco.images / "b.jpg").unlink(),
            "missing image file",
            "images/b.jpg (image id 2)",
        ),
    ],
)
def test_bad_image_records(coco, log, damage, kind, where):
    damage(coco)
    check_problem(coco, log, kind, where, boxes=6, images=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metainfo": {"classes": ("cat", "dogs")}}, r"'dogs'; nearest: 'dog'"),
        ({"on_bad_sample": "ignore"}, "on_bad_sample is 'ignore'"),
    ],
)
def test_bad_options(coco, options, message):
    with pytest.raises(ValueError, match=message):
        coco.dataset(**options)


def test_box_partly_outside_is_clipped_and_counted(coco, log):
    coco.first["bbox"] = [-10, 60, 30, 30]
    dataset = coco.dataset()
    assert dataset.get_data_info(0)["instances"][0]["bbox"] == [0, 60, 20, 80]
    assert any("1 x box clipped" in line for line in log)


def test_box_off_by_rounding_is_clipped_silently(coco, log):
    coco.first["bbox"] = [80, 10, 20.4, 30]
    dataset = coco.dataset()
    assert dataset.get_data_info(0)["instances"][0]["bbox"] == [80, 10, 100, 40]
    assert log == []


def test_all_images_missing_is_an_error_in_both_modes(coco):
    for path in coco.images.iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"No image is left. Does data_prefix\['img'\]"):
        coco.dataset(on_bad_sample="skip")


def test_many_problems_are_counted_by_kind_in_one_error(coco):
    for annotation in coco.content["annotations"][:6]:
        annotation["bbox"] = [5, 10, 0, 30]
    coco.content["annotations"][6]["category_id"] = 1
    with pytest.raises(DatasetError) as caught:
        coco.dataset()
    message = str(caught.value)
    assert "7 problems in 4 images and 8 annotations" in message
    assert "6 x box of zero area" in message
    assert "... and 1 more" in message
    assert "1 x unknown category id" in message


@pytest.mark.parametrize("mode", ["error", "skip"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "is empty"),
        (b"\xff\xd8\xff\xe0JFIF", "not JSON: it is not UTF-8 text"),
        (b"<html>404</html>", "not JSON: Expecting value in line 1, column 1"),
        (b'{"images": [], "annot', "The file ends there, so it may be truncated"),
        (b"[1, 2]", "this one holds a list"),
        (b'{"images": [], "annotations": []}', "has a list 'categories'; found nothing"),
        (b'{"images": [], "annotations": [], "categories": []}', "'categories' is empty"),
    ],
)
def test_annotation_file_that_is_not_coco_json(coco, mode, text, says):
    coco.ann_file.write_bytes(text)
    with pytest.raises(DatasetError, match=re.escape(says)) as caught:
        coco.dataset(on_bad_sample=mode)
    assert str(coco.ann_file) in str(caught.value)


def test_missing_annotation_file_shows_the_layout(coco):
    with pytest.raises(DatasetError) as caught:
        coco.dataset(ann_file="annotations/instances_train2017.json")
    message = str(caught.value)
    assert f"{coco.root}/annotations/instances_train2017.json" in message
    assert re.search(r"ann_file: MISSING", message)
    assert re.search(r"data_prefix\['img'\]: found", message)
    assert "--data-root DIR" in message
    assert "make quickstart" in message


def test_missing_image_folder_shows_layout(coco):
    with pytest.raises(DatasetError, match=r"Missing: data_prefix\['img'\] .*train2017"):
        coco.dataset(data_prefix={"img": "train2017/"})


# Problems of image files, found when the image is loaded.


IMAGE_CASES = {
    "truncated JPEG": (lambda coco: coco.truncate("b.jpg"), "b.jpg: truncated JPEG"),
    "truncated PNG": (lambda coco: coco.truncate("d.png"), "d.png: truncated PNG"),
    "empty file": (lambda coco: _second(coco).write_bytes(b""), "b.jpg: the file is empty"),
    "no image": (lambda coco: _second(coco).write_bytes(b"<html>"), "b.jpg: not an image"),
    "vanished": (lambda coco: _second(coco).unlink(), "b.jpg: no such file"),
    "wrong size": (
        lambda coco: cv2.imwrite(str(_second(coco)), np.zeros((90, 120, 3), np.uint8)),
        "the image is 120 x 90 pixels (width x height), the annotations say 100 x 80",
    ),
}


def _second(coco):
    return coco.images / "b.jpg"


def unusable(coco, case: str) -> str:
    """Damage image b.jpg or d.png and return the expected error."""
    damage, says = IMAGE_CASES[case]
    damage(coco)
    return says


@pytest.mark.parametrize("case", IMAGE_CASES)
def test_unusable_image_is_an_error(coco, case):
    dataset = coco.dataset()
    says = unusable(coco, case)
    index = 3 if "PNG" in case else 1
    with pytest.raises(DatasetError, match=re.escape(says)):
        dataset[index]


@pytest.mark.parametrize("case", IMAGE_CASES)
def test_unusable_training_image_is_replaced_counted_and_logged_once(coco, log, case):
    dataset = coco.dataset(on_bad_sample="skip")
    says = unusable(coco, case)
    index = 3 if "PNG" in case else 1
    for _ in range(5):
        assert dataset[index]["data_samples"].img_id != index + 1
    (path,) = dataset.skipped_images
    assert dataset.skipped_images[path] >= 5
    (line,) = log
    assert says in line
    assert "1 in this process so far" in line


@pytest.mark.parametrize("mode", ["error", "skip"])
def test_truncated_image_is_an_error_at_test_time_in_both_modes(coco, mode):
    dataset = coco.dataset(on_bad_sample=mode, test_mode=True)
    coco.truncate("b.jpg")
    with pytest.raises(DatasetError, match="truncated JPEG"):
        dataset[1]


@pytest.mark.parametrize("case", ["truncated JPEG", "vanished"])
def test_worker_process_raises_the_message_without_a_stack_trace(coco, case):
    dataset = coco.dataset()
    says = unusable(coco, case)
    loader = DataLoader(dataset, batch_size=2, num_workers=1, collate_fn=list)
    with pytest.raises(DatasetError) as caught:
        list(loader)
    message = str(caught.value)
    assert message.startswith(str(coco.images))
    assert says in message
    assert "Traceback" not in message


def test_swapped_sides_hint_at_exif(coco):
    dataset = coco.dataset()
    cv2.imwrite(str(coco.images / "a.jpg"), np.zeros((100, 80, 3), np.uint8))
    with pytest.raises(DatasetError, match="EXIF orientation"):
        dataset[0]
