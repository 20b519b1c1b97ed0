"""Read tables of integers and landmarks from text files."""

import warnings
from collections.abc import Sequence

import numpy as np

from negvision.data.formats.text_files import numbered_lines, parse_count
from negvision.errors import Problems


def read_integers(path: str, width: int, problems: Problems) -> tuple[np.ndarray, np.ndarray]:
    """Lines of ``width`` non-negative integers: (N, width), int64, and their line numbers, (N,).

    ``problems`` collects all other lines.
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


def parse_numbers(texts: Sequence[str]) -> np.ndarray | None:
    """Finite numbers as float32; None if a text is anything else."""
    try:
        values = np.array(texts, dtype=np.float32)
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None


def read_landmarks(path: str, problems: Problems) -> dict[str, np.ndarray]:
    """Read lines ``path x1 y1 ... x5 y5``: image path -> shape (5, 2), float32, in pixels."""
    found: dict[str, np.ndarray] = {}
    for place, line in numbered_lines(path):
        name, *numbers = line.rsplit(None, 10)
        values = parse_numbers(numbers)
        if values is None or len(values) != 10:
            problems.add("line that is not a path and ten finite numbers", place, line)
        else:
            found[name] = values.reshape(5, 2)
    return found
