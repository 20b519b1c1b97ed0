"""The files of a data folder, listed once, and the images that annotations name in it."""

from __future__ import annotations

import itertools
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from negvision.data.formats.text_files import read_json_file
from negvision.data.images import IMAGE_SUFFIXES
from negvision.data.images.files import spellings
from negvision.data.images.header import MAX_PIXELS, read_header
from negvision.data.images.listing import PassedOver, is_stray
from negvision.errors import DatasetError, MissingDataError

_SPLIT_NAMES = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_YEAR = re.compile(r"[-_.]?(19|20)\d\d$")
_PREFIX_OF_UPLOADS = re.compile(r"^[0-9a-f]{8}-")
_ANNOTATIONS = (".txt", ".names", ".yaml", ".yml", ".json", ".xml", ".csv")
# Enough for the header of nearly any image; of a TIFF it may lie at the end.
_HEAD = 1 << 16
# EXIF orientations that swap the sides.
_LYING = (5, 6, 7, 8)


def split_name(word: str) -> str:
    """The split that a word stands for, or "".

    Example:
        >>> split_name("valid"), split_name("train2017"), split_name("trains")
        ('val', 'train', '')
    """
    return _SPLIT_NAMES.get(_YEAR.sub("", word.lower()), "")


def split_of_path(name: str) -> str:
    """The split that a folder of a relative path names, or "".

    Example:
        >>> split_of_path("images/val/a.jpg"), split_of_path("images/test.jpg")
        ('val', '')
    """
    return next(filter(None, map(split_name, name.split("/")[:-1])), "")


class ImageSize(NamedTuple):
    """The size of an image file.

    Attributes:
        width: In pixels, after the EXIF orientation.
        height: Likewise.
        orientation: Of EXIF, 1 ... 8.
    """

    width: int
    height: int
    orientation: int = 1

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height of the pixels in the file."""
        swapped = self.orientation in _LYING
        return (self.height, self.width) if swapped else (self.width, self.height)


def read_size(path: Path) -> ImageSize:
    """The size of an image, from the first bytes of its file.

    Raises:
        DatasetError: It cannot be read, is no image, or is too large to be decoded.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_HEAD)
            header = read_header(data)
            # WebP has its orientation at the end.
            if header is None or not header.pixels or header.kind not in ("JPEG", "PNG"):
                data += file.read()
                header = read_header(data)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from None
    if header is None or not header.pixels:
        raise DatasetError(f"{path}: not an image; it begins with {data[:16]!r}")
    if header.pixels > MAX_PIXELS:
        raise DatasetError(f"{path}: announces {header.width:,} x {header.height:,} pixels")
    sides = header.width, header.height
    return ImageSize(*(sides[::-1] if header.orientation in _LYING else sides), header.orientation)


