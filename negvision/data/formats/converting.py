"""Write the content of a folder in another format."""

from __future__ import annotations

import posixpath
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from negvision.data.formats import coco, voc, yolo
from negvision.data.formats.coco_masks import to_run_lengths
from negvision.data.formats.contents import FolderData, Instance
from negvision.data.formats.label_files import decode_labels
from negvision.data.images.files import read_bytes
from negvision.errors import DatasetError, Problems

# Format -> writer, what is written, the folder of the images.
WRITERS = {
    "coco": (coco.write, ("annotations", "images"), "images"),
    "yolo": (yolo.write, ("data.yaml", "images", "labels"), "images"),
    "voc": (voc.write, ("Annotations", "ImageSets", "JPEGImages"), "JPEGImages"),
}


def convert(data: FolderData, to: str, folder: Path, link: bool = False) -> Problems:
    """Write annotations and images.

    Args:
        data: Of detection.
        to: "coco", "yolo" or "voc".
        folder: Empty, to write to.
        link: Link to the images instead of copying them.

    Returns:
        What the format does not hold, by kind.
    """
    notes = Problems()
    write, _, place = WRITERS[to]
    names = _new_names(data, by_split=to == "yolo")
    for image in data.images:
        source = data.path(image.name)
        for name in names[image.name]:
            target = folder / place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if link:
                target.symlink_to(source.resolve())
            else:
                shutil.copyfile(source, target)
    write(data, folder, names, notes)
    return notes


def _new_names(data: FolderData, by_split: bool) -> dict[str, list[str]]:
    """Image -> new names, whose stems differ: labels have the names of their images."""
    splits = {split: set(part) for split, part in data.splits.items()} if by_split else {}
    names: dict[str, list[str]] = {}
    taken = set()
    for index, image in enumerate(data.images):
        stem, suffix = posixpath.splitext(image.name)
        joined = stem.replace("/", "_")
        words = posixpath.basename(stem), joined, f"{joined}_{suffix[1:]}"
        folders = [split for split, members in splits.items() if index in members]
        names[image.name] = []
        for folder in folders or ["train" if by_split else ""]:
            # Some file systems do not tell A.jpg from a.jpg.
            free = [w for w in words if posixpath.join(folder, w).lower() not in taken]
            name = posixpath.join(folder, free[0] if free else f"{joined}_{index}")
            taken.add(name.lower())
            names[image.name].append(name + suffix)
    return names


def with_objects(data: FolderData) -> FolderData:
    """A detection set; of a segmentation set each connected region of a class is an object.

    Raises:
        DatasetError: The images have neither boxes nor masks.
    """
    if data.task == "detection":
        return data
    if data.mask_values is None:
        raise DatasetError(
            f"{data.root}: its images have a class each ({data.task}) and no boxes, which is what "
            "COCO, YOLO and VOC hold; data sets of negvision take such folders as they are"
        )
    notes = Problems()
    notes.merge(data.notes)
    table = data.mask_values.table()
    ground = 0 if data.classes[0].lower() == "background" else None
    kept = [label for label in range(len(data.classes)) if label != ground]
    images = []
    for image in data.images:
        path = data.path(image.mask)
        labels = table[decode_labels(read_bytes(path), str(path), equal_channels=True)]
        items = []
        for label in kept:
            count, regions, stats, _ = cv2.connectedComponentsWithStats(
                (labels == label).astype(np.uint8)
            )
            for region in range(1, count):
                x, y, w, h, area = (float(value) for value in stats[region])
                (rle,) = to_run_lengths((regions == region)[None])
                items.append(Instance(kept.index(label), (x, y, w, h), rle=rle, area=area))
        if items:
            kind = "connected region of a class, taken as one object"
            notes.add(kind, image.name, count=len(items))
        images.append(replace(image, instances=items, labels=(), mask=""))
    classes = tuple(data.classes[label] for label in kept)
    return replace(data, task="detection", classes=classes, images=images, notes=notes)
