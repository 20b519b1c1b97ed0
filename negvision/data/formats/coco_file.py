"""Read a COCO annotation file and find the classes in it."""

import difflib
import json
from collections import Counter
from collections.abc import Sequence

from mmengine.fileio import get_local_path

from negvision.errors import DatasetError

_ENTRIES = ("images", "annotations", "categories")


def read_coco_file(path: str, backend_args: dict | None = None) -> dict:
    """The content of a COCO annotation file.

    Args:
        path: the JSON file.
        backend_args: file backend of MMEngine; a local file by default.

    Returns:
        A dict in which ``images``, ``annotations`` and ``categories`` are lists.

    Raises:
        FileNotFoundError: no such file.
        DatasetError: not JSON, or not COCO's structure.
    """
    with get_local_path(path, backend_args=backend_args) as local, open(local, "rb") as file:
        data = file.read()
    if not data.strip():
        raise DatasetError(f"{path}: the annotation file is empty.")
    try:
        content = json.loads(data)
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: the annotation file is not JSON: it is not text in UTF-8 ({error}); it "
            f"begins with {data[:40]!r}."
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
    except (RecursionError, ValueError) as error:  # nested without end, or a number of 5000 digits
        raise DatasetError(
            f"{path}: the annotation file is not JSON that can be read: {error}."
        ) from None
    if not isinstance(content, dict):
        raise DatasetError(
            f"{path}: a COCO annotation file holds an object with {', '.join(_ENTRIES)}; "
            f"this one holds a {type(content).__name__}."
        )
    for entry in _ENTRIES:
        if not isinstance(content.get(entry), list):
            found = type(content[entry]).__name__ if entry in content else "nothing"
            raise DatasetError(
                f"{path}: a COCO annotation file has a list {entry!r}; found {found} "
                f"(the entries are: {', '.join(map(repr, content)) or 'none'})."
            )
    return content


def find_classes(
    path: str, categories: Sequence[dict], wanted: Sequence[str] | None
) -> tuple[tuple[str, ...], list[int]]:
    """The class of each label and its category id.

    Args:
        path: named in errors.
        categories: those of the file.
        wanted: class names in the order of the labels; None takes all, in the order of their ids.

    Returns:
        Names and category ids, both in the order of the labels.

    Raises:
        DatasetError: there is no category, one lacks its id or name, two share one, or a wanted
            class is not there.
    """
    if not categories:
        raise DatasetError(f"{path}: the list 'categories' is empty.")
    for category in categories:
        if not (
            isinstance(category, dict)
            and isinstance(category.get("id"), int)
            and isinstance(category.get("name"), str)
        ):
            raise DatasetError(
                f"{path}: a category needs an integer id and a name; found {category!r}."
            )
    for key in ("id", "name"):
        value, times = Counter(category[key] for category in categories).most_common(1)[0]
        if times > 1:
            raise DatasetError(
                f"{path}: {times} categories have the {key} {value!r}; each needs its own."
            )
    ids = {category["name"]: category["id"] for category in categories}
    if wanted is None:
        wanted = sorted(ids, key=ids.__getitem__)
    unknown = [name for name in wanted if name not in ids]
    if unknown:
        lines = []
        for name in unknown:
            near = difflib.get_close_matches(str(name), ids, n=3, cutoff=0.5)
            lines.append(
                f"  {name!r}" + (f"; nearest: {', '.join(map(repr, near))}" if near else "")
            )
        raise DatasetError(
            f"{path}: {len(unknown)} of the {len(wanted)} classes in metainfo['classes'] are no "
            "category of this file:\n"
            + "\n".join(lines[:10])
            + f"\nIts {len(ids)} categories: {', '.join(map(repr, list(ids)[:100]))}."
        )
    return tuple(wanted), [ids[name] for name in wanted]
