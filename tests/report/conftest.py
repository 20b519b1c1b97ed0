"""Scored samples of all three tasks, with images on disk, and a browser."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.chromium import start_chromium
from selenium import webdriver

from negvision.ood.records import OODRecords

CLASSES = ("hearts", "spades", "clubs")


def write_images(folder: Path, count: int, size: tuple[int, int] = (96, 128)) -> list[str]:
    """Smooth random pictures; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    paths = []
    for index in range(count):
        rough = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        path = folder / f"{index:03d}.png"
        cv2.imwrite(str(path), cv2.resize(rough, size[::-1], interpolation=cv2.INTER_CUBIC))
        paths.append(str(path))
    return paths


def _scores(rng: np.random.Generator, is_ood: np.ndarray) -> dict[str, np.ndarray]:
    shifts = {"abet": 1.6, "energy": 1.1, "msp": 0.7}
    return {
        name: (rng.normal(size=len(is_ood)) + shift * is_ood).astype(np.float32)
        for name, shift in shifts.items()
    }


def box_records(folder: Path, num_images: int = 40) -> OODRecords:
    rng = np.random.default_rng(1)
    image = np.sort(rng.integers(0, num_images, 6 * num_images))
    is_ood = image >= 0.7 * num_images
    corner = rng.uniform(0, 60, (len(image), 2))
    size = rng.uniform(8, 36, (len(image), 2))
    return OODRecords(
        task="boxes",
        scores=_scores(rng, is_ood),
        is_ood=is_ood,
        image=image,
        paths=write_images(folder, num_images),
        classes=CLASSES,
        boxes=np.hstack([corner, corner + size]).astype(np.float32),
        labels=rng.integers(0, len(CLASSES), len(image)),
        strata={"box size": (("small", "medium", "large"), (size.prod(1) // 433).astype(np.int64))},
        notes={"id_ap": 0.7312, "score_threshold": 0.4, "ood_threshold": 1.5, "images": 1234},
    )


def pixel_records(folder: Path, num_images: int = 6) -> OODRecords:
    rng = np.random.default_rng(2)
    image = np.repeat(np.arange(num_images), 300)
    is_ood = rng.random(len(image)) < 0.2
    rows, columns = np.mgrid[0:24, 0:32]
    heat = {
        index: (3 * np.exp(-((rows - 8) ** 2 + (columns - 4 * index) ** 2) / 60) - 1).astype("f4")
        for index in range(num_images)
    }
    return OODRecords(
        task="pixels",
        scores=_scores(rng, is_ood),
        is_ood=is_ood,
        image=image,
        paths=write_images(folder, num_images),
        classes=CLASSES,
        weights=np.where(is_ood, 3.0, 40.0),
        strata={"predicted class": (CLASSES, rng.integers(0, len(CLASSES), len(image)))},
        notes={"mIoU": 0.55, "f1_threshold": 1.2, "figures": "of every pixel"},
        heat=heat,
    )


def image_records(folder: Path, num_images: int = 30) -> OODRecords:
    rng = np.random.default_rng(3)
    is_ood = np.arange(num_images) % 3 == 0
    return OODRecords(
        task="images",
        scores=_scores(rng, is_ood),
        is_ood=is_ood,
        image=np.arange(num_images),
        paths=write_images(folder, num_images, (32, 32)),
        classes=CLASSES,
        labels=rng.integers(0, len(CLASSES), num_images),
        notes={"accuracy": 0.9},
    )


RECORDS = {"boxes": box_records, "pixels": pixel_records, "images": image_records}


@pytest.fixture
def make_records(tmp_path: Path) -> Callable[..., OODRecords]:
    """``make_records(task, num_images=...)``."""
    return lambda task, **kwargs: RECORDS[task](tmp_path / "pictures", **kwargs)


@pytest.fixture(params=RECORDS)
def records(request: pytest.FixtureRequest, make_records) -> OODRecords:
    """Of each task."""
    return make_records(request.param)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    browser = start_chromium(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.quit()
