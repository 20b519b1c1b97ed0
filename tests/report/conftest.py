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
# Images, and samples in each.
COUNTS = {"boxes": (40, 6), "pixels": (6, 300), "images": (30, 1)}


@pytest.fixture
def make_records(tmp_path: Path) -> Callable[..., OODRecords]:
    """``make_records(task, num_images=...)``."""

    def make(task: str, num_images: int = 0) -> OODRecords:
        rng = np.random.default_rng(1)
        num_images, per_image = num_images or COUNTS[task][0], COUNTS[task][1]
        image = np.repeat(np.arange(num_images), per_image)
        is_ood = {
            "boxes": image >= 0.7 * num_images,
            "pixels": rng.random(len(image)) < 0.2,
            "images": image % 3 == 0,
        }[task]
        labels = rng.integers(0, len(CLASSES), len(image))
        corner, size = (rng.uniform(*ends, (len(image), 2)) for ends in ((0, 60), (8, 36)))
        rows, columns = np.mgrid[0:24, 0:32]
        of_task = {
            "boxes": lambda: {
                "boxes": np.hstack([corner, corner + size]).astype(np.float32),
                "strata": {"box size": (("small", "medium", "large"), labels)},
                "notes": {"id_ap": 0.7312, "ood_threshold": 1.5, "images": 1234},
            },
            "pixels": lambda: {
                "weights": np.where(is_ood, 3.0, 40.0),
                "strata": {"predicted class": (CLASSES, labels)},
                "notes": {"mIoU": 0.55, "f1_threshold": 1.2, "metrics": "of every pixel"},
                "heat": {
                    k: (3 * np.exp(-((rows - 8) ** 2 + (columns - 4 * k) ** 2) / 60) - 1).astype(
                        "f4"
                    )
                    for k in range(num_images)
                },
            },
            "images": lambda: {"notes": {"accuracy": 0.9}},
        }[task]()
        paths = []
        for index in range(num_images):
            rough = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            paths.append(str(tmp_path / f"{index:03d}.png"))
            cv2.imwrite(paths[-1], cv2.resize(rough, (128, 96), interpolation=cv2.INTER_CUBIC))
        scores = {
            name: (rng.normal(size=len(image)) + shift * is_ood).astype(np.float32)
            for name, shift in {"abet": 1.6, "energy": 1.1, "msp": 0.7}.items()
        }
        if task != "pixels":
            of_task["labels"] = labels
        return OODRecords(task, scores, is_ood, image, paths, CLASSES, **of_task)

    return make


@pytest.fixture(params=COUNTS)
def records(request: pytest.FixtureRequest, make_records) -> OODRecords:
    """Of each task."""
    return make_records(request.param)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    browser = start_chromium(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.quit()
