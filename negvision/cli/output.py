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
        >>> print(text_table(["file", "boxes"], [["a.json", 1234], ["long.json", 3]]))
        file       boxes
        a.json     1,234
        long.json      3
    """
    cells = [
        [f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row]
        for row in (header, *rows)
    ]
    first, *others = [max(map(len, column)) for column in zip(*cells, strict=True)]
    form = "  ".join([f"{{:<{first}}}", *(f"{{:>{width}}}" for width in others)])
    return "\n".join(form.format(*row).rstrip() for row in cells)


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
