"""Check every image record and every box of a COCO file when it is loaded.

A NaN coordinate found here names its annotation; in training it would only be a NaN loss.
"""

import os
from collections.abc import Sequence
from typing import Any

from negvision.data.formats.boxes import clip_box, find_box_problem
from negvision.data.formats.coco_file import (
    area_of,
    find_mask_problem,
    find_reference_problem,
    index_images,
    is_ignored,
)
from negvision.data.formats.paths import LEAVES_ROOT, leaves_root
from negvision.data.images.files import SPELLED_OTHERWISE, FileListing
from negvision.errors import DatasetError, Problems

NARROW = "box left out that is narrower than a pixel"
TEXT_FLAG = "iscrowd or ignore that is text, read as a number"


def check_images(images: Sequence[dict], problems: Problems) -> dict:
    """Image records by id; None for the id of a record that cannot be used."""
    usable: dict = {}
    for image_id, image in index_images(images, problems).items():
        name = image.get("file_name")
        where = f"image {name!r} (id {image_id!r})"
        usable[image_id] = None
        size = (image.get("width"), image.get("height"))
        if not isinstance(name, str) or not name:
            problems.add("image record without a file_name", where, name)
        elif not all(isinstance(side, int | float) and side > 0 for side in size):
            problems.add("image record without a positive width and height", where, size)
        else:
            usable[image_id] = image
    return usable


def settle_paths(
    images: dict,
    folder: str,
    root: str | None,
    is_local: bool,
    problems: Problems,
    notes: Problems,
) -> None:
    """Set records of ``images`` to None if their path leaves the data root or has no file.

    Only local files are looked for. Each folder is listed once, which is fast even for the 118,287
    images of COCO. A name that the disk spells otherwise is replaced and noted.
    """
    files = FileListing()
    for image_id, image in images.items():
        if image is None:
            continue
        name = image["file_name"]
        found: str | None = name
        if leaves_root(name, folder, root):
            problems.add(LEAVES_ROOT, f"image id {image_id!r}", name)
            found = None
        elif is_local and (found := files.find(folder, name, root)) is None:
            path = os.path.join(folder, name)
            problems.add("missing image file", f"{path} (image id {image_id!r})")
        if found is None:
            images[image_id] = None
        elif found != name:
            notes.add(SPELLED_OTHERWISE, f"image id {image_id!r}", name)
            images[image_id] = {**image, "file_name": found}


def check_annotations(
    annotations: Sequence[dict],
    images: dict,
    category_ids: set,
    problems: Problems,
    notes: Problems,
    masks: bool = False,
) -> dict[object, list[dict]]:
    """Find the usable annotations.

    Args:
        annotations: Of the file; they are not changed.
        images: Result of :func:`check_images`.
        category_ids: Of all categories in the file.
        problems: Collects what makes annotations unusable.
        notes: Collects corrections: boxes that reach beyond their image by more than a pixel are
            clipped, boxes narrower than a pixel are dropped (as in mmdet), an area that is no
            positive number is computed from the box, and ids may repeat, since nothing uses them.
        masks: Whether each annotation needs a mask.

    Returns:
        Annotations by image id, clipped, with an ``area``, and with ``iscrowd`` 1 for crowds and
        for what ``ignore`` marks, otherwise 0.
    """
    by_image: dict[object, list[dict]] = {}
    ids = set()
    for index, annotation in enumerate(annotations):
        problem = _find_problem(annotation, images, category_ids)
        if problem is not None:
            problems.add(problem[0], _locate(annotation, index, images), problem[1])
            continue
        image = images[annotation["image_id"]]
        if image is None:  # counted already
            continue
        problem = find_mask_problem(annotation, image) if masks else None
        if problem is not None:
            problems.add(problem[0], _locate(annotation, index, images), problem[1])
            continue
        try:
            ignored = int(is_ignored(annotation))
        except DatasetError as error:
            problems.add(error.kind, _locate(annotation, index, images), str(error))
            continue
        box = annotation["bbox"]
        (x, y, w, h), beyond = clip_box(box, image["width"], image["height"])
        if beyond > 1:
            where = _locate(annotation, index, images)
            notes.add("box clipped that reaches beyond its image", where, box)
        if w < 1 or h < 1:
            where = _locate(annotation, index, images)
            notes.add(NARROW, where, box)
            continue
        annotation_id = annotation.get("id")
        if isinstance(annotation_id, int | str):
            if annotation_id in ids:
                where = _locate(annotation, index, images)
                notes.add("annotation id that was used before, kept all the same", where)
            ids.add(annotation_id)
        changes = {}
        if w != box[2] or h != box[3]:
            changes["bbox"] = [x, y, w, h]
        if area_of(annotation) is None:
            changes["area"] = w * h
            if "area" in annotation:
                where = _locate(annotation, index, images)
                kind = "area that is not a positive number, computed from the box"
                notes.add(kind, where, annotation["area"])
        flags = (annotation.get("iscrowd", 0), annotation.get("ignore"))
        if flags[0] != ignored or flags[1]:
            changes.update(ignore=0, iscrowd=ignored)
            if any(isinstance(flag, str) for flag in flags):
                notes.add(TEXT_FLAG, _locate(annotation, index, images), flags)
        by_image.setdefault(annotation["image_id"], []).append(
            {**annotation, **changes} if changes else annotation
        )
    return by_image


def _find_problem(annotation: dict, images: dict, category_ids: set) -> tuple[str, object] | None:
    """Why an annotation is unusable, as (kind, value found); None if it is usable."""
    problem = find_reference_problem(annotation, images, category_ids)
    if problem:
        return problem
    box: Any = annotation.get("bbox")
    image = images[annotation["image_id"]]
    sides = (image["width"], image["height"]) if image else (float("inf"), float("inf"))
    if kind := find_box_problem(box, *sides):
        return kind, box
    return None


def _locate(annotation: dict, index: int, images: dict) -> str:
    if not isinstance(annotation, dict):
        return f"annotations[{index}]"
    where = f"annotation id {annotation['id']!r}" if "id" in annotation else f"annotations[{index}]"
    image_id = annotation.get("image_id")
    try:
        image = images.get(image_id)
    except TypeError:
        image = None
    name = f"{image['file_name']!r} (id {image_id!r})" if image else f"id {image_id!r}"
    return f"{where} of image {name}"
