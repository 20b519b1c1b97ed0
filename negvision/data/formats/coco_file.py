"""Read COCO annotation files and check their structure."""

import math
from collections import Counter
from collections.abc import Collection, Container, Mapping, Sequence

from negvision.data.formats.text_files import composed, read_json_file
from negvision.errors import DatasetError, Problems, did_you_mean

_ENTRIES = ("images", "annotations", "categories")


def read_coco_file(
    path: str, backend_args: dict | None = None, need_annotations: bool = True
) -> dict:
    """The content of a COCO annotation file.

    Args:
        path: The JSON file.
        backend_args: File backend of MMEngine; a local file by default.
        need_annotations: Whether ``annotations`` may not be missing, as it is in the files of
            COCO's test images (``image_info_test-dev2017.json``).

    Returns:
        A dict in which ``images``, ``annotations`` and ``categories`` are lists.

    Raises:
        FileNotFoundError: No such file.
        DatasetError: The file is not JSON, or lacks one of these lists.
    """
    content = read_json_file(path, backend_args)
    if not isinstance(content, dict):
        raise DatasetError(
            f"{path}: a COCO annotation file holds an object with {', '.join(_ENTRIES)}; "
            f"this one holds a {type(content).__name__}."
        )
    if not need_annotations:
        content.setdefault("annotations", [])
    for entry in _ENTRIES:
        if not isinstance(content.get(entry), list):
            found = type(content[entry]).__name__ if entry in content else "nothing"
            raise DatasetError(
                f"{path}: a COCO annotation file has a list {entry!r}; found {found} "
                f"(the entries are: {', '.join(map(repr, content)) or 'none'})."
            )
    return content


def find_classes(
    path: str, content: Mapping, wanted: Sequence[str] | None
) -> tuple[tuple[str, ...], list[int]]:
    """The class of each label and its category id.

    Of two categories with one name, a parent (see :func:`without_parents`) is passed over. Names
    are compared and returned in Unicode's composed form.

    Args:
        path: Named in errors.
        content: Of the file: ``categories`` and ``annotations``.
        wanted: Class names in the order of the labels; None takes all, in the order of their ids.

    Returns:
        Names and category ids, both in the order of the labels.

    Raises:
        DatasetError: There is no category, one lacks its id or name, two share one, or a wanted
            class is missing.
    """
    categories = content["categories"]
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
    names = Counter(category["name"] for category in categories)
    if max(names.values()) > 1:
        kept = without_parents(categories, content["annotations"])
        categories = [c for c in categories if c in kept or names[c["name"]] == 1]
    for key in ("id", "name"):
        value, times = Counter(category[key] for category in categories).most_common(1)[0]
        if times > 1:
            raise DatasetError(
                f"{path}: {times} categories have the {key} {value!r}; each needs its own."
            )
    ids = {composed(category["name"]): category["id"] for category in categories}
    if wanted is None:
        wanted = sorted(ids, key=ids.__getitem__)
    wanted = [composed(name) if isinstance(name, str) else name for name in wanted]
    unknown = [name for name in wanted if name not in ids]
    if unknown:
        lines = [f"  {name!r}{did_you_mean(str(name), ids)}" for name in unknown[:10]]
        raise DatasetError(
            f"{path}: {len(unknown)} of the {len(wanted)} classes in metainfo['classes'] are no "
            "category of this file:\n"
            + "\n".join(lines)
            + f"\nIts {len(ids)} categories: {', '.join(map(repr, list(ids)[:100]))}."
        )
    return tuple(wanted), [ids[name] for name in wanted]


def check_order(categories: Sequence[dict], classes: Sequence[str]) -> str:
    """Whether a label of mmdet's ``CocoDataset`` is the position of its class.

    mmdet numbers the categories that are among the classes, in the order of the file.

    Returns:
        A warning if the classes have another order, else "".

    Raises:
        DatasetError: No category is among the classes, or one that is missing shifts the labels.
    """
    names = [category["name"] for category in categories]
    found = [name for name in names if name in classes]
    if found == list(classes)[: len(found)] and found:
        return ""
    lists = f"  the file:    {shortened(names)}\n  the classes: {shortened(classes)}\n"
    remedy = (
        "Name the classes of your data in their order in the file, in all data sets: "
        f"metainfo = dict(classes={tuple(names[:3])!r})" + (" and so on" if len(names) > 3 else "")
    )
    if not found:
        raise DatasetError(
            f"none of the categories of the annotation file is a class of the data set:\n{lists}"
            + remedy
        )
    if len(found) < len(classes):
        raise DatasetError(
            f"{len(classes) - len(found)} of {len(classes)} classes are no category of the "
            f"annotation file, so labels would belong to other classes:\n{lists}{remedy}"
        )
    return (
        "the annotation file lists its categories in another order than the classes, so mmdet's "
        f"labels belong to other classes:\n{lists}{remedy}, or use negvision.CocoDataset and "
        "negvision.CocoMetric, which go by the names"
    )


def shortened(names: Sequence[str]) -> str:
    """The first 20 names, and how many there are."""
    rest = f", ... ({len(names)})" if len(names) > 20 else ""
    return ", ".join(map(str, names[:20])) + rest


