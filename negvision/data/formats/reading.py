"""Collects what a reader finds in a folder, and checks it: the same for all formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from negvision.data.formats.boxes import clip_box, find_box_problem
from negvision.data.formats.contents import (
    SPLITS,
    FolderData,
    ImageRecord,
    Instance,
    MaskValues,
    bounds,
)
from negvision.data.formats.text_files import composed
from negvision.data.formats.tree import FileTree, ImageSize, read_size
from negvision.errors import DatasetError, Problems

Found = TypeVar("Found")


class Reading:
    """The state of reading one folder.

    Args:
        tree: Its files.
        format: Name of the format.

    Attributes:
        problems: What is wrong, by kind.
        notes: What is left out or changed, by kind.
        assumptions: What was concluded from the content.
        task: Set by readers of other tasks than detection.
    """

    def __init__(self, tree: FileTree, format: str) -> None:
        self.tree, self.format, self.task = tree, format, "detection"
        self.problems, self.notes = Problems(), Problems()
        self.assumptions: list[str] = []
        self.classes: list[str] = []
        self.mask_values: MaskValues | None = None
        self._remedies: dict[str, None] = {}
        self._labels: dict[str, int] = {}
        self._images: dict[str, ImageRecord | None] = {}
        self._sizes: dict[str, ImageSize] = {}
        self._stored: set[str] = set()
        self._splits: dict[str, dict[str, None]] = {}

    def where(self, name: str) -> str:
        """The path of a file of the tree, for messages."""
        return str(self.tree.root / name)

    def problem(self, kind: str, where: str, value: object, remedy: str) -> None:
        """Count a problem that has a remedy of its own."""
        self.problems.add(kind, where, value)
        self._remedies[remedy] = None

    def label(self, name: str) -> int:
        """The label of a class, which is new if the name is."""
        name = composed(name)
        if name not in self._labels:
            self._labels[name] = len(self.classes)
            self.classes.append(name)
        return self._labels[name]

    def sort_classes(self) -> None:
        """Number the classes by their names, for formats that do not list them."""
        ranks = {self._labels[name]: rank for rank, name in enumerate(sorted(self.classes))}
        self.classes.sort()
        self._labels = {name: label for label, name in enumerate(self.classes)}
        for image in self._images.values():
            for item in image.instances if image else ():
                item.label = ranks[item.label]

    def find_image(self, written: object, where: str, near: str = "", split: str = "") -> str:
        """The image that an annotation names; "" and a problem if there is not exactly one."""
        if not isinstance(written, str) or not written:
            self.problems.add("annotation without the name of an image", where, written)
            return ""
        found = self.tree.find_images(written, near, split)
        if len(found) == 1:
            return found[0]
        if found:
            remedy = "Rename images so that each name is of one, or give the path in the folder."
            self.problem("name that several images have", where, (written, found[:3]), remedy)
        else:
            remedy = "Put the images into the folder of their annotations."
            self.problem("missing image file", where, written, remedy)
        return ""

    def image(
        self, name: str, where: str, split: str = "", annotated: Sequence[object] | None = None
    ) -> ImageRecord | None:
        """The record of an image; None if it cannot be used, which is counted once.

        Args:
            name: In the tree.
            where: What names the image, for messages.
            split: "train", "val" or "test"; "" for none.
            annotated: Its width and height as the annotations say, if they do.
        """
        if name not in self._images:
            self._images[name] = None
            try:
                size = self._sizes[name] = read_size(self.tree.root / name)
            except DatasetError as error:
                self.problems.add("image that cannot be read", str(error))
                return None
            self._images[name] = ImageRecord(name, size.width, size.height)
            self._compare_sizes(name, where, size, annotated)
        if split and self._images[name] is not None:
            self._splits.setdefault(split, {})[name] = None
        return self._images[name]

    def is_new(self, name: str, where: str) -> bool:
        """Whether nothing annotated an image before; otherwise the first annotation counts."""
        if name in self._images:
            self.notes.add("image that is annotated again, left out", where)
        return name not in self._images

    def _compare_sizes(
        self, name: str, where: str, size: ImageSize, annotated: Sequence[object] | None
    ) -> None:
        if annotated is None:
            return
        sides = tuple(_whole(side) for side in annotated)
        if sides == size[:2] or not all(sides):
            return
        if sides == size.stored:
            self._stored.add(name)
            return
        self._images[name] = None
        self.problems.add(
            "image of another size than annotated",
            f"{where}: {self.where(name)} is {size.width} x {size.height}, annotated "
            f"{sides[0]} x {sides[1]}",
        )

    def add(self, image: ImageRecord, item: Instance, where: str) -> None:
        """Add an object, clipped to its image; one that cannot be used is counted."""
        size = self._sizes[image.name]
        problem = find_box_problem(
            item.box, *(size.stored if image.name in self._stored else size[:2])
        )
        if problem is None and item.polygons:
            item.polygons, problem = _usable_parts(item.polygons, self.notes, where)
        if problem is not None:
            self.problems.add(problem, where, item.box)
            return
        if image.name in self._stored:
            _turn(item, size)
            self.notes.add("box of stored pixels, turned with the EXIF orientation", where)
        item.box, beyond = clip_box(item.box, image.width, image.height)
        if beyond > 1:
            self.notes.add("box clipped that reaches beyond its image", where, item.box)
        if beyond:
            item.polygons = [
                [min(max(p, 0), (image.width, image.height)[i % 2]) for i, p in enumerate(part)]
                for part in item.polygons
            ]
        image.instances.append(item)

    def finish(self, skip_bad: bool) -> FolderData:
        """The content, if it can be used.

        Args:
            skip_bad: Turn problems into notes as long as anything is left.

        Raises:
            DatasetError: There are problems, or no object is left.
        """
        root = self.tree.root
        images = [self._images[name] for name in sorted(self._images)]
        usable = [image for image in images if image is not None]
        if self.problems and not (skip_bad and usable):
            total = self.problems.counts.total()
            raise DatasetError(
                f"{root}: {total:,} problem{'s' * (total != 1)} in {len(images):,} images, read "
                f"as {self.format}:\n{self.problems.report()}\n"
                + "".join(f"{remedy}\n" for remedy in self._remedies)
                + "Correct the files"
                + ", or leave out what is bad with --skip-bad (skip_bad=True)" * bool(usable)
                + "."
            )
        for kind in self.problems.counts:
            left_out = f"left out: {kind}"
            for example in self.problems.examples(kind):
                self.notes.add(left_out, example, count=0)
            self.notes.counts[left_out] += self.problems.counts[kind]
        if self._splits:
            named = {name for part in self._splits.values() for name in part}
            for image in usable:
                if image.name not in named:
                    self.notes.add("image in no split, left out", self.where(image.name))
            usable = [image for image in usable if image.name in named]
        self.notes.merge(self.tree.passed_over.notes())
        shown = Counter(label for image in usable for label in image.shown())
        if not shown:
            found = f", and this was found:\n{self.notes.report()}" if self.notes else "."
            raise DatasetError(
                f"{root}: {len(usable):,} images and no object, read as {self.format}, so there "
                f"is nothing to learn{found}\n"
                "Put the annotations of these images into the folder, or name the folder that "
                "holds both."
            )
        for label, name in enumerate(self.classes):
            if not shown[label]:
                self.notes.add("class without a sample", repr(name))
        index = {image.name: number for number, image in enumerate(usable)}
        return FolderData(
            root=root,
            format=self.format,
            task=self.task,
            classes=tuple(self.classes),
            images=usable,
            splits={
                split: sorted(index[name] for name in self._splits[split])
                for split in SPLITS
                if split in self._splits
            },
            notes=self.notes,
            assumptions=self.assumptions,
            mask_values=self.mask_values,
        )


def number(value: object) -> float:
    """A number written as one or as text; NaN for anything else.

    Example:
        >>> number("1.5"), number(None), number("1_0")
        (1.5, nan, nan)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return float("nan")
    try:
        return float("nan") if isinstance(value, str) and "_" in value else float(value)
    except (ValueError, OverflowError):
        return float("nan")


