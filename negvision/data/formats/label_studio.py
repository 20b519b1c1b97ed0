"""Read the JSON and JSON_MIN exports of Label Studio: one file with a list of tasks."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

from negvision.data.formats.contents import ImageRecord, Instance, bounds
from negvision.data.formats.reading import Reading, number
from negvision.data.formats.tree import FileTree, split_of_path
from negvision.data.formats.turned import turned_bounds

NAME = "Label Studio"
_KINDS = ("rectangle", "polygon", "ellipse", "brush", "keypoint", "choices")


def claim(tree: FileTree) -> list[str]:
    """The JSON files with a list of tasks."""
    return [name for name in tree.files(".json") if _is_list_of_tasks(tree.json(name))]


def read(reading: Reading, files: list[str]) -> None:
    """Read all tasks of the files."""
    for file in files:
        for index, task in enumerate(reading.tree.json(file)):
            where = f"{reading.where(file)}: task {index}"
            if not isinstance(task, dict):
                reading.problems.add("task that is no object", where, task)
                continue
            results = _results(reading, task, where)
            if results is None:
                reading.notes.add("task without an annotation, left out", where)
                continue
            written = _image_of(task)
            name = reading.find_image(written, where, posixpath.dirname(file))
            if not name or not reading.is_new(name, where):
                continue
            image = reading.image(name, where, split_of_path(name))
            if image is None:
                continue
            results = _joined(results)
            for number_, item in enumerate(results, 1):
                _read_result(reading, image, item, f"{where}: result {number_}")
    reading.sort_classes()


def _is_list_of_tasks(content: Any) -> bool:
    tasks = content if isinstance(content, list) else []
    return any(
        isinstance(task, dict)
        and (
            (
                isinstance(task.get("annotations", task.get("completions")), list)
                and isinstance(task.get("data"), dict)
            )
            or next(_min_regions(task), None) is not None
        )
        for task in tasks[:100]
    )


def _min_regions(task: dict) -> Iterator[dict]:
    """The regions of a task of JSON_MIN, whose values are not nested."""
    for value in task.values():
        for region in value if isinstance(value, list) else ():
            if isinstance(region, dict) and any(f"{kind}labels" in region for kind in _KINDS):
                yield region


def _results(reading: Reading, task: dict, where: str) -> list | None:
    """The regions of a task; None if nobody annotated it."""
    annotations = task.get("annotations", task.get("completions"))
    if annotations is None:  # JSON_MIN
        regions = list(_min_regions(task))
        if not regions and "annotator" not in task and "annotation_id" not in task:
            return None
        return [
            {"type": f"{kind}labels", "value": region, "id": f"{index}"}
            for index, region in enumerate(regions)
            for kind in _KINDS
            if f"{kind}labels" in region
        ]
    given = [
        a
        for a in (annotations if isinstance(annotations, list) else ())
        if isinstance(a, dict) and not a.get("was_cancelled") and isinstance(a.get("result"), list)
    ]
    if not given:
        return None
    if len(given) > 1:
        reading.notes.add("task with several annotations, of which the last is taken", where)
    return max(given, key=lambda a: str(a.get("updated_at") or a.get("created_at") or ""))["result"]


def _image_of(task: dict) -> object:
    """What is most like the path of an image."""
    data = task.get("data", task)
    data = data if isinstance(data, dict) else {}
    named = [data.get(key) for key in ("image", "img", "image_url", "url")]
    texts = [value for value in (*named, *data.values()) if isinstance(value, str)]
    return next(iter(texts), task.get("file_upload"))


def _labels(item: dict) -> list:
    value = item.get("value")
    if not isinstance(value, dict):
        return []
    for key in (item.get("type"), "labels", *(f"{kind}labels" for kind in _KINDS)):
        if isinstance(key, str) and isinstance(value.get(key), list):
            return value[key]
    return []


def _joined(results: list) -> list:
    """The results, with the shape and the name of an object in one where they are in two."""
    valid = [r for r in results if isinstance(r, dict) and isinstance(r.get("id"), str)]
    names = {r["id"]: _labels(r) for r in valid if r.get("type") == "labels"}
    shapes = {r["id"] for r in valid if r.get("type") in _KINDS}
    joined = []
    for item in results:
        if item in valid and item["id"] in names and isinstance(item.get("value"), dict):
            if item.get("type") == "labels" and item["id"] in shapes:
                continue
            item = {**item, "value": {**item["value"], "labels": names[item["id"]]}}
        joined.append(item)
    return joined


def _read_result(reading: Reading, image: ImageRecord, item: Any, where: str) -> None:
    value = item.get("value") if isinstance(item, dict) else None
    kind = str(item.get("type")) if isinstance(item, dict) else ""
    if not isinstance(value, dict):
        if kind != "relation":
            reading.problems.add("result without a value", where, item)
        return
    shape = kind.removesuffix("labels")
    sides = (image.width, image.height)

    def pixels(*keys: str, value: dict = value) -> list[float]:
        return [number(value.get(key)) * sides[i % 2] / 100 for i, key in enumerate(keys)]

    angle = number(value.get("rotation", 0))
    polygons = []
    if shape == "rectangle":
        x, y, w, h = pixels("x", "y", "width", "height")
        box = (x, y, w, h)
        if angle and w > 0 and h > 0:
            box = turned_bounds(box, angle, (x, y))
            reading.notes.add("oriented box, kept as the upright box around it", where)
    elif shape == "ellipse":
        x, y, rx, ry = pixels("x", "y", "radiusX", "radiusY")
        box = turned_bounds((x - rx, y - ry, 2 * rx, 2 * ry), angle, (x, y))
        reading.notes.add("ellipse, kept as the box around it", where)
    elif shape == "polygon":
        points = _points(value.get("points"), sides)
        if len(points) < 6:
            reading.problems.add("outline of fewer than three points", where, value.get("points"))
            return
        box, polygons = bounds(points), [points]
    else:
        reading.notes.add(f"{kind}, which is neither a box nor an outline: left out", where)
        return
    labels = _labels(item)
    if not labels:
        reading.problems.add("object without a name", where)
        return
    if len(labels) > 1:
        reading.notes.add("object with several labels, of which the first is taken", where, labels)
    reading.add(image, Instance(reading.label(str(labels[0])), box, polygons), where)


def _points(points: Any, sides: tuple[int, int]) -> list[float]:
    try:
        return [number(p[i]) * sides[i] / 100 for p in points for i in (0, 1)]
    except (TypeError, IndexError, KeyError):
        return []
