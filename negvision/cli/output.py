"""Text tables, pages and progress bars that several commands write."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from negvision.errors import UserError
from negvision.files import atomic_write, check_writable


def text_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns of equal width; the first is aligned left, the others right.

    Example:
        >>> print(text_table(["file", "boxes"], [["a.json", 12], ["long.json", 3]]))
        file       boxes
        a.json        12
        long.json      3
    """
    cells = [list(map(str, row)) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if column == 0 else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def progress_bar(items, description: str):
    """A bar that shows on terminals only."""
    from tqdm import tqdm

    return tqdm(items, desc=description, leave=False, disable=None, file=sys.stdout)


def require_page(out: Path) -> None:
    """Raise UserError unless ``out`` is named like an HTML page and can be written."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out}: the page is written as .html")
    check_writable(out)


def write_page(path: Path, text: str) -> None:
    """Write an HTML page atomically; file names in it need not be valid text."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")