def attempt(reading: Reading, read: Callable[[], Found], kind: str) -> Found | None:
    """The result of ``read``; a DatasetError is counted as a problem instead."""
    try:
        return read()
    except DatasetError as error:
        reading.problems.add(kind, str(error))
        return None


def unreadable(path: Path, error: OSError) -> DatasetError:
    """The error for a file that the system does not give."""
    return DatasetError(f"{path}: cannot be read: {error.strerror or error}")


def _whole(side: object) -> int:
    value = number(side)
    return int(value) if 0 < value < 1 << 31 else 0


def _usable_parts(
    parts: list[list[float]], notes: Problems, where: str
) -> tuple[list[list[float]], str | None]:
    """The parts of a polygon that enclose something."""
    usable = []
    for part in parts:
        box = bounds(part) if len(part) >= 6 and len(part) % 2 == 0 else (0, 0, 0, 0)
        problem = find_box_problem(box, float("inf"), float("inf"))
        if problem is None:
            usable.append(part)
        elif problem == "box of zero area":
            notes.add("part of an outline that encloses nothing, left out", where)
        elif "outside" not in problem:
            return [], problem.replace("box", "outline")
    return usable, None


# Where a point of the stored pixels (x, y of w x h) is shown.
_TURNS: dict[int, Callable] = {
    5: lambda x, y, w, h: (y, x),
    6: lambda x, y, w, h: (h - y, x),
    7: lambda x, y, w, h: (h - y, w - x),
    8: lambda x, y, w, h: (y, w - x),
}


def _turn(item: Instance, size: ImageSize) -> None:
    turn, sides = _TURNS[size.orientation], size.stored
    x, y, w, h = item.box
    item.box = bounds([*turn(x, y, *sides), *turn(x + w, y + h, *sides)])
    item.polygons = [
        [v for point in zip(part[0::2], part[1::2], strict=True) for v in turn(*point, *sides)]
        for part in item.polygons
    ]
    item.rle = None
