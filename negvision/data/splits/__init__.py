"""Split a dataset by classes: some are held out of training, as the unknown of an evaluation.

Images that show held-out classes leave the training set, or their pixels become void; otherwise
their objects would be trained as background. The evaluation has in-distribution (ID) images
without held-out classes, and out-of-distribution (OOD) images or pixels of them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from negvision.data.splits.boxes import CocoParts, join_coco_parts, lost_boxes, split_coco
from negvision.data.splits.images import (
    LabeledImage,
    join_image_parts,
    read_image_folder,
    read_image_list,
    split_images,
)
from negvision.data.splits.pixels import LabelTables, PixelCounts, label_tables, write_label_images
from negvision.errors import DatasetError, did_you_mean
from negvision.files import staged

__all__ = [
    "CocoParts",
    "LabelTables",
    "LabeledImage",
    "PixelCounts",
    "check_names",
    "join_coco_parts",
    "join_image_parts",
    "label_tables",
    "lost_boxes",
    "read_image_folder",
    "read_image_list",
    "remaining_classes",
    "split_coco",
    "split_images",
    "staged_outputs",
    "write_label_images",
]


def check_names(names: Sequence[str], classes: Sequence[str], option: str, where: str) -> None:
    """Raise DatasetError if a name is no class, and suggest the nearest classes.

    Args:
        names: What to check.
        classes: All classes.
        option: The source of the names, such as "--held-out".
        where: The file or folder with the classes.
    """
    unknown = [name for name in names if name not in classes]
    if unknown:
        lines = [f"  {name!r}{did_you_mean(name, classes)}" for name in unknown]
        raise DatasetError(
            f"{option}: {len(unknown)} of {len(names)} are no class of {where}:\n"
            + "\n".join(lines)
            + f"\nIts {len(classes)} classes: {', '.join(map(repr, classes[:100]))}."
        )


def remaining_classes(
    classes: Sequence[str], held_out: Sequence[str], where: str
) -> tuple[str, ...]:
    """The classes that are not held out, in their order.

    Args:
        classes: All classes.
        held_out: Some of them.
        where: The file or folder with the classes, for errors.

    Raises:
        DatasetError: A held-out class is unknown, none is held out, or all are.

    Example:
        >>> remaining_classes(["ace", "queen", "ten"], ["queen"], "cards.json")
        ('ace', 'ten')
    """
    check_names(held_out, classes, "--held-out", where)
    remaining = tuple(name for name in classes if name not in held_out)
    if not remaining:
        raise DatasetError(
            f"--held-out names all {len(classes)} classes of {where}, so none is left to train "
            "on; hold out fewer"
        )
    if len(remaining) == len(classes):
        raise DatasetError(f"no class of {where} is held out; name some with --held-out")
    return remaining


@contextmanager
def staged_outputs(folder: Path, names: Sequence[str], overwrite: bool) -> Iterator[Path]:
    """Yield a folder to write into; its files move to ``folder`` together at the end.

    Args:
        folder: The destination, created if missing. Other files in it stay.
        names: The files or folders that will be written; a folder replaces an old one entirely.
        overwrite: Replace existing ones.

    Raises:
        DatasetError: ``folder`` has one of ``names`` that may not be replaced, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise DatasetError(f"--out {folder} is a file; name a folder")
    standing = [name for name in names if (folder / name).exists()]
    if standing and not overwrite:
        raise DatasetError(
            f"{folder} has {', '.join(standing)} already; name another folder with --out, or "
            "replace them with --overwrite"
        )
    with staged(folder) as new:
        yield new
