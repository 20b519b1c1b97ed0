"""Read text files: lists of images line by line, and JSON."""

import json
import unicodedata
from collections.abc import Iterator
from typing import Any

from mmengine.fileio import get_local_path

from negvision.errors import DatasetError, Problems

# Labels and ids are kept in arrays of int64.
_MOST = (1 << 63) - 1


def composed(name: str) -> str:
    """A name of a class in Unicode's composed form (NFC), so that equal names compare as equal.

    macOS writes an accent as a character of its own.

    Example:
        >>> composed("cafe\\u0301") == "caf\\u00e9"
        True
    """
    return unicodedata.normalize("NFC", name)


def parse_count(text: str) -> int | None:
    """A non-negative integer that fits in 64 bits; None for any other text.

    Example:
        >>> parse_count("0042"), parse_count("-1"), parse_count("9" * 20), parse_count("²")
        (42, None, None, None)
    """
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        return None
    number = int(text)
    return number if number <= _MOST else None


def numbered_lines(path: str) -> Iterator[tuple[str, str]]:
    """The lines of a text file that are not blank, as (``path:number``, line).

    Raises:
        DatasetError: The file is not UTF-8 text.
    """
    number = 0
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                line = line.strip()
                if line:
                    yield f"{path}:{number}", line
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: not UTF-8 text, after line {number} ({error.reason})."
        ) from None


def parse_labeled(place: str, line: str, problems: Problems) -> tuple[str, int] | None:
    """Path and label from a line ``path label``; any other line is counted and gives None."""
    parts = line.rsplit(None, 1)
    if len(parts) != 2:
        problems.add("line that is not 'path label'", place, line)
        return None
    label = parse_count(parts[1].removeprefix("-"))
    if label is None:
        problems.add("label that is not an integer", place, line)
        return None
    return parts[0], -label if parts[1].startswith("-") else label


def read_json_file(path: str, backend_args: dict | None = None) -> Any:
    """The content of a JSON file.

    Args:
        path: The file.
        backend_args: File backend of MMEngine; a local file by default.

    Raises:
        FileNotFoundError: No such file.
        DatasetError: It is not JSON.
    """
    with get_local_path(path, backend_args=backend_args) as local, open(local, "rb") as file:
        data = file.read()
    if not data.strip():
        raise DatasetError(f"{path}: the annotation file is empty.")
    try:
        return json.loads(data)
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: the annotation file is not JSON: it is not UTF-8 text ({error}); it begins "
            f"with {data[:40]!r}."
        ) from None
    except json.JSONDecodeError as error:
        near = error.doc[max(0, error.pos - 20) : error.pos + 20]
        unclosed = error.msg.startswith("Unterminated string")
        cut_off = unclosed or error.pos >= len(error.doc.rstrip()) - 1
        raise DatasetError(
            f"{path}: the annotation file is not JSON: {error.msg} in line {error.lineno}, column "
            f"{error.colno}, near {near!r}."
            + (" The file ends there, so it may be truncated." if cut_off else "")
        ) from None
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of 5000 digits
        raise DatasetError(
            f"{path}: the annotation file is not JSON that can be read: {error}."
        ) from None
