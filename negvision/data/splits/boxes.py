"""Split COCO annotation files by the classes that their images show."""

import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from negvision.data.formats.coco_file import find_classes
from negvision.errors import DatasetError, Problems


@dataclass(frozen=True)
class CocoParts:
    """The content of a COCO file by what its images show; each image is in one part.

    Attributes:
        known: Images without a held-out object, also those without any object, and the categories
            that are not held out.
        held_out: Images that show held-out objects alone, and the held-out categories.
        mixed: Images that show both, and all categories.
    """

    known: dict
    held_out: dict
    mixed: dict


def split_coco(content: dict, held_out: Collection[str], where: str) -> CocoParts:
    """Split a COCO file by its images.

    Crowds and objects to be ignored count as objects: where they are held out, a detector would
    be trained on pixels of that class, too.

    Args:
        content: What :func:`~negvision.data.formats.coco_file.read_coco_file` returns; not changed.
        held_out: Names of categories; those that the file does not have are passed over.
        where: Its path, for errors.

    Returns:
        Three COCO contents. Images, annotations and categories are those of ``content``, in its
        order and with their ids; its other entries (info, licenses) are in each.

    Raises:
        DatasetError: A category, image or annotation lacks an id, has one that was used before,
            or refers to one that is not there.

    Example:
        >>> content = dict(
        ...     images=[dict(id=1, file_name="a.jpg"), dict(id=2, file_name="b.jpg")],
        ...     categories=[dict(id=1, name="ace"), dict(id=7, name="queen")],
        ...     annotations=[dict(id=1, image_id=2, category_id=7, bbox=[3, 4, 20, 30])])
        >>> parts = split_coco(content, ["queen"], "cards.json")
        >>> [[i["id"] for i in part["images"]] for part in (parts.known, parts.held_out)]
        [[1], [2]]
    """
    categories = content["categories"]
    names, ids = find_classes(where, categories, None)
    _check(content, set(ids), where)
    held_out_ids = {i for name, i in zip(names, ids, strict=True) if name in held_out}
    shows_known, shows_held_out = set(), set()
    for annotation in content["annotations"]:
        is_held_out = annotation["category_id"] in held_out_ids
        (shows_held_out if is_held_out else shows_known).add(annotation["image_id"])
    everything = {image["id"] for image in content["images"]}
    return CocoParts(
        known=_part(content, everything - shows_held_out, set(ids) - held_out_ids),
        held_out=_part(content, shows_held_out - shows_known, held_out_ids),
        mixed=_part(content, shows_held_out & shows_known, set(ids)),
    )


def join_coco_parts(
    train: tuple[Path, CocoParts], evaluation: tuple[Path, CocoParts]
) -> dict[str, dict]:
    """The files to train and evaluate with.

    Args:
        train: Path of the file to train on, and its parts.
        evaluation: The same of the file to evaluate on; it may be the same file.

    Returns:
        File name -> content: ``TRAIN_id.json``, ``EVALUATION_id.json``, ``EVALUATION_ood.json`` and
        ``EVALUATION_mixed.json``, with the names of the given files for the words in capitals.

    Raises:
        DatasetError: Nothing is left to train on, or there is no ID or no OOD image to evaluate
            on; two files have one name.
    """
    (train_path, train_parts), (path, parts) = train, evaluation
    if train_path.stem == path.stem and not os.path.samefile(train_path, path):
        raise DatasetError(
            f"{train_path} and {path} have one name, and so would their parts: rename one of them"
        )
    if not train_parts.known["annotations"]:
        count = len(train_parts.held_out["images"]) + len(train_parts.mixed["images"])
        raise DatasetError(
            f"{train_path}: nothing is left to train on. {count:,} images show held-out classes, "
            f"and the other {len(train_parts.known['images']):,} have no object; hold out fewer "
            "classes"
        )
    if not parts.held_out["images"]:
        raise DatasetError(
            f"{path}: no image shows held-out classes alone, so there is no OOD image to evaluate "
            f"on; {len(parts.mixed['images']):,} of "
            f"{len(parts.known['images']) + len(parts.mixed['images']):,} images show them beside "
            "others. Hold out other classes, or name a file with such images with --test"
        )
    if not parts.known["images"]:
        raise DatasetError(
            f"{path}: all images show held-out classes, so there is no ID image to evaluate on; "
            "hold out fewer classes, or name a file with such images with --test"
        )
    return {
        f"{train_path.stem}_id.json": train_parts.known,
        f"{path.stem}_id.json": parts.known,
        f"{path.stem}_ood.json": parts.held_out,
        f"{path.stem}_mixed.json": parts.mixed,
    }


def lost_boxes(content: dict, kept: dict) -> list[tuple[str, int, int]]:
    """Classes of ``kept`` that lost more than half of the boxes they have in ``content``.

    Returns:
        Name, boxes before, boxes after; crowds do not count.
    """
    before, after = _boxes(content["annotations"]), _boxes(kept["annotations"])
    return [
        (category["name"], before[category["id"]], after[category["id"]])
        for category in kept["categories"]
        if 2 * after[category["id"]] < before[category["id"]]
    ]


def _boxes(annotations: Sequence[dict]) -> Counter:
    return Counter(a["category_id"] for a in annotations if not a.get("iscrowd"))


def _part(content: dict, image_ids: set, category_ids: set) -> dict:
    return {
        **content,
        "images": [image for image in content["images"] if image["id"] in image_ids],
        "annotations": [a for a in content["annotations"] if a["image_id"] in image_ids],
        "categories": [c for c in content["categories"] if c["id"] in category_ids],
    }


def _check(content: dict, category_ids: set, where: str) -> None:
    """What a split needs; boxes are checked by the data set that loads its files."""
    problems = Problems()
    image_ids = set()
    for index, image in enumerate(content["images"]):
        image_id = image.get("id") if isinstance(image, dict) else None
        if not isinstance(image_id, int | str):
            problems.add("image record without an id", f"images[{index}]", image)
        elif image_id in image_ids:
            problems.add("image id that was used before", f"images[{index}]", image_id)
        else:
            image_ids.add(image_id)
    for index, annotation in enumerate(content["annotations"]):
        at = f"annotations[{index}]"
        if not isinstance(annotation, dict):
            problems.add("annotation that is no object", at, annotation)
            continue
        image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
        if not isinstance(image_id, int | str) or not isinstance(category_id, int):
            problems.add("annotation without image_id or category_id", at, annotation)
        elif image_id not in image_ids:
            problems.add("annotation of an image that the file does not list", at, image_id)
        elif category_id not in category_ids:
            problems.add("unknown category id", at, category_id)
    if problems:
        raise DatasetError(
            f"{where}: which images show which classes is not clear:\n{problems.report()}\n"
            "Correct the file."
        )
