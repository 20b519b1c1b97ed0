"""Split COCO annotation files by the classes that their images show."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from negvision.data.formats.coco_file import find_classes, find_reference_problem, index_images
from negvision.data.splits.images import require_two_names
from negvision.errors import DatasetError, Problems


@dataclass(frozen=True)
class CocoParts:
    """The content of a COCO file by the classes its images show; each image is in one part.

    Attributes:
        known: Images without held-out objects (or without any), and the remaining categories.
        held_out: Images that show only held-out objects, and the held-out categories.
        mixed: Images that show both, and all categories.
    """

    known: dict
    held_out: dict
    mixed: dict


def split_coco(content: dict, held_out: Collection[str], where: str) -> CocoParts:
    """Split a COCO file by its images.

    Crowds and ignored objects count as objects: a detector would be trained on their pixels, too.

    Args:
        content: What :func:`~negvision.data.formats.coco_file.read_coco_file` returns; not changed.
        held_out: Names of categories; names that the file lacks are skipped.
        where: Its path, for errors.

    Returns:
        Three COCO contents. Images, annotations and categories keep their order and ids; other
        entries (info, licenses) are in each.

    Raises:
        DatasetError: A category, image or annotation lacks an id, repeats one, or refers to a
            missing one.

    Example:
        >>> content = dict(
        ...     images=[dict(id=1, file_name="a.jpg"), dict(id=2, file_name="b.jpg")],
        ...     categories=[dict(id=1, name="ace"), dict(id=7, name="queen")],
        ...     annotations=[dict(id=1, image_id=2, category_id=7, bbox=[3, 4, 20, 30])])
        >>> parts = split_coco(content, ["queen"], "cards.json")
        >>> [[i["id"] for i in part["images"]] for part in (parts.known, parts.held_out)]
        [[1], [2]]
    """
    names, ids = find_classes(where, content, None)
    problems = Problems()
    images = index_images(content["images"], problems)
    for index, annotation in enumerate(content["annotations"]):
        problem = find_reference_problem(annotation, images, ids)
        if problem:
            problems.add(problem[0], f"annotations[{index}]", problem[1])
    if problems:
        raise DatasetError(
            f"{where}: it is unclear which images show which classes:\n{problems.report()}\n"
            "Correct the file."
        )
    held_out_ids = {i for name, i in zip(names, ids, strict=True) if name in held_out}
    shows_known, shows_held_out = set(), set()
    for annotation in content["annotations"]:
        is_held_out = annotation["category_id"] in held_out_ids
        (shows_held_out if is_held_out else shows_known).add(annotation["image_id"])
    everything = set(images)
    return CocoParts(
        known=_part(content, everything - shows_held_out, set(ids) - held_out_ids),
        held_out=_part(content, shows_held_out - shows_known, held_out_ids),
        mixed=_part(content, shows_held_out & shows_known, set(ids)),
    )


def join_coco_parts(
    train: tuple[Path, CocoParts], evaluation: tuple[Path, CocoParts]
) -> dict[str, dict]:
    """The files for training and evaluation.

    Args:
        train: Path of the file to train on, and its parts.
        evaluation: Likewise for the file to evaluate on; it may be the same file.

    Returns:
        File name -> content: ``TRAIN_id.json``, ``EVALUATION_id.json``, ``EVALUATION_ood.json`` and
        ``EVALUATION_mixed.json``, with the names of the files for the words in capitals.

    Raises:
        DatasetError: There is nothing left to train on, no ID or no OOD image to evaluate on, or
            two files have one name.
    """
    (train_path, train_parts), (path, parts) = train, evaluation
    require_two_names(train_path, path)
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
    """Classes that lost more than half of their boxes from ``content`` to ``kept``.

    Returns:
        (name, boxes before, boxes after); crowds do not count.
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
