"""Turn the content of a folder into configs of data sets, without copying an image."""

from __future__ import annotations

import json
import os
import posixpath
from collections import defaultdict
from itertools import combinations, islice
from pathlib import Path

import numpy as np
from PIL import Image

from negvision.data.formats.coco import coco_content
from negvision.data.formats.contents import FolderData, ImageRecord
from negvision.data.formats.label_files import decode_labels
from negvision.data.images.files import read_bytes
from negvision.errors import DatasetError

_MOST_PAIRS = 3000


def dataset_configs(data: FolderData, folder: Path) -> dict[str, dict]:
    """The config of each split's data set, without a pipeline. Its lists are written to ``folder``.

    Args:
        data: With splits, from :func:`negvision.data.splits.content.complete_splits`.
        folder: Such as the work dir; is created where it is missing.

    Returns:
        Split -> config of ``negvision.CocoDataset``, ``ImageListDataset``, ``FaceListDataset`` (for
        train; ``FacePairDataset`` for the others) or ``SegDataset``.

    Raises:
        DatasetError: Faces for an evaluation have no two images of one person, or of two people.
    """
    folder.mkdir(parents=True, exist_ok=True)
    make = {
        "detection": _detection,
        "classification": _classification,
        "faces": _faces,
        "segmentation": _segmentation,
    }[data.task]
    root = str(data.root)
    found = {split: make(data, split, folder) for split in data.splits}
    return {
        split: {"data_root": "", "data_prefix": {"img": root}, **config}
        for split, config in found.items()
    }


def _detection(data: FolderData, split: str, folder: Path) -> dict:
    path = folder / f"{split}.json"
    path.write_text(json.dumps(coco_content(data.split(split), data.classes)))
    metainfo = {"classes": data.classes}
    return {"type": "negvision.CocoDataset", "ann_file": str(path), "metainfo": metainfo}


def _classification(data: FolderData, split: str, folder: Path) -> dict:
    path = folder / f"{split}.txt"
    _write_lines(path, [f"{image.name} {image.labels[0]}" for image in data.split(split)])
    metainfo = {"classes": data.classes}
    return {"type": "negvision.ImageListDataset", "ann_file": str(path), "metainfo": metainfo}


def _faces(data: FolderData, split: str, folder: Path) -> dict:
    if split != "train":
        path = folder / f"{split}_pairs.txt"
        _write_lines(path, _pairs(data, split))
        return {"type": "negvision.FacePairDataset", "ann_file": str(path)}
    # People of other splits are nobody's class.
    people = sorted({image.labels[0] for image in data.split(split)})
    lines = [f"{i.name} {people.index(i.labels[0])}" for i in data.split(split)]
    path = folder / "train.txt"
    _write_lines(path, lines)
    return {
        "type": "negvision.FaceListDataset",
        "ann_file": str(path),
        "num_classes": len(people),
    }


def _pairs(data: FolderData, split: str) -> list[str]:
    """As many pairs of one person as of two, ``path path same``."""
    people: dict[int, list[ImageRecord]] = defaultdict(list)
    for image in data.split(split):
        people[image.labels[0]].append(image)
    own = [iter(combinations(images, 2)) for images in people.values()]
    same: list[tuple[ImageRecord, ImageRecord]] = []
    # In turns, so that people with many images do not outnumber the others.
    while own and len(same) < _MOST_PAIRS:
        taken = [next(pairs, None) for pairs in own]
        own = [pairs for pairs, pair in zip(own, taken, strict=True) if pair is not None]
        same += [pair for pair in taken if pair is not None]
    images = [image for group in people.values() for image in group]
    random = np.random.default_rng(0)
    other = set()
    most = sum(1 for _ in islice(combinations(people, 2), _MOST_PAIRS))
    for _ in range(20 * len(same) if most else 0):
        one, two = sorted(random.integers(0, len(images), 2).tolist())
        if images[one].labels != images[two].labels:
            other.add((one, two))
        if len(other) == len(same):
            break
    if not same or not other:
        raise DatasetError(
            f"{data.root}: {split} has {len(people):,} people and {len(images):,} images; its "
            "pairs need two people, and two images of one of them"
        )
    lines = [f"{a.name} {b.name} 1" for a, b in same[:_MOST_PAIRS]]
    return lines + [f"{images[a].name} {images[b].name} 0" for a, b in sorted(other)]


def _segmentation(data: FolderData, split: str, folder: Path) -> dict:
    values = data.mask_values
    assert values is not None
    names = [image.name for image in data.split(split)]
    as_they_are = values.plain and 255 not in values.labels and not values.threshold
    shape = _common_shape(list(data.split(split))) if as_they_are else None
    if shape is None:
        _write_masks(data, split, folder)
        ids = dict(enumerate(data.classes))
        images, masks, suffixes = str(data.root), str(folder / "masks"), ("", ".png")
    else:
        ids = {value: data.classes[label] for value, label in values.labels.items()}
        ids |= {value: f"void {value}" for value in values.void}
        image_folder, mask_folder, *suffixes = shape
        images, masks = (os.path.join(data.root, part) for part in (image_folder, mask_folder))
        inside = f"{image_folder}/" if image_folder else ""
        names = [name.removeprefix(inside).removesuffix(suffixes[0]) for name in names]
    _write_lines(
        folder / f"{split}_classes.txt", [f"{value} {name}" for value, name in ids.items()]
    )
    _write_lines(folder / f"{split}.txt", names)
    return {
        "type": "negvision.SegDataset",
        "ann_file": str(folder / f"{split}.txt"),
        "data_prefix": {"img_path": images, "seg_map_path": masks},
        "img_suffix": suffixes[0],
        "seg_map_suffix": suffixes[1],
        "classes_file": str(folder / f"{split}_classes.txt"),
        "metainfo": {"classes": data.classes},
    }


def _common_shape(images: list[ImageRecord]) -> tuple[str, str, str, str] | None:
    """Folders and endings that lead from all names to images and masks; None if they differ."""
    shapes = set()
    for image in images:
        stem, suffix = posixpath.splitext(image.name)
        first, second = stem.split("/"), image.mask.split("/")
        if not second[-1].startswith(first[-1]) or len(first) != len(second):
            return None
        ending = second[-1][len(first[-1]) :]
        place = len(first) - 1
        while place and first[place - 1] == second[place - 1]:
            place -= 1
        shapes.add(("/".join(first[:place]), "/".join(second[:place]), suffix, ending))
    return shapes.pop() if len(shapes) == 1 else None


def _write_masks(data: FolderData, split: str, folder: Path) -> None:
    assert data.mask_values is not None
    table = data.mask_values.table()
    for image in data.split(split):
        path = data.path(image.mask)
        ids = decode_labels(read_bytes(path), str(path), equal_channels=True)
        target = folder / "masks" / f"{image.name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(table[ids]).save(target)


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
