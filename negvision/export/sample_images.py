"""Images to compare an exported model on: generated ones, or files of a folder."""

import itertools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from negvision.data.images import IMAGE_SUFFIXES
from negvision.data.images.listing import PassedOver
from negvision.errors import ExportError
from negvision.toy.characters import compose_character
from negvision.toy.photos import random_crop
from negvision.toy.scene import compose_scene

FEWEST = 8


def scenes(count: int) -> dict[str, np.ndarray]:
    """Photographs with no, some and many digits, of several shapes: (H, W, 3) uint8, by name.

    Some neighbors have the same size, so that segmentors run batches too.
    """
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}
    for number in range(-(-count // len(_KINDS))):
        for name, draw in _KINDS.items():
            pixels = np.clip(draw(rng), 0, 255).astype(np.uint8)
            found[f"{number}_{name}"] = np.ascontiguousarray(pixels)
    return dict(list(found.items())[:count])


def crops(count: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Characters as crops of ``size`` (height, width): (H, W, 3) uint8, by name."""
    rng = np.random.default_rng(0)
    found = {}
    for number, character in zip(range(count), itertools.cycle("AHKMRSXZ48"), strict=False):
        pixels = compose_character(rng, "test", character, max(size))
        pixels = np.clip(pixels, 0, 255).astype(np.uint8)
        found[f"{number}_{character}"] = cv2.resize(pixels, size[::-1])
    return found


def write_samples(folder: Path, count: int, size: tuple[int, int] | None) -> list[Path]:
    """Write :func:`crops` of ``size``, or else :func:`scenes`, as PNG files."""
    files = []
    for name, pixels in (crops(count, size) if size else scenes(count)).items():
        files.append(folder / f"{name}.png")
        cv2.imwrite(str(files[-1]), pixels)
    return files


def images_in(folder: Path) -> list[Path]:
    """The images of a folder, sorted by name.

    Raises:
        ExportError: There are fewer than ``FEWEST``.
    """
    if not folder.is_dir():
        raise ExportError(f"--images {folder}: no such folder")
    files = list(map(Path, PassedOver().chosen(sorted(map(str, folder.iterdir())))))
    if len(files) < FEWEST:
        raise ExportError(
            f"--images {folder}: {len(files)} images ({', '.join(IMAGE_SUFFIXES)}); a comparison "
            f"needs at least {FEWEST}"
        )
    return files


def _scene(rng: np.random.Generator, side: int, count: int, crowd: bool = False) -> np.ndarray:
    digits = rng.integers(0, 10, count).tolist()
    return compose_scene(rng, "test", side, digits, 3 if crowd else None)[0]


_KINDS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "empty": lambda rng: random_crop(rng, "test", 192, 192),
    "few": lambda rng: _scene(rng, 192, 3),
    "crowded": lambda rng: _scene(rng, 320, 30, crowd=True),
    "crowded_2": lambda rng: _scene(rng, 320, 24, crowd=True),
    "wide": lambda rng: _scene(rng, 384, 12)[:160],
    "wide_2": lambda rng: _scene(rng, 384, 12)[-160:],
    "tall": lambda rng: _scene(rng, 384, 12)[:, :150],
    "empty_wide": lambda rng: random_crop(rng, "test", 120, 300),
    "small": lambda rng: _scene(rng, 96, 3),
    "odd": lambda rng: _scene(rng, 256, 8)[:211, :187],
}
