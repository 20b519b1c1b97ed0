"""Read which images a verification protocol compares."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from negvision.data.formats.text_files import numbered_lines, parse_whole
from negvision.errors import Problems


class Pair(NamedTuple):
    """Two images by their paths, and whether they show one person."""

    place: str
    first: str
    second: str
    same: bool
    fold: int


def read_pairs(path: str, suffix: str, problems: Problems) -> tuple[list[Pair], bool]:
    """Read a file of pairs in one of two formats.

    * ``path path same`` a line, with ``same`` 1 or 0.
    * LFW's own: the first line has the number of folds and of matched pairs a fold (or only the
      latter, of one fold); ``name i j`` are images i and j of one person, ``name1 i name2 j``
      those of two. A fold has as many mismatched pairs as matched ones.

    Args:
        path: The file.
        suffix: Of image files in LFW's format, whose image 1 of Ann is ``Ann/Ann_0001`` + suffix.
        problems: Takes the lines at fault.

    Returns:
        The pairs in the order of the file, and whether the file says which fold they are of
        (``fold`` is 0 everywhere where it does not).
    """
    lines = numbered_lines(path)
    first = next(lines, None)
    if first is None:
        return [], False
    numbers = [parse_whole(number) for number in first[1].split()]
    if len(numbers) > 2 or None in numbers:
        return list(_parse_all(_chain(first, lines), _parse_paths, problems)), False
    folds, count = ([1] + numbers)[-2:]

    def parse(parts: list[str]) -> tuple[str, str, bool] | None:
        return _parse_lfw(parts, suffix)

    pairs, total = [], 0
    for total, (place, line) in enumerate(lines, 1):
        # Lines at fault keep their place, so that the others stay in their folds.
        fold = min((total - 1) // max(2 * count, 1), max(folds - 1, 0))
        pairs += [
            pair._replace(fold=fold) for pair in _parse_all(iter([(place, line)]), parse, problems)
        ]
    if total != 2 * count * folds:
        problems.add(
            f"file with {total:,} pairs whose first line announces {2 * count * folds:,}", path
        )
    return pairs, True


def _chain(first: tuple, rest: Iterator[tuple]) -> Iterator[tuple]:
    yield first
    yield from rest


def _parse_all(
    lines: Iterator[tuple[str, str]], parse: Callable, problems: Problems
) -> Iterator[Pair]:
    for place, line in lines:
        parsed = parse(line.split("\t") if "\t" in line else line.split())
        if parsed is None:
            problems.add("line that is not a pair", place, line)
        else:
            yield Pair(place, *parsed, fold=0)


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
    numbers = parse_whole(parts[1]), parse_whole(parts[3])
    if None in numbers:
        return None
    first, second = (
        f"{name}/{name}_{number:04d}{suffix}"
        for name, number in zip(parts[::2], numbers, strict=True)
    )
    return first, second, same
