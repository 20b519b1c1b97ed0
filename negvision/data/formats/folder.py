"""Read a folder of annotated images in any format."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from negvision.data.formats import (
    box_table,
    class_folders,
    coco,
    cvat,
    label_studio,
    labelme,
    mask_folders,
    voc,
    yolo,
)
from negvision.data.formats.contents import FolderData, ImageRecord
from negvision.data.formats.reading import Reading
from negvision.data.formats.tree import FileTree, read_size
from negvision.data.images import IMAGE_SUFFIXES
from negvision.errors import DatasetError, MissingDataError, Problems, listed

FORMATS: dict[str, ModuleType] = {
    "yolo": yolo,
    "coco": coco,
    "voc": voc,
    "cvat": cvat,
    "label-studio": label_studio,
    "labelme": labelme,
    "csv": box_table,
    "masks": mask_folders,
    "classes": class_folders,
}
TASKS = ("detection", "classification", "faces", "segmentation")
# These have no annotation file: they are looked for last, in this order.
_BARE = ("masks", "classes")
# Of the files that show a format by their content, those that are damaged show none.
_JSON = (".json",)
_ENDINGS = {
    "yolo": (".yaml", ".yml"),
    "coco": _JSON,
    "label-studio": _JSON,
    "labelme": _JSON,
}


def read_folder(
    path: str | os.PathLike,
    format: str | None = None,
    task: str | None = None,
    zero_based: bool = False,
    skip_bad: bool = False,
) -> FolderData:
    """Read annotated images, whatever their format, which is recognized by its content.

    Args:
        path: A folder, or the one annotation file of it that counts: a ``data.yaml``, JSON, XML or
            CSV file.
        format: One of :data:`FORMATS`, for a folder with several.
        task: "faces" or "classification", where a folder for each class could be either.
        zero_based: Coordinates of VOC count from 0.
        skip_bad: Leave out what cannot be used, and count it, instead of raising.

    Returns:
        Images, objects, classes and splits, and counts of what was left out or changed.

    Raises:
        MissingDataError: There is no such path.
        DatasetError: The format is unknown, there are several, or something in the folder cannot be
            used. All problems are listed at once.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("cat", "dog"):
        ...     (root / name).mkdir()
        ...     Image.new("RGB", (40, 30), "red").save(root / name / "1.png")
        >>> data = read_folder(root)
        >>> data.task, data.classes
        ('classification', ('cat', 'dog'))
    """
    tree = _open(Path(path))
    name, files = _recognize(tree, path, format)
    module = FORMATS[name]
    reading = Reading(tree, module.NAME)
    if format is None and name not in _BARE and (masks := mask_folders.claim(tree)):
        also = f"{len(masks):,} masks, such as {masks[0]}, are left out: --format masks reads them"
        reading.assumptions.append(also)
    read: Callable[[Reading, list[str]], None] = module.read
    if module is voc:
        read = functools.partial(voc.read, zero_based=zero_based)
    read(reading, files)
    for file, error in tree.unreadable.items():
        if file.endswith(_ENDINGS.get(name, ())):
            reading.problems.add("annotation file that cannot be read", str(error))
    _settle_task(reading, task, path)
    return reading.finish(skip_bad)


def _open(path: Path) -> FileTree:
    if path.is_dir():
        return FileTree(path)
    if not path.exists():
        raise MissingDataError(f"{path} does not exist; name a folder of images, or its data.yaml")
    if path.suffix.lower() not in (".yaml", ".yml", ".json", ".xml", ".csv"):
        raise DatasetError(
            f"{path}: not a file that describes a data set; name its folder, or a data.yaml, JSON, "
            "XML or CSV file"
        )
    return FileTree(_root_of(path), only=path)


def _root_of(path: Path) -> Path:
    """The folder of the images that a file describes: its own, or the one above.

    A ``data.yaml`` may name another, which is followed since the user named the file.
    """
    if path.suffix.lower() in (".yaml", ".yml") and (named := yolo.root_of(path)):
        return named
    return path.parent if FileTree(path.parent).images else path.parent.parent


def _recognize(
    tree: FileTree, path: str | os.PathLike, format: str | None
) -> tuple[str, list[str]]:
    if format is not None:
        files = FORMATS[format].claim(tree)
        if not files:
            _raise_unknown(tree, path, f"nothing of the format {FORMATS[format].NAME}")
        return format, files
    claims = {n: files for n, m in FORMATS.items() if n not in _BARE and (files := m.claim(tree))}
    if len(claims) > 1:
        found = "\n".join(
            f"  {FORMATS[name].NAME}: {len(files):,} files, such as {tree.root / files[0]} "
            f"(--format {name})"
            for name, files in claims.items()
        )
        raise DatasetError(
            f"{path}: annotations in {len(claims)} formats, and it is unclear which count:"
            f"\n{found}\n"
            "Name one with --format, or move the others out of the folder."
        )
    if claims:
        return next(iter(claims.items()))
    if tree.unreadable:
        raise next(iter(tree.unreadable.values()))
    for name in _BARE:
        if files := FORMATS[name].claim(tree):
            return name, files
    _raise_unknown(tree, path, "no annotations of a known format")


def _raise_unknown(tree: FileTree, path: str | os.PathLike, found: str) -> NoReturn:
    images = len(tree.images)
    if not images:
        raise DatasetError(
            f"{path}: no image is in it ({', '.join(IMAGE_SUFFIXES)}){tree.passed_over.but()}. "
            "Name the folder that holds the images and their annotations"
        )
    known = ", ".join(f"{module.NAME} ({name})" for name, module in FORMATS.items())
    others = tree.annotations
    shown = f" in {listed(others, 3)}" if others else ""
    raise DatasetError(
        f"{path}: {images:,} images, but {found}{shown}. Known are {known}. Put the annotations "
        "into this folder, such as labels/1.txt for images/1.jpg, or the images of each class into "
        "a folder of its name."
    )


def _settle_task(reading: Reading, task: str | None, path: str | os.PathLike) -> None:
    if task is None or task == reading.task:
        return
    if {task, reading.task} <= {"classification", "faces"}:
        reading.task = task
        reading.assumptions.pop(0)
        return
    raise DatasetError(
        f"{path}: read as {reading.format}, it holds data for {reading.task}, not for {task}"
    )


def with_negatives(data: FolderData, folder: str | os.PathLike) -> FolderData:
    """The data set, with all images of a folder in its training split, none with an object.

    Names become relative to the folder that holds both.

    Args:
        data: Of detection, with a training split.
        folder: Its subfolders count too; annotations in it do not.

    Raises:
        MissingDataError: There is no such folder.
        DatasetError: The data set is of another task, the folder has no image or one that cannot be
            read, or an image is in both.
    """
    folder = Path(folder).resolve()
    if data.task != "detection":
        raise DatasetError(
            f"--negatives {folder}: each image of {data.root} has a class ({data.task}), and none "
            "would fit these; images without an object are for detection"
        )
    if not folder.is_dir():
        raise MissingDataError(f"--negatives {folder}: there is no such folder of images")
    names = sorted(FileTree(folder).images)
    problems = Problems()
    own = {os.path.realpath(data.path(image.name)) for image in data.images}
    root = Path(os.path.commonpath([data.root.resolve(), folder]))
    records = []
    for name in names:
        path = folder / name
        if os.path.realpath(path) in own:
            problems.add("image of the data set itself", str(path))
            continue
        try:
            size = read_size(path)
        except DatasetError as error:
            problems.add("image that cannot be read", str(error))
            continue
        place = os.path.relpath(path, root).replace(os.sep, "/")
        records.append(ImageRecord(place, size.width, size.height))
    if problems or not records:
        raise DatasetError(
            f"--negatives {folder}: {len(records):,} images without an object can be used"
            + (f":\n{problems.report()}\nTake them out of the folder" if problems else "")
        )
    before = os.path.relpath(data.root.resolve(), root).replace(os.sep, "/")
    prefix = "" if before == "." else f"{before}/"
    images = [replace(image, name=prefix + image.name) for image in data.images]
    added = range(len(images), len(images) + len(records))
    splits = {**data.splits, "train": [*data.splits["train"], *added]}
    notes = Problems()
    notes.merge(data.notes)
    notes.add("image without an object, added to train", str(folder), count=len(records))
    return replace(data, root=root, images=images + records, splits=splits, notes=notes)
