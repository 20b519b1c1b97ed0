"""Pages and progress bars that several commands write."""

from __future__ import annotations

import sys
from pathlib import Path

from negvision.errors import UserError
from negvision.files import atomic_write, check_writable


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
