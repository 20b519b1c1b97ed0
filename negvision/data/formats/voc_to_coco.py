"""Convert a dataset in the Pascal VOC layout to COCO annotation files."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from negvision.data.formats.paths import LEAVES_ROOT, leaves_root
from negvision.data.formats.text_files import numbered_lines
from negvision.data.formats.voc import VOCImage, VOCObject, read_voc_file
from negvision.data.images import IMAGE_SUFFIXES
from negvision.data.images.header import read_header
from negvision.errors import DatasetError, MissingDataError, Problems

ANNOTATIONS, IMAGES, LISTS = "Annotations", "JPEGImages", "ImageSets/Main"
# Room for a thumbnail and a color profile in front of the size.
_HEADER_BYTES = 1 << 20


def voc_to_coco(root: Path, splits: Sequence[str], zero_based: bool = False) -> dict[str, dict]:
    """The COCO content of each split of a VOC dataset.

    Categories are the classes of all splits in alphabetical order, with ids from 1, the same in all
    files. Difficult objects become crowds to ignore: neither objects nor background. An image has
    the name of its annotation file, or else the annotation's ``filename``.

    Args:
        root: Folder with ``Annotations``, ``JPEGImages`` and ``ImageSets/Main``.
        splits: Names of lists in ``ImageSets/Main``.
        zero_based: As in :func:`negvision.data.formats.voc.read_voc_file`.

    Returns:
        Split -> COCO content; ``file_name`` is relative to ``JPEGImages``.

    Raises:
        MissingDataError: A folder or list is missing.
        DatasetError: There are problems (all are counted by kind), or no object.
    """
    for name in (ANNOTATIONS, IMAGES, *(f"{LISTS}/{split}.txt" for split in splits)):
        if not (root / name).exists():
            raise MissingDataError(f"{root / name} does not exist")
    problems = Problems()
    images = {path.name: path for path in (root / IMAGES).iterdir()}
    read = {split: list(_read(root, split, images, zero_based, problems)) for split in splits}
    if problems:
        hint = ""
        if problems.counts["box that begins before pixel 1"]:
            hint = " VOC counts pixels from 1; if a tool counted from 0, add --zero-based."
        raise DatasetError(
            f"{root}: {sum(problems.counts.values()):,} problems, so nothing was written:\n"
            f"{problems.report()}\nCorrect the files, or remove their names from the lists.{hint}"
        )
    names = {
        item.name for entries in read.values() for _, image in entries for item in image.objects
    }
    if not names:
        raise DatasetError(f"{root}: there is no object in {', '.join(splits)}")
    ids = {name: number for number, name in enumerate(sorted(names), 1)}
    return {split: _content(entries, ids) for split, entries in read.items()}


def find_splits(root: Path) -> list[str]:
    """The splits among train, val and test that have a list.

    Raises:
        MissingDataError: There is none.
    """
    found = [s for s in ("train", "val", "test") if (root / LISTS / f"{s}.txt").is_file()]
    if not found:
        raise MissingDataError(
            f"{root / LISTS} has no train.txt, val.txt or test.txt, which list the annotations of "
            "each split, one per line without .xml; write them, or name other lists with --splits"
        )
    return found


def _read(
    root: Path, split: str, images: dict[str, Path], zero_based: bool, problems: Problems
) -> Iterator[tuple[str, VOCImage]]:
    """The image file name and annotation for each line of a list."""
    seen = set()
    for place, line in numbered_lines(str(root / LISTS / f"{split}.txt")):
        if leaves_root(line, str(root / ANNOTATIONS), str(root)):
            problems.add(LEAVES_ROOT, place, line)
            continue
        path = root / ANNOTATIONS / f"{line}.xml"
        if line in seen:
            problems.add("name that is in its list twice", place, line)
        elif not path.is_file():
            problems.add("missing annotation file", place, str(path))
        else:
            try:
                image = read_voc_file(path, problems, zero_based)
            except DatasetError as error:
                problems.add("annotation file that cannot be read", str(error))
                continue
            found = _find_image(path, image, images, problems)
            if found is not None:
                yield found
        seen.add(line)


def _find_image(
    path: Path, image: VOCImage, images: dict[str, Path], problems: Problems
) -> tuple[str, VOCImage] | None:
    # `filename` may include a folder of another machine.
    named = PurePosixPath(image.file_name.replace("\\", "/")).name
    own = [path.stem + suffix for suffix in (*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES))]
    candidates = [name for name in own if name in images]
    if named in images and (named in candidates or not candidates):
        candidates = [named]
    if len(candidates) != 1:
        kind = "annotation with several images" if candidates else "missing image file"
        problems.add(kind, str(path), candidates or [path.stem, image.file_name])
        return None
    file_name = candidates[0]
    if image.width < 1 or image.height < 1:
        with open(images[file_name], "rb") as file:
            header = read_header(file.read(_HEADER_BYTES))
        if header is None or not header.pixels:
            problems.add("size that neither annotation nor image has", str(path))
            return None
        image = image._replace(width=header.width, height=header.height)
    return file_name, image


def _content(entries: Sequence[tuple[str, VOCImage]], ids: dict[str, int]) -> dict:
    images, annotations = [], []
    for image_id, (file_name, image) in enumerate(entries, 1):
        size = {"width": image.width, "height": image.height}
        images.append({"id": image_id, "file_name": file_name, **size})
        for item in image.objects:
            annotations.append(_annotation(item, len(annotations) + 1, image_id, ids))
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _annotation(item: VOCObject, number: int, image_id: int, ids: dict[str, int]) -> dict:
    _, _, width, height = item.box
    return {
        "id": number,
        "image_id": image_id,
        "category_id": ids[item.name],
        "bbox": list(item.box),
        "area": width * height,
        "iscrowd": int(item.difficult),  # COCO's only way to ignore an object
        **({"ignore": 1} if item.difficult else {}),
    }
