"""What every reader of a folder returns, and every writer takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from negvision.errors import Problems

Box = tuple[float, float, float, float]

SPLITS = ("train", "val", "test")


@dataclass(slots=True)
class Instance:
    """One object.

    Attributes:
        label: Index of its class.
        box: x, y, width and height in pixels; the upper left corner of the image is (0, 0).
        polygons: Its outline in pixels, each part as x1, y1, x2, y2, ...; empty without a mask.
        rle: COCO's run-length encoding of its mask, if it has no polygons.
        ignore: Neither object nor background: a crowd of COCO, a difficult object of VOC.
        area: In pixels, as annotated; None where the file has none.
    """

    label: int
    box: Box
    polygons: list[list[float]] = field(default_factory=list)
    rle: dict | None = None
    ignore: bool = False
    area: float | None = None

    @property
    def has_mask(self) -> bool:
        """Whether there is more than a box."""
        return bool(self.polygons or self.rle)


@dataclass(slots=True)
class ImageRecord:
    """One image and what is annotated in it.

    Attributes:
        name: Path relative to the root, with "/".
        width: In pixels, as the image is loaded: after its EXIF orientation.
        height: Likewise.
        instances: Its objects, for detection.
        labels: Its classes: one for classification and faces; those of its mask for segmentation.
        mask: Path of its label image relative to the root.
    """

    name: str
    width: int = 0
    height: int = 0
    instances: list[Instance] = field(default_factory=list)
    labels: tuple[int, ...] = ()
    mask: str = ""

    def shown(self) -> Counter[int]:
        """The number of objects of each class; 1 for each class of an image without objects."""
        if self.instances:
            return Counter(item.label for item in self.instances if not item.ignore)
        return Counter(self.labels)


class MaskValues(NamedTuple):
    """How the gray values of label images become labels.

    Attributes:
        labels: Value -> label.
        void: Other values, to ignore; so is 255 unless it has a label.
        threshold: Values are first compared with it and become 0 or 255: lossy binary masks.
        plain: Whether all files have one channel.
    """

    labels: dict[int, int]
    void: frozenset[int] = frozenset()
    threshold: int = 0
    plain: bool = True

    def table(self) -> np.ndarray:
        """The label of each gray value, 255 for void; (256,) uint8."""
        values = np.arange(256)
        if self.threshold:
            values = np.where(values >= self.threshold, 255, 0)
        return np.array([self.labels.get(int(value), 255) for value in values], np.uint8)


@dataclass
class FolderData:
    """The content of a folder of annotated images, whatever its format.

    Attributes:
        root: Folder that all names are relative to.
        format: Such as "YOLO".
        task: "detection", "classification", "faces" or "segmentation".
        classes: Names, in the order of the labels.
        images: In the order of their names.
        splits: "train", "val" and "test", as far as they exist -> indices into ``images``. Empty
            if the folder has no splits.
        notes: What was left out or changed, and why, counted by kind.
        assumptions: What was concluded from the content, one sentence each.
        mask_values: For segmentation.
    """

    root: Path
    format: str
    task: str
    classes: tuple[str, ...]
    images: list[ImageRecord]
    splits: dict[str, list[int]]
    notes: Problems
    assumptions: list[str]
    mask_values: MaskValues | None = None

    def split(self, name: str) -> Iterator[ImageRecord]:
        """The images of a split."""
        return (self.images[index] for index in self.splits.get(name, ()))

    def path(self, name: str) -> Path:
        """The file with a name."""
        return self.root / name

    @property
    def has_masks(self) -> bool:
        """Whether every object of a detection set has a mask."""
        items = [item for image in self.images for item in image.instances if not item.ignore]
        return bool(items) and all(item.has_mask for item in items)

    def counts(self) -> list[tuple[str, int, int, int, int]]:
        """(split, images, images without an object, objects, ignored objects) of each split."""
        names = list(self.splits) or [""]
        rows = []
        for name in names:
            images = list(self.split(name)) if name else self.images
            ignored = sum(item.ignore for image in images for item in image.instances)
            objects = sum(len(image.instances) for image in images) - ignored
            empty = sum(not image.shown() for image in images)
            rows.append((name, len(images), empty, objects, ignored))
        return rows


def bounds(points: Sequence[float]) -> Box:
    """The upright box around x1, y1, x2, y2, ...

    Example:
        >>> bounds([10, 5, 30, 5, 20, 25])
        (10, 5, 20, 20)
    """
    xs, ys = points[0::2], points[1::2]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
