"""Pictures to compare on: embedded ones, or files of a folder."""

from pathlib import Path

import cv2
import numpy as np

from negvision.data.character_scene import compose_character
from negvision.data.photos import random_crop
from negvision.data.scene import compose_scene
from negvision.errors import ExportError

FEWEST = 8
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def embedded_scenes(folder: Path) -> list[Path]:
    """Write photographs with no, some and many digits, square and not, into ``folder``.

    Two of a size follow each other, so that segmentors have batches too.
    """
    rng = np.random.default_rng(0)
    pictures = {
        "empty": random_crop(rng, "test", 192, 192),
        "few": _scene(rng, 192, 3),
        "crowded": _scene(rng, 320, 30, crowd=True),
        "crowded_2": _scene(rng, 320, 24, crowd=True),
        "wide": _scene(rng, 384, 12)[:160],
        "wide_2": _scene(rng, 384, 12)[-160:],
        "tall": _scene(rng, 384, 12)[:, :150],
        "empty_wide": random_crop(rng, "test", 120, 300),
        "small": _scene(rng, 96, 3),
        "odd": _scene(rng, 256, 8)[:211, :187],
    }
    return [_write(folder / f"{name}.png", pixels) for name, pixels in pictures.items()]


def embedded_crops(folder: Path, size: tuple[int, int]) -> list[Path]:
    """Write characters as crops of ``size`` (height, width) into ``folder``."""
    rng = np.random.default_rng(0)
    files = []
    for character in "AHKMRSXZ48":
        pixels = compose_character(rng, "test", character, max(size))
        pixels = cv2.resize(np.clip(pixels, 0, 255).astype(np.uint8), size[::-1])
        files.append(_write(folder / f"{character}.png", pixels))
    return files


def pictures_in(folder: Path) -> list[Path]:
    """The images of a folder, in order of their names.

    Raises:
        ExportError: There are fewer than ``FEWEST``.
    """
    if not folder.is_dir():
        raise ExportError(f"--images {folder}: no such folder")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    if len(files) < FEWEST:
        raise ExportError(
            f"--images {folder}: {len(files)} images ({', '.join(_SUFFIXES)}); a comparison takes "
            f"{FEWEST} at least"
        )
    return files


def _scene(rng: np.random.Generator, side: int, count: int, crowd: bool = False) -> np.ndarray:
    digits = rng.integers(0, 10, count).tolist()
    return compose_scene(rng, "test", side, digits, 3 if crowd else None)[0]


def _write(path: Path, pixels: np.ndarray) -> Path:
    cv2.imwrite(str(path), np.clip(pixels, 0, 255).astype(np.uint8))
    return path
