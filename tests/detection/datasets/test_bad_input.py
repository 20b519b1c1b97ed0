"""Every kind of bad input: a clear error, or a counted and logged skip where it was chosen."""

import re

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from negvision.errors import DatasetError


def boxes_of(dataset) -> int:
    return sum(len(dataset.get_data_info(i)["instances"]) for i in range(len(dataset)))


def check_fault(coco, log, kind: str, where: str, boxes: int = 7, images: int = 4) -> None:
    """Both modes: an error that names kind, place and remedy; a logged count and the rest kept."""
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


def test_good_input_is_kept_whole_and_logs_nothing(coco, log):
    dataset = coco.dataset()
    assert (len(dataset), boxes_of(dataset)) == (4, 8)
    assert log == []


def test_nan_coordinates(coco, log):
    coco.first["bbox"] = [float("nan"), 10, 20, 30]
    check_fault(
        coco,
        log,
        "box with NaN or infinite coordinates",
        "annotation id 10 of image 'a.jpg' (id 1): [nan, 10, 20, 30]",
    )


def test_infinite_coordinates(coco, log):
    coco.first["bbox"] = [5, 10, float("inf"), 30]
    check_fault(coco, log, "box with NaN or infinite coordinates", "[5, 10, inf, 30]")


@pytest.mark.parametrize("box", [None, [1, 2, 3], [1, 2, 3, None], ["1", "2", "3", "4"], 7])
def test_box_that_is_not_four_numbers(coco, log, box):
    coco.first["bbox"] = box
    check_fault(coco, log, "box that is not four numbers", "annotation id 10")


def test_box_of_zero_area(coco, log):
    coco.first["bbox"] = [5, 10, 20, 0]
    check_fault(coco, log, "box of zero area", "[5, 10, 20, 0]")


def test_box_of_negative_size(coco, log):
    coco.first["bbox"] = [25, 40, -20, -30]
    check_fault(coco, log, "box of negative size", "[25, 40, -20, -30]")


@pytest.mark.parametrize("box", [[100, 10, 20, 30], [5, 90, 20, 30], [-30, 10, 20, 30]])
def test_box_outside_the_image(coco, log, box):
    coco.first["bbox"] = box
    check_fault(coco, log, "box outside its image of 100 x 80", str(box))


def test_box_partly_outside_is_clipped_and_counted(coco, log):
    coco.first["bbox"] = [-10, 60, 30, 30]
    dataset = coco.dataset()
    assert dataset.get_data_info(0)["instances"][0]["bbox"] == [0, 60, 20, 80]
    assert any("1 x box clipped" in line for line in log)


def test_box_off_by_rounding_is_clipped_in_silence(coco, log):
    coco.first["bbox"] = [80, 10, 20.4, 30]
    dataset = coco.dataset()
    assert dataset.get_data_info(0)["instances"][0]["bbox"] == [80, 10, 100, 40]
    assert log == []


def test_area_that_is_not_positive(coco, log):
    coco.first["area"] = float("nan")
    check_fault(coco, log, "area that is not a positive number", "nan")


def test_unknown_category_id(coco, log):
    coco.first["category_id"] = 4
    check_fault(coco, log, "unknown category id", "annotation id 10 of image 'a.jpg' (id 1): 4")


def test_unknown_image_id(coco, log):
    coco.first["image_id"] = 99
    check_fault(coco, log, "annotation of an image that the file does not list", "99")


def test_annotation_id_used_twice(coco, log):
    coco.content["annotations"][1]["id"] = 10
    check_fault(coco, log, "annotation id that was used before", "annotation id 10")


def test_annotation_without_a_box(coco, log):
    del coco.first["bbox"]
    check_fault(coco, log, "box that is not four numbers", "annotation id 10")


def test_image_without_a_size(coco, log):
    del coco.content["images"][0]["width"]
    kind = "image record without a positive width and height"
    check_fault(coco, log, kind, "image 'a.jpg' (id 1)", boxes=6, images=3)


def test_image_id_used_twice(coco, log):
    coco.content["images"][3]["id"] = 3
    coco.content["annotations"] = coco.content["annotations"][:6]
    check_fault(coco, log, "image id that was used before", "'d.png'", boxes=6, images=3)


def test_missing_image(coco, log):
    (coco.images / "b.jpg").unlink()
    where = f"{coco.images}/b.jpg (image id 2)"
    check_fault(coco, log, "missing image file", where, boxes=6, images=3)


def test_all_images_missing_is_an_error_in_both_modes(coco):
    for path in coco.images.iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"No image is left. Does data_prefix\['img'\]"):
        coco.dataset(on_bad_sample="skip")


def test_many_faults_are_counted_by_kind_in_one_error(coco):
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


def test_missing_annotation_file_shows_layout_and_remedies(coco):
    with pytest.raises(DatasetError) as caught:
        coco.dataset(ann_file="annotations/instances_train2017.json")
    message = str(caught.value)
    assert f"{coco.root}/annotations/instances_train2017.json" in message
    assert re.search(r"ann_file: MISSING", message)
    assert re.search(r"data_prefix\['img'\]: found", message)
    assert "--data-root DIR" in message
    assert "make quickstart" in message


def test_missing_image_folder_shows_layout(coco):
    with pytest.raises(DatasetError, match=r"Missing: image folder .*train2017"):
        coco.dataset(data_prefix={"img": "train2017/"})


def test_class_that_is_no_category_names_the_nearest(coco):
    with pytest.raises(DatasetError, match=r"'dogs'; nearest: 'dog'"):
        coco.dataset(metainfo={"classes": ("cat", "dogs")})


def test_unknown_mode(coco):
    with pytest.raises(ValueError, match="on_bad_sample is 'ignore'"):
        coco.dataset(on_bad_sample="ignore")


# Faults of image files, met when the image is loaded.


def unusable(coco, case: str) -> str:
    """Damage image b.jpg or d.png; returns what the error has to say."""
    path = coco.images / "b.jpg"
    if case == "truncated JPEG":
        coco.truncate("b.jpg")
        return "b.jpg: truncated JPEG"
    if case == "truncated PNG":
        coco.truncate("d.png")
        return "d.png: truncated PNG"
    if case == "empty file":
        path.write_bytes(b"")
        return "b.jpg: the file is empty"
    if case == "no image":
        path.write_bytes(b"<!DOCTYPE html><html>not found</html>")
        return "b.jpg: not an image"
    if case == "vanished":
        path.unlink()
        return "b.jpg: no such file"
    assert case == "wrong size"
    cv2.imwrite(str(path), np.zeros((90, 120, 3), np.uint8))
    return "the image is 120 x 90 pixels (width x height), the annotations say 100 x 80"


IMAGE_CASES = [
    "truncated JPEG",
    "truncated PNG",
    "empty file",
    "no image",
    "vanished",
    "wrong size",
]


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


@pytest.mark.parametrize("case", ["truncated JPEG", "vanished"])
def test_worker_process_skips_and_goes_on(coco, case):
    dataset = coco.dataset(on_bad_sample="skip")
    unusable(coco, case)
    loader = DataLoader(dataset, batch_size=2, num_workers=1, collate_fn=list)
    ids = [sample["data_samples"].img_id for batch in loader for sample in batch]
    assert len(ids) == 4
    assert 2 not in ids


def test_swapped_sides_hint_at_exif(coco):
    dataset = coco.dataset()
    cv2.imwrite(str(coco.images / "a.jpg"), np.zeros((100, 80, 3), np.uint8))
    with pytest.raises(DatasetError, match="EXIF orientation"):
        dataset[0]