class FileTree:
    """The images and annotation files below a folder. Hidden ones are left out; links are followed.

    Args:
        root: The folder.
        only: The one annotation file to use; all others are ignored.

    Attributes:
        images: Names of all images, relative to the root.
        passed_over: What is neither an image nor an annotation file.
        found: What formats found, so that nothing is looked for twice.
        unreadable: File that is damaged -> error.

    Raises:
        MissingDataError: There is no such folder.
    """

    def __init__(self, root: Path, only: Path | None = None) -> None:
        if not root.is_dir():
            raise MissingDataError(f"{root} is not a folder")
        self.root = root
        self.passed_over = PassedOver()
        known = (*IMAGE_SUFFIXES, *_ANNOTATIONS)
        self._by_suffix: dict[str, list[str]] = {suffix: [] for suffix in known}
        kept = set(IMAGE_SUFFIXES)
        if only is not None and only.suffix in (".yaml", ".yml"):
            kept.add(".txt")
        for name in self.passed_over.named(sorted(_walk(root)), known):
            suffix = os.path.splitext(name)[1].lower()
            if only is None or suffix in kept or (root / name).resolve() == only.resolve():
                self._by_suffix[suffix].append(name)
        if only is not None and not only.resolve().is_relative_to(root.resolve()):
            # Names are relative to the root.
            self._by_suffix[only.suffix.lower()] = [os.path.relpath(only, root)]
        self.images = sorted(name for suffix in IMAGE_SUFFIXES for name in self._by_suffix[suffix])
        self._json: dict[str, Any] = {}
        self.found: dict[str, Any] = {}
        self.unreadable: dict[str, DatasetError] = {}

    @property
    def annotations(self) -> list[str]:
        """Names of the files that may hold annotations."""
        return self.files(*_ANNOTATIONS)

    def files(self, *suffixes: str) -> list[str]:
        """Names of the files with one of these suffixes, relative to the root."""
        return [name for suffix in suffixes for name in self._by_suffix[suffix]]

    def json(self, name: str) -> Any:
        """The content of a JSON file, read once; None if it is damaged (see ``unreadable``)."""
        if name not in self._json:
            try:
                self._json[name] = read_json_file(str(self.root / name))
            except DatasetError as error:
                self.unreadable[name] = error
                self._json[name] = None
        return self._json[name]

    def find_images(self, written: str, near: str = "", split: str = "") -> list[str]:
        """The images that an annotation file means; more than one if it is unclear.

        A path need not exist: of ``C:\\photos\\a\\1.jpg`` the end is compared with the images of
        the tree. So nothing outside of the root is ever found.

        Args:
            written: Path, address or name without suffix, as the file spells it.
            near: Folder of the annotation file, preferred.
            split: Preferred likewise.
        """
        parts = [p for p in _clean(written).split("/") if p not in ("", ".", "..")]
        if not parts:
            return []
        exact = "/".join([*(near.split("/") if near else []), *parts])
        if exact in self._image_set:
            return [exact]
        found = next(filter(None, map(self._named, spellings(parts[-1]))), [])
        if len(found) < 2:
            return list(found)
        for rank in (
            lambda name: _common_end(name.split("/")[:-1], parts[:-1]),
            lambda name: _common_start(name.split("/")[:-1], near.split("/")),
            lambda name: bool(split) and split_of_path(name) == split,
        ):
            best = max(map(rank, found))
            found = [name for name in found if rank(name) == best]
        return found

    def _named(self, name: str) -> list[str]:
        """The images of a name, or of one that differs in case, suffix or an upload's prefix."""
        found = self._by_name.get(name) or self._by_lower.get(name.lower())
        if not found and os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:
            found = self._by_stem.get(name)
        if not found and _PREFIX_OF_UPLOADS.match(name):
            found = self._by_name.get(_PREFIX_OF_UPLOADS.sub("", name))
        return found or []

    @cached_property
    def _image_set(self) -> set[str]:
        return set(self.images)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return _grouped(self.images, os.path.basename)

    @cached_property
    def _by_lower(self) -> dict[str, list[str]]:
        return _grouped(self.images, lambda name: os.path.basename(name).lower())

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _grouped(self.images, lambda name: os.path.splitext(os.path.basename(name))[0])


def _walk(root: Path) -> Iterator[str]:
    """Names of all files below ``root``, but for those in folders that systems leave there.

    A link that leads back into the tree ends there.
    """
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_stray(name))
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in files:
            yield name if below == "." else f"{below}/{name}"


def _grouped(names: Iterable[str], key) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return dict(groups)


def _clean(written: str) -> str:
    """A path with "/"; of an address such as ``/data/local-files/?d=a/1.jpg`` the file."""
    written = written.strip().replace("\\", "/").replace("\0", "")
    query = re.search(r"[?&]d=([^&]+)", written)
    if query:
        return query[1]
    return re.sub(r"^[A-Za-z][\w+.-]*:(//)?", "", written).split("?")[0]


def _common_start(first: Sequence[str], second: Sequence[str]) -> int:
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _common_end(first: Sequence[str], second: Sequence[str]) -> int:
    return _common_start(first[::-1], second[::-1])
