"""Backgrounds and light: photographs from the wheels of dependencies, cut into disjoint regions.

A validation image must not show a background that training has seen, so each photograph is divided
once: the left part is for training, the right part is halved into validation (top) and test.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

SPLITS = ("train", "val", "test")

# Package -> files in it.
PHOTOS = {
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "matplotlib": ("mpl-data/sample_data/grace_hopper.jpg",),
    "skimage": (
        "data/astronaut.png",
        "data/brick.png",
        "data/chelsea.png",
        "data/coffee.png",
        "data/grass.png",
        "data/gravel.png",
        "data/hubble_deep_field.jpg",
        "data/motorcycle_left.png",
        "data/rocket.jpg",
    ),
}
_INSTALL_NAMES = {"sklearn": "scikit-learn", "skimage": "scikit-image"}
_TRAIN_WIDTH = 0.6
_LUMINANCE = np.array([0.114, 0.587, 0.299], dtype=np.float32)  # of BGR


@dataclass(frozen=True)
class Photo:
    """One photograph: ``pixels`` is H x W x 3 uint8 BGR."""

    name: str
    pixels: np.ndarray

    def region(self, split: str) -> np.ndarray:
        """The part of the photograph for ``split``; parts of splits are disjoint."""
        height, width = self.pixels.shape[:2]
        column, row = round(width * _TRAIN_WIDTH), height // 2
        if split == "train":
            return self.pixels[:, :column]
        if split == "val":
            return self.pixels[:row, column:]
        if split == "test":
            return self.pixels[row:, column:]
        raise ValueError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")


def photo_paths() -> list[Path]:
    """Paths of all photographs, in a fixed order.

    Raises:
        FileNotFoundError: A package, or an image in it, is not installed.
    """
    return [find_package_file(package, file) for package, files in PHOTOS.items() for file in files]


def find_package_file(package: str, file: str) -> Path:
    """The path of a file inside an installed package, which is not imported.

    Raises:
        FileNotFoundError: The package or the file is missing.
    """
    spec = find_spec(package)
    install = f"pip install {_INSTALL_NAMES.get(package, package)}"
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f"the generated datasets need the package {package!r}, which is not installed; install "
            f"it with: {install}"
        )
    path = Path(spec.origin).parent / file
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing from the installed {package!r}; reinstall it with: "
            f"{install} --force-reinstall --no-deps"
        )
    return path


@cache
def load_photos() -> tuple[Photo, ...]:
    """All photographs, decoded once per process."""
    return tuple(Photo(path.stem, np.asarray(cv2.imread(str(path)))) for path in photo_paths())


def random_crop(rng: np.random.Generator, split: str, height: int, width: int) -> np.ndarray:
    """A random piece of a random photograph, flipped and recolored.

    Args:
        rng: The only source of randomness.
        split: The regions to cut from.
        height, width: Of the result, in pixels.

    Returns:
        height x width x 3 float32 BGR in 0..255.
    """
    photos = load_photos()
    region = photos[rng.integers(len(photos))].region(split)
    # Up to the largest window of this shape, but never the photograph in miniature.
    limit = min(region.shape[0] / height, region.shape[1] / width, 2.0)
    scale = min(limit, max(0.4, limit * rng.uniform(0.55, 1.0)))
    h, w = max(2, int(height * scale)), max(2, int(width * scale))
    top = rng.integers(region.shape[0] - h + 1)
    left = rng.integers(region.shape[1] - w + 1)
    crop = region[top : top + h, left : left + w]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    interpolation = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    crop = cv2.resize(np.ascontiguousarray(crop), (width, height), interpolation=interpolation)
    return _recolor(rng, crop.astype(np.float32))


def _recolor(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Change contrast, brightness, saturation and white balance a little."""
    gray = image.mean(axis=2, keepdims=True)
    image = gray + (image - gray) * rng.uniform(0.5, 1.2)
    mean = float(gray.mean())
    image = mean + (image - mean) * rng.uniform(0.5, 0.9)
    # Very dark images become lighter and very bright ones darker, so that strokes stand out.
    image += 0.5 * (rng.uniform(70, 185) - mean)
    image *= rng.uniform(0.9, 1.1, size=3).astype(np.float32)
    return np.clip(image, 0, 255, dtype=np.float32)


def contrasting_color(rng: np.random.Generator, window: np.ndarray) -> np.ndarray:
    """A BGR color that is clearly darker or lighter than the pixels below it."""
    luminance = window @ _LUMINANCE
    mean, spread = float(luminance.mean()), float(luminance.std())
    gap = 75 + spread
    lighter, darker = mean + gap <= 245, mean - gap >= 10
    if lighter and darker:
        lighter = rng.random() < 0.5
    elif not lighter and not darker:
        lighter = mean < 128
    level = (
        rng.uniform(min(mean + gap, 245), 252) if lighter else rng.uniform(5, max(10, mean - gap))
    )
    tint = rng.uniform(-1, 1, size=3).astype(np.float32)
    tint -= tint @ _LUMINANCE
    return np.clip(level + rng.uniform(0, 70) * tint, 0, 255).astype(np.float32)


def uneven_light(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Add uneven light and sensor noise."""
    side = image.shape[0]
    slope_y, slope_x = rng.uniform(-0.12, 0.12, size=2)
    ramp = np.linspace(-1, 1, side, dtype=np.float32)
    image = image * (1 + slope_y * ramp[:, None, None] + slope_x * ramp[None, :, None])
    image += rng.uniform(0, 5) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
