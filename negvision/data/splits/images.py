"""Split lists of images with one class per image."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from negvision.data.formats.text_files import composed, numbered_lines, parse_labeled
from negvision.data.images import IMAGE_SUFFIXES
from negvision.data.images.listing import is_stray
from negvision.errors import DatasetError, Problems


class LabeledImage(NamedTuple):
    """An image file, as its dataset names it, and the name of its class."""

    path: str
    name: str


def read_image_list(path: Path, class_names: Sequence[str]) -> list[LabeledImage]:
    """The images of a text file with one ``path label`` per line.

    Args:
        path: The file. Paths in it may contain spaces.
        class_names: The name of each label.

    Raises:
        DatasetError: A line has another form, a label has no name, or there is no line.
    """
    images, problems = [], Problems()
    for place, line in numbered_lines(str(path)):
        parsed = parse_labeled(place, line, problems)
        if parsed is None:
            continue
        image, label = parsed
        if 0 <= label < len(class_names):
            images.append(LabeledImage(image, class_names[label]))
        else:
            problems.add(f"label that is not in 0 ... {len(class_names) - 1}", place, line)
    if problems:
        raise DatasetError(
            f"{path}: a list of images has one 'path label' per line:\n{problems.report()}"
        )
    if not images:
        raise DatasetError(f"{path}: the list is empty; write one 'path label' per line")
    return images


def read_image_folder(folder: Path) -> list[LabeledImage]:
    """The images of a folder with one folder per class.

    Files without an image suffix and hidden files and folders are skipped.

    Returns:
        In the order of classes and paths, which are relative to ``folder``.

    Raises:
        DatasetError: There is no image.
    """
    images = [
        LabeledImage(path.relative_to(folder).as_posix(), composed(child.name))
        for child in sorted(folder.iterdir())
        if child.is_dir()
        for path in sorted(child.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not is_stray(path.relative_to(folder).as_posix())
    ]
    if not images:
        raise DatasetError(
            f"{folder}: no folder in it has an image ({', '.join(IMAGE_SUFFIXES)}); a dataset has "
            "one folder per class, such as train/cat/1.jpg"
        )
    return images


def split_images(
    images: Sequence[LabeledImage], remaining: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The lines of an ID and an OOD list.

    Args:
        images: All images.
        remaining: Classes that are not held out; the index of each is its new label.

    Returns:
        ``path label`` of the images of ``remaining`` classes, and ``path -1`` of the others.

    Example:
        >>> images = [LabeledImage("1.png", "ship"), LabeledImage("2.png", "cat")]
        >>> split_images(images, ["car", "ship"])
        (['1.png 1'], ['2.png -1'])
    """
    labels = {name: label for label, name in enumerate(remaining)}
    known = [f"{path} {labels[name]}" for path, name in images if name in labels]
    return known, [f"{path} -1" for path, name in images if name not in labels]


def join_image_parts(
    train: tuple[Path, Sequence[LabeledImage]],
    evaluation: tuple[Path, Sequence[LabeledImage]],
    remaining: Collection[str],
) -> dict[str, list[str]]:
    """The lists for training and evaluation.

    Args:
        train: Path of the dataset to train on, and its images.
        evaluation: Likewise for the dataset to evaluate on; it may be the same.
        remaining: Classes that are not held out.

    Returns:
        File name -> lines: ``TRAIN_id.txt``, ``EVALUATION_id.txt`` and ``EVALUATION_ood.txt``, with
        the names of the datasets for the words in capitals.

    Raises:
        DatasetError: There is nothing left to train on, no ID or no OOD image to evaluate on, or
            two datasets have one name.
    """
    (train_path, train_images), (path, images) = train, evaluation
    require_two_names(train_path, path)
    train_known, _ = split_images(train_images, list(remaining))
    known, held_out = split_images(images, list(remaining))
    for where, lines, what in (
        (train_path, train_known, "nothing is left to train on: no image is"),
        (path, known, "there is no ID image to evaluate on: none is"),
    ):
        if not lines:
            raise DatasetError(
                f"{where}: {what} of a class that is not held out ({', '.join(remaining)})"
            )
    if not held_out:
        raise DatasetError(
            f"{path}: there is no OOD image to evaluate on: none of its {len(images):,} images is "
            "of a held-out class. Hold out other classes, or name a dataset with such images with "
            "--test"
        )
    return {
        f"{train_path.stem}_id.txt": train_known,
        f"{path.stem}_id.txt": known,
        f"{path.stem}_ood.txt": held_out,
    }


def require_two_names(train: Path, evaluation: Path) -> None:
    """Raise DatasetError if two different datasets would write parts of the same name."""
    if train.stem == evaluation.stem and not os.path.samefile(train, evaluation):
        raise DatasetError(
            f"{train} and {evaluation} have one name, and so would their parts: rename one of them"
        )
