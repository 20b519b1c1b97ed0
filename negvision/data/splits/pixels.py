"""Relabel label images: held-out classes become void in one copy, positives in another."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from negvision.data.formats.label_files import VOID, read_label_image, unknown_ids
from negvision.data.images.listing import is_stray
from negvision.errors import DatasetError


class LabelTables(NamedTuple):
    """New values for each id of a label image; both (256,) uint8.

    Attributes:
        classes: The label of a remaining class; 255 for held-out and void.
        ood: 0 for a remaining class, 1 for a held-out one; 255 for void.
    """

    classes: np.ndarray
    ood: np.ndarray


class PixelCounts(NamedTuple):
    """Number of pixels of each kind."""

    known: int
    held_out: int
    void: int


def label_tables(
    ids: Mapping[str, int], remaining: Sequence[str], void: Collection[str]
) -> LabelTables:
    """The tables that relabel a dataset.

    Args:
        ids: Name -> id of all classes.
        remaining: Classes that stay; the index of each is its new label.
        void: Classes to ignore. Classes in neither are held out.

    Example:
        >>> tables = label_tables({"road": 0, "bicyclist": 1, "car": 2}, ["road", "car"], [])
        >>> tables.classes[[0, 1, 2, 255]].tolist(), tables.ood[[0, 1, 2, 255]].tolist()
        ([0, 255, 1, 255], [0, 1, 0, 255])
    """
    classes, ood = np.full(256, VOID, np.uint8), np.full(256, VOID, np.uint8)
    for name, number in ids.items():
        if name in remaining:
            classes[number], ood[number] = remaining.index(name), 0
        elif name not in void:
            ood[number] = 1
    return LabelTables(classes, ood)


def write_label_images(
    labels: Path, out: Path, ids: Mapping[str, int], tables: LabelTables, drop_images: bool
) -> dict[str, PixelCounts]:
    """Relabel all ``*.png`` below a folder, in parallel.

    Writes ``out/masks`` (classes), ``out/ood`` (OOD maps) and ``out/images.txt``: the names of the
    images without their suffixes, one a line, which mmseg's ``ann_file`` takes.

    Args:
        labels: Folder of PNG files whose gray values or palette indices are ids.
        out: An existing folder.
        ids: Name -> id of all classes.
        tables: The result of :func:`label_tables`.
        drop_images: Leave out images with any held-out pixel.

    Returns:
        Name -> counts of every image, including those left out.

    Raises:
        DatasetError: There is no label image; one is damaged, has colors or ids without a class;
            no pixel is held out, or nothing is left to train on.
    """
    files = (path.relative_to(labels) for path in labels.rglob("*.png"))
    names = sorted(f.with_suffix("").as_posix() for f in files if not is_stray(f.as_posix()))
    if not names:
        raise DatasetError(f"{labels}: there is no label image (*.png) in it")
    for folder in ("masks", "ood"):
        for parent in {(out / folder / name).parent for name in names}:
            parent.mkdir(parents=True, exist_ok=True)
    relabel = partial(
        _relabel, labels=labels, out=out, ids=ids.values(), tables=tables, drop_images=drop_images
    )
    # Threads: Pillow decodes and compresses without the GIL.
    with ThreadPoolExecutor() as pool:
        # disable=None: show the bar only on a terminal.
        counted = tqdm(pool.map(relabel, names), "label images", len(names), disable=None)
        counts = dict(zip(names, counted, strict=True))
    kept = [name for name in names if not (drop_images and counts[name].held_out)]
    if not any(count.held_out for count in counts.values()):
        raise DatasetError(
            f"{labels}: no pixel of {len(names):,} label images is of a held-out class, so there "
            "is no OOD image among them; hold out other classes"
        )
    if not any(counts[name].known for name in kept):
        raise DatasetError(
            f"{labels}: nothing is left to train on: {len(names) - len(kept):,} of {len(names):,} "
            "images were dropped, and no pixel of the others is of a class that stays. Hold out "
            "fewer classes" + (", or leave out --drop-images" if drop_images else "")
        )
    (out / "images.txt").write_text("".join(f"{name}\n" for name in kept), "utf-8")
    return counts


def _relabel(
    name: str, labels: Path, out: Path, ids: Collection[int], tables: LabelTables, drop_images: bool
) -> PixelCounts:
    path = labels / f"{name}.png"
    image = read_label_image(str(path))
    unknown = unknown_ids(image, ids)
    if unknown:
        raise DatasetError(
            f"{path}: {sum(unknown.values()):,} of {image.size:,} pixels have an id that no class "
            f"has: {', '.join(f'{i} ({n:,} x)' for i, n in unknown.items())}. Name all ids in the "
            "file of --classes; those that mean nothing also with --void."
        )
    ood = tables.ood[image]
    known, held_out = int((ood == 0).sum()), int((ood == 1).sum())
    if not (drop_images and held_out):
        for folder, pixels in (("masks", tables.classes[image]), ("ood", ood)):
            Image.fromarray(pixels).save(out / folder / f"{name}.png")
    return PixelCounts(known, held_out, image.size - known - held_out)
