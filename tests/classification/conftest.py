"""Packs and folders of tiny images, and the messages that datasets log."""

from pathlib import Path

import cv2
import numpy as np
import pytest

PIPELINE = [{"type": "negvision.LoadImageFromFile"}, {"type": "negvision.PackImageInputs"}]


def picture(number: int, size: int = 8) -> np.ndarray:
    """An image of noise, different for each number."""
    return np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)


def save_pack(path: Path, pictures, labels, classes, damaged=(), save=np.savez) -> Path:
    """Write a pack; images of the numbers in ``damaged`` lose their second half."""
    encoded = [cv2.imencode(".png", image)[1].tobytes() for image in pictures]
    encoded = [e[: len(e) // 2] if i in damaged else e for i, e in enumerate(encoded)]
    path.parent.mkdir(parents=True, exist_ok=True)
    save(
        path,
        data=np.frombuffer(b"".join(encoded), np.uint8),
        offsets=np.cumsum([0, *map(len, encoded)]).astype(np.int64),
        labels=np.array(labels, np.int64),
        classes=np.array(classes),
    )
    return path


class Images:
    """A folder of images, lists and packs."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def image(self, name: str, number: int = 0) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture(number))
        return path

    def text(self, name: str, *lines: str) -> str:
        (self.root / name).write_text("".join(line + "\n" for line in lines))
        return name

    def pack(self, name: str, labels=(0, 1, 2, 1), classes=("a", "b", "c"), **options) -> str:
        pictures = [picture(number) for number in range(len(labels))]
        save_pack(self.root / name, pictures, labels, classes, **options)
        return name

    def dataset(self, kind: str, **kwargs):
        from negvision.registry import DATASETS

        config = {"type": f"negvision.{kind}", "data_root": str(self.root), "pipeline": PIPELINE}
        return DATASETS.build({**config, **kwargs})


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path)


@pytest.fixture(scope="session")
def write_pack():
    return save_pack


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(
        "negvision.data.images.bad_samples.print_log",
        lambda message, **_: messages.append(message),
    )
    return messages
