"""Read COCO ground truth for evaluation and find a dataset's classes in it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from negvision.errors import DatasetError


def load_coco_annotations(ann_file: str | Path) -> dict[str, Any]:
    """Read a COCO annotation file and complete what evaluation needs.

    A missing ``iscrowd`` is 0, a missing ``area`` is width x height of the box (pixels²), and
    annotations are numbered 1, 2, ... in place of their own ids: COCO's matching marks "unmatched"
    by id 0, so an annotation that bears this id would never count as found, and two that share
    an id would count as one.

    Args:
        ann_file: JSON with ``images``, ``annotations`` and ``categories``.

    Returns:
        ``images``, ``annotations`` and ``categories`` of the file; other entries are dropped.

    Raises:
        FileNotFoundError: No such file.
        DatasetError: Not JSON, one of the three entries is missing, an image id is no integer, an
            annotation is malformed, or names an image that the file does not list.
    """
    path = Path(ann_file)
    if not path.is_file():
        raise FileNotFoundError(
            f"annotation file {str(ann_file)!r} of the metric does not exist "
            f"(looked for {path.absolute()}); set ann_file in val_evaluator/test_evaluator, "
            f"or the data root the config builds it from"
        )
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"annotation file {str(ann_file)!r} is not JSON: {error}") from error
    wanted = ("images", "annotations", "categories")
    missing = [
        key
        for key in wanted
        if not isinstance(content, dict) or not isinstance(content.get(key), list)
    ]
    if missing:
        raise DatasetError(f"annotation file {str(ann_file)!r} has no {', '.join(missing)}")

    image_ids = set()
    for image in content["images"]:
        image_id = image.get("id") if isinstance(image, dict) else image
        if not isinstance(image_id, int):
            raise DatasetError(f"image ids in {str(ann_file)!r} must be integers, got {image_id!r}")
        image_ids.add(image_id)
    for category in content["categories"]:
        if not (
            isinstance(category, dict)
            and isinstance(category.get("id"), int)
            and isinstance(category.get("name"), str)
        ):
            raise DatasetError(
                f"a category in {str(ann_file)!r} needs an integer id and a name; found "
                f"{category!r}"
            )
    annotations = []
    for number, annotation in enumerate(content["annotations"], start=1):
        if not _is_complete(annotation):
            raise DatasetError(
                f"annotation {number} in {str(ann_file)!r} needs an integer image_id and "
                f"category_id and a bbox of four numbers; found {annotation!r}"
            )
        if annotation["image_id"] not in image_ids:
            raise DatasetError(
                f"annotation {annotation.get('id')} in {str(ann_file)!r} belongs to image "
                f"{annotation['image_id']!r}, which the file does not list"
            )
        width, height = annotation["bbox"][2:]
        completed = {"iscrowd": 0, "area": width * height, **annotation, "id": number}
        annotations.append(completed)
    return {
        "images": content["images"],
        "annotations": annotations,
        "categories": content["categories"],
    }


def _is_complete(annotation: Any) -> bool:
    """Whether an annotation has what evaluation calculates with."""
    if not isinstance(annotation, dict):
        return False
    ids = (annotation.get("image_id"), annotation.get("category_id"))
    box = annotation.get("bbox")
    numbers = [annotation.get("area", 0.0), annotation.get("iscrowd", 0)]
    if not (isinstance(box, list) and len(box) == 4 and all(isinstance(i, int) for i in ids)):
        return False
    return all(isinstance(n, float) or _fits(n) for n in (*box, *numbers)) and all(map(_fits, ids))


def _fits(number: Any) -> bool:
    return isinstance(number, int) and abs(number) < 1 << 63


def category_ids_of(
    classes: Sequence[str], categories: Sequence[dict[str, Any]], ann_file: str | Path
) -> list[int]:
    """The category id of each class, found by name.

    Args:
        classes: Names, in the order of the model's labels.
        categories: The ``categories`` of a COCO file.
        ann_file: Named in errors.

    Returns:
        One id for each class, so that ``ids[label]`` is the category of a predicted label.

    Raises:
        DatasetError: A class is no category (the nearest name is given), or stands there twice.
    """
    by_name: dict[str, list[int]] = {}
    for category in categories:
        by_name.setdefault(category["name"], []).append(category["id"])
    ids = []
    for name in classes:
        found = by_name.get(name, [])
        if len(found) > 1:
            raise DatasetError(f"category {name!r} stands {len(found)} times in {str(ann_file)!r}")
        if not found:
            near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.0)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DatasetError(
                f"class {name!r} of the dataset is no category of {str(ann_file)!r}{hint} "
                f"(it has {len(by_name)}: {', '.join(sorted(by_name)[:20])})"
            )
        ids.append(found[0])
    return ids
