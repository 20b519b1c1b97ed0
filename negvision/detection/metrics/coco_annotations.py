"""Read COCO ground truth for evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from negvision.data.formats.coco_file import (
    find_classes,
    find_reference_problem,
    index_images,
    read_coco_file,
)
from negvision.errors import DatasetError, Problems


def load_coco_annotations(ann_file: str | Path) -> dict[str, Any]:
    """Read a COCO annotation file and complete what evaluation needs.

    A missing ``iscrowd`` becomes 0, a missing ``area`` width x height of the box (pixels²).
    Annotations are renumbered 1, 2, ...: COCO's matching marks "unmatched" with id 0, so an
    annotation with this id would never count as found, and two with one id would count as one.

    Returns:
        ``images``, ``annotations`` and ``categories`` of the file; other entries are dropped.

    Raises:
        FileNotFoundError: No such file.
        DatasetError: The file is not JSON, lacks one of the three lists, has an image id that is
            no integer, or a malformed annotation or one of an unlisted image.
    """
    path = Path(ann_file)
    if not path.is_file():
        raise FileNotFoundError(
            f"annotation file {str(ann_file)!r} of the metric does not exist "
            f"(looked for {path.absolute()}); set ann_file in val_evaluator/test_evaluator, "
            f"or the data root the config builds it from"
        )
    content = read_coco_file(str(ann_file))
    _, category_ids = find_classes(str(ann_file), content["categories"], None)
    problems = Problems()
    images = index_images(content["images"], problems)
    for image_id in images:
        if not isinstance(image_id, int):
            problems.add("image id that is not an integer", "images", image_id)
    annotations = []
    for number, annotation in enumerate(content["annotations"], start=1):
        problem = find_reference_problem(annotation, images, category_ids) or _number_problem(
            annotation
        )
        if problem:
            problems.add(problem[0], f"annotations[{number - 1}]", problem[1])
            continue
        width, height = annotation["bbox"][2:]
        annotations.append({"iscrowd": 0, "area": width * height, **annotation, "id": number})
    if problems:
        raise DatasetError(
            f"{ann_file}: the metric cannot use this file:\n{problems.report()}\nCorrect the file."
        )
    return {
        "images": content["images"],
        "annotations": annotations,
        "categories": content["categories"],
    }


def _number_problem(annotation: dict[str, Any]) -> tuple[str, object] | None:
    """Check the numbers that evaluation calculates with."""
    box = annotation.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        return "box that is not four numbers", box
    for key in ("area", "iscrowd"):
        if not _is_number(annotation.get(key, 0)):
            return f"{key} that is not a number", annotation[key]
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 63)
