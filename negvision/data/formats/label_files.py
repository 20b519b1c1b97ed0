"""Read label images and the files that name their ids."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence

import cv2
import numpy as np
from mmengine import fileio
from PIL import Image

from negvision.data.formats.text_files import composed, parse_count
from negvision.data.images.files import read_bytes
from negvision.data.images.header import MAX_PIXELS
from negvision.data.images.integrity import require_size
from negvision.errors import DatasetError, Problems, did_you_mean

# The id of pixels without a class, by mmseg's convention.
VOID = 255


def read_text(path: str, backend_args: dict | None = None) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        FileNotFoundError: There is no such file.
        DatasetError: It is not UTF-8 text.
    """
    try:
        return fileio.get_text(path, backend_args=backend_args).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text ({error.reason}).") from None


def read_classes_file(path: str, backend_args: dict | None = None) -> dict[str, int]:
    """The classes of a list with one ``id name`` per line.

    Args:
        path: The list. Blank lines and lines that begin with ``#`` are skipped; tabs count as
            spaces.
        backend_args: File backend of MMEngine; a local file by default.

    Returns:
        Name to id, in the order of the ids. Names may contain spaces.

    Raises:
        DatasetError: A line has another form, an id is not in 0 ... 254, an id or a name occurs
            twice, or there is no class.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w") as file:
        ...     print("0 sky\\n1 road", file=file, flush=True)
        ...     read_classes_file(file.name)
        {'sky': 0, 'road': 1}
    """
    ids: dict[str, int] = {}
    problems = Problems()
    for number, line in enumerate(read_text(path, backend_args).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"line {number}"
        first, name = [*line.split(None, 1), ""][:2]
        name = composed(name.strip())
        class_id = parse_count(first)
        if class_id is None or not name:
            problems.add('line that is not "id name"', where, line)
        elif class_id >= VOID:
            problems.add("id that is not in 0 ... 254", where, line)
        elif class_id in ids.values():
            problems.add("id that occurs twice", where, line)
        elif name in ids:
            problems.add("name that occurs twice", where, line)
        else:
            ids[name] = class_id
    if problems:
        raise DatasetError(
            f"{path}: a list of classes has one 'id name' per line, each once:\n{problems.report()}"
        )
    if not ids:
        raise DatasetError(f"{path}: there is no class in it; write one 'id name' per line.")
    return dict(sorted(ids.items(), key=lambda item: item[1]))


def read_label_image(
    path: str,
    size: tuple[int, int] | None = None,
    backend_args: dict | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """The ids of a label image.

    Args:
        path: A PNG, or another lossless format, with one channel: gray values or palette indices
            are the ids.
        size: (H, W) of its image, which it must have.
        backend_args: File backend of MMEngine; a local file by default.
        max_pixels: Height x width above which it is refused before it is decoded.

    Returns:
        (H, W), uint8.

    Raises:
        DatasetError: The file is missing, cannot be decoded, is too large, has several channels,
            ids beyond 255, or another size.
    """
    try:
        data = read_bytes(path, backend_args)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such label image.", kind="missing label image") from None
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read: {error.strerror or error}.", kind="unreadable file"
        ) from None
    ids = decode_labels(data, path, max_pixels)
    if size is not None and ids.shape != tuple(size):
        raise DatasetError(
            f"{path}: the label image is {ids.shape[1]} x {ids.shape[0]} pixels (width x height), "
            f"its image {size[1]} x {size[0]}: labels would lie in the wrong place.",
            kind="label image of another size than its image",
        )
    return ids


def decode_labels(
    data: bytes, path: str, max_pixels: int = MAX_PIXELS, equal_channels: bool = False
) -> np.ndarray:
    """The ids of an encoded label image, as :func:`read_label_image` returns them.

    Args:
        data: The content of the file.
        path: Named in errors.
        max_pixels: As there.
        equal_channels: Accept colors that are gray, as tools write that know only color images.

    Raises:
        DatasetError: As there.
    """
    header = require_size(data, path, max_pixels)
    try:
        # Pillow keeps palette indices; OpenCV would return their colors. Only the decoder for the
        # format in the header is tried.
        with Image.open(io.BytesIO(data), formats=(header.kind,)) as image:
            ids = np.array(image)
    except Exception as error:  # Pillow raises nearly anything for damaged files
        raise DatasetError(
            f"{path}: not a complete label image ({error}).", kind="damaged label image"
        ) from None
    if equal_channels and ids.ndim == 3 and (ids[..., :1] == ids[..., :3]).all():
        ids = np.ascontiguousarray(ids[..., 0])
    if ids.ndim != 2:
        raise DatasetError(
            f"{path}: a label image has one channel of ids, this one has {ids.shape[2]}: does "
            "it show the classes in color?",
            kind="label image of several channels",
        )
    if ids.dtype != np.uint8:
        if ids.max(initial=0) > VOID or ids.min(initial=0) < 0:
            raise DatasetError(
                f"{path}: ids are 0 ... 255, this label image holds {ids.min()} ... {ids.max()}.",
                kind="label image with ids beyond 255",
            )
        ids = ids.astype(np.uint8)
    return ids


def unknown_ids(ids: np.ndarray, known: Iterable[int]) -> dict[int, int]:
    """The number of pixels of each id in a label image that is neither ``known`` nor 255."""
    unknown = np.ones(256, np.uint8)
    unknown[[*known, VOID]] = 0
    if not cv2.LUT(ids, unknown).any():  # several times faster than counting
        return {}
    counts = np.bincount(ids.ravel(), minlength=256) * unknown
    return {int(value): int(counts[value]) for value in counts.nonzero()[0]}


def resolve_classes(
    wanted: Sequence[str | int], ids: Mapping[str, int] | None, what: str
) -> list[int]:
    """The ids of classes given by name or id.

    Args:
        wanted: Names, or ids.
        ids: Name to id of all classes; None if the dataset has no names.
        what: The option, for errors, such as "LoadOODMap: ood_classes".

    Raises:
        DatasetError: A name is no class; the nearest names are shown.
    """
    wanted = [name if isinstance(name, int) else composed(name) for name in wanted]
    names = [name for name in wanted if not isinstance(name, int)]
    if ids is None:
        if not names:
            return [name for name in wanted if isinstance(name, int)]
        raise DatasetError(
            f"{what} has the name {names[0]!r}, but this dataset does not name the ids of its "
            "classes. Give ids instead, or use negvision.SegDataset"
        )
    unknown = [name for name in names if name not in ids]
    if unknown:
        lines = [f"  {name!r}{did_you_mean(str(name), ids)}" for name in unknown]
        raise DatasetError(
            f"{what}: {len(unknown)} of {len(wanted)} are no class of the label images:\n"
            + "\n".join(lines)
            + f"\nThe {len(ids)} classes: {', '.join(map(repr, ids))}."
        )
    return [name if isinstance(name, int) else ids[name] for name in wanted]
