"""Read image folders with mask folders: for each image a picture of the same name."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from negvision.data.formats.contents import MaskValues
from negvision.data.formats.label_files import VOID, decode_labels, read_classes_file
from negvision.data.formats.reading import Reading, attempt, unreadable
from negvision.data.formats.text_files import numbered_lines
from negvision.data.formats.tree import FileTree, split_of_path
from negvision.data.images.files import read_bytes
from negvision.errors import DatasetError

NAME = "images and masks"
_WORDS = re.compile(r"mask|label|ann|seg|gt|truth|target", re.IGNORECASE)
_PHOTOS = re.compile(r"(images?|imgs?|jpegimages|photos?|pictures?)$", re.IGNORECASE)
_ENDINGS = re.compile(r"[-_ .]?(mask|masks|label|labels|seg|segmentation|gt|labelids)$", re.I)
_LOOK_AT = 3
_COLORS = "label image of several channels"
# A photograph has nearly all gray values; a label image one for each class.
_MOST_VALUES = 64
_BINARY = {0, VOID}
_VOID_NAMES = ("void", "ignore", "ignored", "unlabeled", "unlabelled", "unknown")


class MaskFacts(NamedTuple):
    """The gray values of a label image, its (H, W), and whether it has one channel."""

    values: np.ndarray
    size: tuple[int, int]
    plain: bool


def claim(tree: FileTree) -> list[str]:
    """The label images, if there are images of the same names."""
    return sorted(_pairs(tree).values())


def read(reading: Reading, files: list[str]) -> None:
    """Read the values of all label images."""
    tree = reading.tree
    reading.task = "segmentation"
    pairs = _pairs(tree)
    masks = set(pairs.values())
    for name in tree.images:
        if name not in pairs and name not in masks:
            reading.notes.add("image without a mask, left out", reading.where(name))

    def look(mask: str) -> MaskFacts | DatasetError:
        try:
            return mask_facts(tree, mask)
        except DatasetError as error:
            return error

    with ThreadPoolExecutor() as pool:  # decoding releases the GIL
        facts = dict(zip(pairs, pool.map(look, pairs.values()), strict=True))
    values: Counter[int] = Counter()
    for found in facts.values():
        if isinstance(found, MaskFacts):
            values.update(found.values.tolist())
    lossy = all(name.lower().endswith((".jpg", ".jpeg")) for name in pairs.values())
    plain = all(f.plain for f in facts.values() if isinstance(f, MaskFacts))
    reading.mask_values = _name_values(reading, set(values), lossy)._replace(plain=plain)
    labels = reading.mask_values.labels
    threshold = reading.mask_values.threshold
    images_of = Counter(pairs.values())
    for name, found in facts.items():
        where = reading.where(pairs[name])
        if images_of[pairs[name]] > 1:
            kind = "image whose mask has another image too"
            remedy = "A mask belongs to the image of its name: rename one of them."
            reading.problem(kind, reading.where(name), pairs[name], remedy)
            continue
        if isinstance(found, DatasetError):
            reading.problems.add(found.kind or "mask that cannot be read", str(found))
            continue
        image = reading.image(name, where, split_of_path(name), found.size[::-1])
        if image is None:
            continue
        shown = {VOID * int(v >= threshold) if threshold else int(v) for v in found.values}
        unknown = sorted(shown - set(labels) - {VOID} - reading.mask_values.void)
        if unknown:
            reading.problems.add("value of a mask that no class has", where, unknown)
        image.mask = pairs[name]
        image.labels = tuple(sorted(labels[value] for value in shown if value in labels))


def mask_facts(tree: FileTree, name: str) -> MaskFacts:
    """Decode a label image.

    Raises:
        DatasetError: It cannot be decoded, or shows colors.
    """
    path = tree.root / name
    try:
        data = read_bytes(path)
    except OSError as error:
        raise unreadable(path, error) from None
    try:
        ids, plain = decode_labels(data, str(path)), True
    except DatasetError:  # tools that know only color images write gray in three channels
        ids, plain = decode_labels(data, str(path), equal_channels=True), False
    values = np.flatnonzero(np.bincount(ids.ravel(), minlength=256))
    return MaskFacts(values, (ids.shape[0], ids.shape[1]), plain)


def _name_values(reading: Reading, values: set[int], lossy: bool) -> MaskValues:
    """The classes: from a file of names, or else from the values themselves."""
    named = _read_names(reading)
    if lossy and values - _BINARY and named is None:
        reading.assumptions.append("the masks are JPEGs: values from 128 are the foreground")
        background, foreground = reading.label("background"), reading.label("foreground")
        return MaskValues({0: background, VOID: foreground}, threshold=128)
    if values <= _BINARY and VOID in values and 0 in values:
        names = list(named) if named is not None else ["background", "foreground"]
        if len(names) == 1:
            names = ["background", *names]
        if len(names) == 2:
            reading.assumptions.append(
                f"the masks hold 0 and 255 alone: 0 is {names[0]!r}, 255 is {names[1]!r}"
            )
            return MaskValues({0: reading.label(names[0]), VOID: reading.label(names[1])})
    if named is not None:
        void = [name for name in named if name.lower() in _VOID_NAMES]
        if void:
            reading.assumptions.append(f"pixels of {', '.join(map(repr, void))} are void")
        known = {value: name for name, value in named.items() if name not in void}
        labels = {value: reading.label(name) for value, name in known.items()}
        return MaskValues(labels, void=frozenset(named[name] for name in void))
    if values - {VOID} == {0, 1}:
        reading.assumptions.append("the masks hold 0 and 1: background and foreground")
        return MaskValues({0: reading.label("background"), 1: reading.label("foreground")})
    found = sorted(values - {VOID})
    if VOID in values:
        reading.assumptions.append("pixels of value 255 are void")
    reading.assumptions.append(
        f"no classes.txt names the {len(found)} values of the masks: values are names"
    )
    return MaskValues({value: reading.label(str(value)) for value in found})


def _read_names(reading: Reading) -> dict[str, int] | None:
    """Class -> value, from ``classes.txt`` (``id name`` or ``name`` lines) or ``_classes.csv``."""
    tree = reading.tree
    for file in sorted(tree.files(".txt", ".csv"), key=lambda name: name.count("/")):
        path = str(tree.root / file)
        base = posixpath.basename(file)
        if base not in ("classes.txt", "labels.txt", "class_names.txt", "_classes.csv"):
            continue
        lines = attempt(
            reading, lambda path=path: list(numbered_lines(path)), "bad list of classes"
        )
        texts = [line for _, line in lines or ()]
        if base == "_classes.csv":  # Roboflow: "Pixel Value, Class"
            cells = [text.split(",", 1) for text in texts[1:] if "," in text]
            return {name.strip(): int(v) for v, name in cells if v.strip().isdigit()}
        if texts and all(text.split()[0].isdigit() and " " in text for text in texts):
            return attempt(
                reading, lambda path=path: read_classes_file(path), "bad list of classes"
            )
        return {name: value for value, name in enumerate(texts)} or None
    return None


def _pairs(tree: FileTree) -> dict[str, str]:
    """Image -> label image."""
    if NAME not in tree.found:
        tree.found[NAME] = _find_pairs(tree)
    return tree.found[NAME]


def _find_pairs(tree: FileTree) -> dict[str, str]:
    groups: dict[str, list[str]] = {}
    for name in tree.images:
        stem = posixpath.splitext(posixpath.basename(name))[0]
        groups.setdefault(_ENDINGS.sub("", stem) or stem, []).append(name)
    by_roles: dict[tuple[str, str], dict[str, str]] = {}
    for members in groups.values():
        for image in members:
            for mask in members:
                if image != mask and (roles := _roles(image, mask)):
                    by_roles.setdefault(roles, {}).setdefault(image, mask)
    pairs: dict[str, str] = {}
    # A pair of folders that many share is more than an accident.
    for roles in sorted(by_roles, key=lambda roles: (-len(by_roles[roles]), roles)):
        found = by_roles[roles]
        masks = _look_like_labels(tree, list(found.values()))
        images = _look_like_labels(tree, list(found))
        named = bool(_WORDS.search(roles[1])) and not _WORDS.search(roles[0])
        # Masks in color are read as masks too, and then reported.
        if (masks and (not images or named)) or (named and _PHOTOS.match(roles[0])):
            taken = set(pairs) | set(pairs.values())
            pairs.update({i: m for i, m in found.items() if i not in taken and m not in taken})
    return pairs


def _roles(image: str, mask: str) -> tuple[str, str] | None:
    """What differs between the paths of an image and its mask: a folder, or the end of the name."""
    one, other = image.split("/"), mask.split("/")
    if one[:-1] == other[:-1]:
        stems = [posixpath.splitext(parts[-1])[0] for parts in (one, other)]
        if stems[0] == stems[1]:
            return ".", posixpath.splitext(mask)[1]
        if _ENDINGS.sub("", stems[1]) == stems[0]:
            return ".", stems[1][len(stems[0]) :]
        return None
    if len(one) != len(other):
        return None
    differing = [(a, b) for a, b in zip(one[:-1], other[:-1], strict=True) if a != b]
    return differing[0] if len(differing) == 1 else None


def _look_like_labels(tree: FileTree, names: list[str]) -> bool:
    """Whether pictures have few gray values, by some of those that can be decoded."""
    looks = []
    for name in names:
        try:
            facts = mask_facts(tree, name)
        except DatasetError as error:
            if error.kind == _COLORS:
                return False
            continue
        lossy = name.lower().endswith((".jpg", ".jpeg")) and bool(_WORDS.search(name))
        looks.append(lossy or len(facts.values) <= _MOST_VALUES)
        if len(looks) == _LOOK_AT:
            break
    return bool(looks) and all(looks)
