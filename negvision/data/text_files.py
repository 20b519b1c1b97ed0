"""Read text files that list images, line by line."""

from collections.abc import Iterator

from negvision.errors import DatasetError, Problems


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


def parse_labelled(place: str, line: str, problems: Problems) -> tuple[str, int] | None:
    """Path and label from a line ``path label``; None, and counted, for any other line."""
    parts = line.rsplit(None, 1)
    if len(parts) != 2:
        problems.add("line that is not 'path label'", place, line)
        return None
    try:
        return parts[0], int(parts[1])
    except ValueError:
        problems.add("label that is not a whole number", place, line)
        return None
