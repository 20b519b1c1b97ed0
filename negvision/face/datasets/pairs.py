"""Verification pairs of image files."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from negvision.data.formats.text_files import numbered_lines, parse_count
from negvision.data.images.decoding import decode_image
from negvision.errors import DatasetError, Problems
from negvision.face.datasets.base import FaceProtocolDataset, ListedImages
from negvision.registry import DATASETS

_NO_PAIR = (
    "line that is not a pair: 'path path 1' or 'path path 0'; or, as in LFW's pairs.txt, "
    "'name i j' or 'name1 i name2 j'"
)


@DATASETS.register_module()
class FacePairDataset(FaceProtocolDataset):
    """Every distinct image that a file of pairs names, once.

    ``metainfo`` has ``pairs``, int64 (P, 2), the indices of the two samples, and ``same``, bool
    (P,); with LFW's own ``pairs.txt`` and its first line also ``folds``, int64 (P,). Labels are -1.

    Args:
        ann_file: In one of two formats. Lines ``path path same`` with 1 or 0; or LFW's
            ``pairs.txt``, whose first line has the number of folds and of matched pairs per fold
            (or only the latter, for one fold), followed by lines ``name i j`` for images i and j
            of one person and ``name1 i name2 j`` for two people. A fold has as many mismatched
            pairs as matched ones. LFW's lines without the first one give pairs without folds.
            Commas may stand for spaces, and the first line may name the columns.
        landmarks_file: As in :class:`negvision.face.datasets.list_file.FaceListDataset`.
        suffix: Of image files in LFW's format, where image 1 of Ann is ``Ann/Ann_0001`` + suffix.
        on_bad_sample: "error" raises for a malformed line or a missing image; damaged images are
            found when they are loaded. "skip" reads every image once at the start, drops the pairs
            that cannot be compared and logs their number.
        **kwargs: Of :class:`negvision.face.datasets.base.FaceProtocolDataset`.

    Example:
        >>> import pathlib, tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("a.jpg", "b.jpg"):
        ...     _ = (root / name).write_bytes(b"")
        >>> _ = (root / "pairs.txt").write_text("a.jpg b.jpg 0\\nb.jpg a.jpg 0\\n")
        >>> dataset = FacePairDataset(data_root=str(root), ann_file="pairs.txt")
        >>> len(dataset), dataset.metainfo["pairs"].tolist(), dataset.metainfo["same"].tolist()
        (2, [[0, 1], [1, 0]], [False, False])
    """

    _file_arguments = ("landmarks_file",)

    def __init__(self, *args, landmarks_file: str = "", suffix: str = ".jpg", **kwargs) -> None:
        self.landmarks_file = landmarks_file
        self.suffix = suffix
        super().__init__(*args, **kwargs)

    def load_columns(self) -> dict[str, Any]:
        self._require_files()
        problems = Problems()
        pairs, has_folds = _read_pairs(self.ann_file, self.suffix, problems)
        images = ListedImages(self, problems)
        names = dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second))
        found = {name: images.problem(name) or self._unreadable(name) for name in names}
        usable = []
        for pair in pairs:
            problem = found[pair.first] or found[pair.second]
            if problem:
                problems.add(problem[0], pair.place, problem[1])
            else:
                usable.append(pair)
        self._settle_samples(
            self.ann_file, problems, f"{len(pairs):,} pairs", len(usable), listed="pair"
        )
        names = dict.fromkeys(name for pair in usable for name in (pair.first, pair.second))
        index = {name: number for number, name in enumerate(names)}
        self._set_protocol(
            pairs=np.array([(index[p.first], index[p.second]) for p in usable], dtype=np.int64),
            same=np.array([pair.same for pair in usable], dtype=bool),
        )
        if has_folds:
            self._set_protocol(folds=np.array([pair.fold for pair in usable], dtype=np.int64))
        return {"label": np.full(len(index), -1, dtype=np.int64), **images.columns(index)}

    def _unreadable(self, name: str) -> tuple[str, str] | None:
        if self.on_bad_sample == "skip":
            path = self._image_path(name)
            try:
                with open(path, "rb") as file:
                    decode_image(file.read(), path)
            except (DatasetError, OSError) as error:
                return "unreadable image", str(error)
        return None


class _Pair(NamedTuple):
    """Two images by path, and whether they show one person; ``place`` is the line of the file."""

    place: str
    first: str
    second: str
    same: bool
    fold: int


def _read_pairs(path: str, suffix: str, problems: Problems) -> tuple[list[_Pair], bool]:
    """The pairs in file order, and whether the file's first line says how many make a fold."""
    lines = list(numbered_lines(path))
    first = next(_splits(lines[0][1])) if lines else []
    header = [number for number in map(parse_count, first) if number is not None]
    has_folds = 1 <= len(first) == len(header) <= 2
    folds, count = ([1] + header)[-2:] if has_folds else (1, 0)
    if has_folds:
        del lines[0]
        if len(lines) != 2 * count * folds:
            problems.add(
                f"file with {len(lines):,} pairs whose first line announces {2 * count * folds:,}",
                path,
            )
    elif len(lines) > 1 and not header and not any("." in word or "/" in word for word in first):
        del lines[0]  # titles of columns
    pairs = []
    for number, (place, line) in enumerate(lines):
        parsed = (_parse(parts, suffix) for parts in _splits(line))
        pair = next(filter(None, parsed), None)
        if pair is None:
            problems.add(_NO_PAIR, place, line)
            continue
        # Malformed lines are counted, so that the others stay in their folds.
        fold = min(number // max(2 * count, 1), max(folds - 1, 0)) if has_folds else 0
        pairs.append(_Pair(place, *pair, fold))
    return pairs, has_folds


def _splits(line: str) -> Iterator[list[str]]:
    """The words of a line, by commas (the last may be empty), tabs or spaces."""
    if "," in line:
        yield [word.strip() for word in line.rstrip(", ").split(",")]
    yield line.split("\t") if "\t" in line else line.split()


def _parse(parts: list[str], suffix: str) -> tuple[str, str, bool] | None:
    # LFW's lines have the number of an image where others have the second path.
    is_lfw = len(parts) > 1 and parse_count(parts[1]) is not None
    return _parse_lfw(parts, suffix) if is_lfw else _parse_paths(parts)


def _parse_paths(parts: list[str]) -> tuple[str, str, bool] | None:
    if len(parts) != 3 or parts[2] not in ("0", "1"):
        return None
    return parts[0], parts[1], parts[2] == "1"


def _parse_lfw(parts: list[str], suffix: str) -> tuple[str, str, bool] | None:
    same = len(parts) == 3
    if same:
        parts = [parts[0], parts[1], parts[0], parts[2]]
    if len(parts) != 4:
        return None
    numbers = parse_count(parts[1]), parse_count(parts[3])
    if None in numbers:
        return None
    first, second = (
        f"{name}/{name}_{number:04d}{suffix}"
        for name, number in zip(parts[::2], numbers, strict=True)
    )
    return first, second, same
