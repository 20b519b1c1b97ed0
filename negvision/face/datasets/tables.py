"""Read tables of integers and landmarks from text files."""

import warnings
from collections.abc import Sequence

import numpy as np

from negvision.data.formats.text_files import numbered_lines, parse_count
from negvision.errors import Problems


def read_integers(path: str, width: int, problems: Problems) -> tuple[np.ndarray, np.ndarray]:
    """Read a table of non-negative integers.

    Args:
        path: A text file with ``width`` integers per line.
        width: Number of columns.
        problems: Collects all other lines.

    Returns:
        Shape (N, width), int64, and the line number of each row, shape (N,).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty file
            table = np.loadtxt(path, dtype=np.int64, ndmin=2, comments=None)
        if table.size and table.shape[1] == width and (table >= 0).all():
            # NumPy skips blank lines, which are rare in such files.
            return table, np.arange(1, len(table) + 1)
    except (ValueError, OverflowError):
        pass
    rows, numbers = [], []
    for place, line in numbered_lines(path):
        row = [parse_count(item) for item in line.split()]
        if len(row) != width or None in row:
            problems.add(f"line that is not {width} integers", place, line)
            continue
        rows.append(row)
        numbers.append(int(place.rpartition(":")[2]))
    return np.array(rows, dtype=np.int64).reshape(-1, width), np.array(numbers, dtype=np.int64)


def parse_landmarks(numbers: Sequence[str]) -> np.ndarray | None:
    """Shape (5, 2), float32, from ``x1 y1 ... x5 y5``; None if not ten finite numbers."""
    try:
        points = np.array(numbers, dtype=np.float32)
    except ValueError:
        return None
    if points.shape != (10,) or not np.isfinite(points).all():
        return None
    return points.reshape(5, 2)


def read_landmarks(path: str, problems: Problems) -> dict[str, np.ndarray]:
    """Read lines ``path x1 y1 ... x5 y5``: image path -> shape (5, 2), float32, in pixels."""
    found: dict[str, np.ndarray] = {}
    for place, line in numbered_lines(path):
        name, *numbers = line.rsplit(None, 10)
        points = parse_landmarks(numbers)
        if points is None:
            problems.add("line that is not a path and ten finite numbers", place, line)
        else:
            found[name] = points
    return found