def without_parents(categories: Sequence, annotations: Sequence) -> list:
    """The categories without parents that no annotation uses, which Roboflow's exports have.

    A parent is the supercategory of another category, perhaps of the same name.

    Example:
        >>> without_parents([{"id": 0, "name": "cat", "supercategory": "none"},
        ...                  {"id": 1, "name": "cat", "supercategory": "cat"}], [])
        [{'id': 1, 'name': 'cat', 'supercategory': 'cat'}]
    """
    children: dict = {}
    for category in categories:
        if _is_hashable_in(category, "supercategory") and _is_hashable_in(category, "id"):
            children.setdefault(category["supercategory"], set()).add(category["id"])
    parents = [
        c
        for c in categories
        if _is_hashable_in(c, "id")
        and _is_hashable_in(c, "name")
        and children.get(c["name"], set()) - {c["id"]}
    ]
    if not parents:  # no need to read the annotations
        return list(categories)
    used = {a.get("category_id") for a in annotations if _is_hashable_in(a, "category_id")}
    return [c for c in categories if c not in parents or c["id"] in used]


def _is_hashable_in(item: object, key: str) -> bool:
    return isinstance(item, dict) and isinstance(item.get(key), int | str)


def index_images(images: Sequence, problems: Problems) -> dict:
    """Image id -> record. Records without an id, or with one used before, are counted."""
    by_id: dict = {}
    for index, image in enumerate(images):
        image_id = image.get("id") if isinstance(image, dict) else None
        if not isinstance(image_id, int | str):
            problems.add("image record without an id", f"images[{index}]", image)
        elif image_id in by_id:
            problems.add("image id that was used before", f"images[{index}]", image)
        else:
            by_id[image_id] = image
    return by_id


# Beyond it an integer is no number of C's.
_LARGEST_AREA = 2.0**62
# Some tools write the flags as text.
_FLAGS: dict[object, bool] = {
    **dict.fromkeys((None, 0, "", "0", "0.0", "false", "no"), False),
    **dict.fromkeys((1, "1", "1.0", "true", "yes"), True),
}


def is_ignored(annotation: dict) -> bool:
    """Whether an annotation is a crowd or marked ``ignore``: neither an object nor background.

    Numbers, truth values and their text are read alike, so ``"0"`` is no crowd.

    Raises:
        DatasetError: ``iscrowd`` or ``ignore`` is neither true nor false; ``kind`` says which.

    Example:
        >>> is_ignored({"iscrowd": "0"}), is_ignored({"iscrowd": 0, "ignore": 1}), is_ignored({})
        (False, True, False)
    """
    return _flag(annotation, "iscrowd") or _flag(annotation, "ignore")


def _flag(annotation: dict, key: str) -> bool:
    value = annotation.get(key)
    try:
        return _FLAGS[value]
    except (KeyError, TypeError):  # TypeError: a list or an object
        pass
    written = value.strip().lower() if isinstance(value, str) else None
    if written not in _FLAGS or written is None:
        raise DatasetError(f"{key} is {value!r}", kind=f"{key} that is not 0 or 1")
    return _FLAGS[written]


def area_of(annotation: dict) -> float | None:
    """The area of an annotation in pixels²; None unless it is a positive number.

    Example:
        >>> area_of({"area": 12.5}), area_of({"area": 0}), area_of({})
        (12.5, None, None)
    """
    area = annotation.get("area")
    return area if isinstance(area, int | float) and 0 < area < _LARGEST_AREA else None


def find_reference_problem(
    annotation: object, image_ids: Container, category_ids: Collection[int]
) -> tuple[str, object] | None:
    """Check that an annotation belongs to an image and a category of its file.

    Returns:
        The kind of problem and the value found; None if there is no problem.
    """
    if not isinstance(annotation, dict):
        return "annotation that is no object", annotation
    image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
    if not isinstance(image_id, int | str) or not isinstance(category_id, int):
        return "annotation without image_id or category_id", annotation
    if image_id not in image_ids:
        return "annotation of an image that the file does not list", image_id
    if category_id not in category_ids:
        return "unknown category id", category_id
    return None


def usable_polygons(polygons: Sequence[Sequence]) -> list[Sequence]:
    """The polygons (x1, y1, x2, y2, ...) of three points and more; the others have no area."""
    return [polygon for polygon in polygons if len(polygon) >= 6 and len(polygon) % 2 == 0]


def find_mask_problem(annotation: Mapping, image: Mapping) -> tuple[str, object] | None:
    """Check the ``segmentation`` of an annotation: polygons, or run lengths (RLE).

    Args:
        annotation: Of the image.
        image: With its ``height`` and ``width``.

    Returns:
        The kind of problem and the value found; None if there is no problem.
    """
    mask = annotation.get("segmentation")
    if not mask:
        return "missing mask (segmentation)", mask
    if isinstance(mask, list):
        try:
            if not all(math.isfinite(sum(polygon)) for polygon in mask):
                return "mask with NaN or infinite coordinates", mask
        except TypeError:
            return "mask that is neither polygons nor run lengths", mask
        if not usable_polygons(mask):
            return "mask without a polygon of three points", mask
        return None
    if not (isinstance(mask, dict) and isinstance(mask.get("counts"), list | str)):
        return "mask that is neither polygons nor run lengths", mask
    size = [image["height"], image["width"]]
    if mask.get("size") != size:
        return "mask of another size than its image", mask.get("size")
    if isinstance(mask["counts"], list):
        try:
            complete = sum(mask["counts"]) == math.prod(size)
        except TypeError:
            complete = False
        if not complete:
            return "mask whose run lengths do not fill its image", mask.get("size")
    return None
