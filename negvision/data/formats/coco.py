"""Read folders with COCO annotation files, and write such files."""

from __future__ import annotations

import functools
import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from negvision.data.formats.coco_file import (
    find_classes,
    find_mask_problem,
    find_reference_problem,
    index_images,
    is_ignored,
    usable_polygons,
    without_parents,
)
from negvision.data.formats.contents import FolderData, ImageRecord, Instance, bounds
from negvision.data.formats.masks import polygon_area
from negvision.data.formats.reading import Reading, attempt, number
from negvision.data.formats.tree import FileTree, split_name, split_of_path
from negvision.errors import DatasetError, Problems

NAME = "COCO"
_ENTRIES = ("images", "annotations", "categories")


def claim(tree: FileTree) -> list[str]:
    """The JSON files with images, annotations and categories."""
    return [name for name in tree.files(".json") if _is_coco(tree.json(name))]


def read(reading: Reading, files: list[str]) -> None:
    """Read the annotation files: one for each split, or one for all."""
    tree = reading.tree
    for name, split in _choose(reading, files):
        content = tree.json(name)
        categories = without_parents(content["categories"], content["annotations"])
        if len(categories) < len(content["categories"]):
            reading.notes.add("parent category that no box uses, left out", reading.where(name))
        look = functools.partial(
            find_classes, reading.where(name), content | {"categories": categories}, None
        )
        classes = attempt(reading, look, "categories that cannot be used")
        if classes is not None:
            for label in classes[0]:
                reading.label(label)
            _read_file(reading, name, split, dict(zip(classes[1], classes[0], strict=True)))


def _is_coco(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(content.get(e), list) for e in _ENTRIES)


def _choose(reading: Reading, files: list[str]) -> list[tuple[str, str]]:
    """(file, split) of the files to read.

    Other files of a split describe the same images anew (captions, keypoints, a second opinion) or
    other classes (unknowns of an evaluation); they are left out.
    """
    tree = reading.tree
    by_split: dict[str, list[str]] = {}
    for name in files:
        by_split.setdefault(_split_of_file(name), []).append(name)
    if len(by_split) > 1:
        by_split.pop("", None)
    order = sorted(by_split, key=("train", "", "val", "test").index)
    chosen: list[tuple[str, str]] = []
    classes: set[str] = set()
    for split in order:
        images: set[str] = set()
        for name in sorted(by_split[split], key=lambda name: _rank(name, split)):
            content = tree.json(name)
            own = {str(c.get("name")) for c in content["categories"] if isinstance(c, dict)}
            shown = {str(i.get("file_name")) for i in content["images"] if isinstance(i, dict)}
            place = {f"{posixpath.dirname(name)}/{s}" for s in shown}
            same_place = place & images
            others = any(s == split for _, s in chosen)
            if own - classes and others and split in ("val", "test"):
                reading.notes.add(
                    "annotation file with other classes, left out",
                    f"{reading.where(name)}: {', '.join(sorted(own - classes))}",
                )
            elif same_place:
                reading.notes.add(
                    "annotation file of images that another has, left out", reading.where(name)
                )
            elif not content["annotations"] and chosen:
                reading.notes.add("annotation file without objects, left out", reading.where(name))
            else:
                chosen.append((name, split))
                images |= place
                classes |= own
    return chosen


def _rank(name: str, split: str) -> tuple:
    """Plain names first: ``train.json``, ``instances_train2017.json``."""
    stem = posixpath.splitext(posixpath.basename(name))[0].lower()
    usual = stem.startswith(("instances", "_annotations"))
    return split_name(stem) != split, not usual, len(stem), name


def _split_of_file(name: str) -> str:
    """The split in the name of a file, or else in those of its folders.

    Example:
        >>> _split_of_file("annotations/instances_val2017.json"), _split_of_file("train_id.json")
        ('val', 'train')
        >>> _split_of_file("valid/_annotations.coco.json")
        'val'
    """
    stem = posixpath.splitext(posixpath.basename(name))[0]
    words = filter(None, re.split(r"[-_. ]", stem))
    return next(filter(None, map(split_name, words)), "") or split_of_path(name)


