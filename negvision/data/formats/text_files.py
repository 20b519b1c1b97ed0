"""Read text files that list images, line by line."""

from collections.abc import Iterator

from negvision.errors import DatasetError, Problems

# Labels and ids are kept in arrays of int64.
_MOST = (1 << 63) - 1


def parse_whole(text: str) -> int | None:
    """A whole number from 0 up that fits in 64 bits; None for any other text.

    Example:
        >>> parse_whole("0042"), parse_whole("-1"), parse_whole("9" * 20), parse_whole("²")
        (42, None, None, None)
    """
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        return None
    number = int(text)
    return number if number <= _MOST else None


def numbered_lines(path: str) -> Iterator[tuple[str, str]]:
    """The lines of a text file that are not blank, each after its place (``path:number``).

    Raises:
        DatasetError: the file is not text in UTF-8.
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
            f"{path}: not text in UTF-8, after line {number} ({error.reason})."
        ) from None


def parse_labeled(place: str, line: str, problems: Problems) -> tuple[str, int] | None:
    """Path and label from a line ``path label``; None, and counted, for any other line."""
    parts = line.rsplit(None, 1)
    if len(parts) != 2:
        problems.add("line that is not 'path label'", place, line)
        return None
    label = parse_whole(parts[1].removeprefix("-"))
    if label is None:
        problems.add("label that is not a whole number", place, line)
        return None
    return parts[0], -label if parts[1].startswith("-") else label