def _read_file(reading: Reading, file: str, split: str, names: Mapping[int, str]) -> None:
    content = reading.tree.json(file)
    path = reading.where(file)
    problems = Problems()
    images: dict[Any, ImageRecord | None] = {}
    used: dict[str, object] = {}
    for image_id, record in index_images(content["images"], problems).items():
        where = f"{path}: image id {image_id!r}"
        name = reading.find_image(record.get("file_name"), where, posixpath.dirname(file), split)
        images[image_id] = None
        if name in used and name:
            reading.problems.add("image that the file lists twice", where, name)
        elif name:
            used[name] = image_id
            sides = record.get("width"), record.get("height")
            own = split or split_of_path(name)
            is_new = reading.is_new(name, where)
            image = reading.image(name, where, own, sides)
            images[image_id] = image if is_new else None
    reading.problems.merge(problems, path)
    seen = set()
    for index, annotation in enumerate(content["annotations"]):
        where = f"{path}: annotations[{index}]"
        if isinstance(annotation, dict) and "id" in annotation:
            where = f"{path}: annotation id {annotation['id']!r}"
        problem = find_reference_problem(annotation, images, names)
        if problem is not None:
            reading.problems.add(problem[0], where, problem[1])
            continue
        annotation_id = annotation.get("id")
        if isinstance(annotation_id, int | str):
            if annotation_id in seen:
                reading.notes.add("annotation id that was used before, kept all the same", where)
            seen.add(annotation_id)
        image = images[annotation["image_id"]]
        if image is not None:
            _read_annotation(reading, image, annotation, names, where)


def _read_annotation(
    reading: Reading,
    image: ImageRecord,
    annotation: dict,
    names: Mapping[int, str],
    where: str,
) -> None:
    try:
        ignore = is_ignored(annotation)
    except DatasetError as error:
        reading.problems.add(error.kind, where, str(error))
        return
    mask, polygons, rle = annotation.get("segmentation"), [], None
    sides = {"height": image.height, "width": image.width}
    problem = find_mask_problem(annotation, sides) if mask else None
    if problem is not None:
        reading.problems.add(problem[0], where, problem[1])
        return
    if isinstance(mask, list):
        polygons = [list(map(float, part)) for part in usable_polygons(mask)]
        if len(polygons) < len(mask):
            reading.notes.add("part of an outline with too few points, left out", where)
    elif mask:
        rle = mask
    if annotation.get("keypoints"):
        reading.notes.add("keypoints of an object, left out: its box is kept", where)
    box = annotation.get("bbox")
    if box is None and polygons:
        box = bounds([value for part in polygons for value in part])
    area = number(annotation.get("area"))
    corners = _numbers(box)
    if len(corners) != 4:
        reading.problems.add("box that is not four numbers", where, box)
        return
    x, y, w, h = corners
    label = reading.label(names[annotation["category_id"]])
    item = Instance(label, (x, y, w, h), polygons, rle, ignore)
    item.area = area if 0 < area < float("inf") and item.has_mask else None
    reading.add(image, item, where)


def _numbers(values: Any) -> list[float]:
    return [number(value) for value in values] if isinstance(values, Sequence) else []


def coco_content(
    images: Iterable[ImageRecord],
    classes: Sequence[str],
    names: Mapping[str, Sequence[str]] | None = None,
) -> dict:
    """The COCO content of images. Category ids are the labels plus 1.

    Args:
        images: Of a detection set.
        classes: All classes.
        names: Image -> one ``file_name``; by default its own.
    """
    records, annotations = [], []
    for image_id, image in enumerate(images, 1):
        name = names[image.name][0] if names else image.name
        size = {"width": image.width, "height": image.height}
        records.append({"id": image_id, "file_name": name, **size})
        for item in image.instances:
            annotations.append(_annotation(item, len(annotations) + 1, image_id))
    categories = [{"id": label, "name": name} for label, name in enumerate(classes, 1)]
    return {"images": records, "annotations": annotations, "categories": categories}


def _annotation(item: Instance, number: int, image_id: int) -> dict:
    x, y, width, height = item.box
    area = item.area
    if area is None:
        area = polygon_area(item.polygons) if item.polygons else width * height
    return {
        "id": number,
        "image_id": image_id,
        "category_id": item.label + 1,
        "bbox": [x, y, width, height],
        "area": area,
        "iscrowd": int(item.ignore),  # COCO's only way to ignore an object
        **({"segmentation": item.rle or item.polygons} if item.has_mask else {}),
        **({"ignore": 1} if item.ignore else {}),
    }


def write(
    data: FolderData, folder: Path, names: Mapping[str, Sequence[str]], notes: Problems
) -> None:
    """Write ``annotations/SPLIT.json``, or ``annotations/all.json`` without splits.

    Args:
        data: Of detection.
        folder: To write to.
        names: Image -> one name in ``images``.
        notes: Nothing is lost, so it stays as it is.
    """
    (folder / "annotations").mkdir()
    for split in data.splits or ("all",):
        images = data.split(split) if data.splits else data.images
        content = coco_content(images, data.classes, names)
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(content))
