"""Tiny images, and what the datasets log."""

from pathlib import Path

import cv2
import numpy as np
import pytest

PIPELINE = [{"type": "negvision.LoadImageFromFile"}, {"type": "negvision.PackFaceInputs"}]


def jpeg(number: int, size: int = 24) -> bytes:
    """An encoded image of noise; another for each number."""
    noise = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", noise)[1].tobytes()


class Faces:
    """A folder of images and text files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def image(self, name: str, number: int = 0) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number))
        return path

    def text(self, name: str, *lines: str) -> str:
        (self.root / name).write_text("".join(line + "\n" for line in lines))
        return name

    def truncate(self, name: str) -> None:
        path = self.root / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def dataset(self, kind: str, **kwargs):
        from negvision.registry import DATASETS

        config = {"type": f"negvision.{kind}", "data_root": str(self.root), "pipeline": PIPELINE}
        return DATASETS.build({**config, **kwargs})


@pytest.fixture
def faces(tmp_path: Path) -> Faces:
    return Faces(tmp_path)


@pytest.fixture
def make_jpeg():
    return jpeg


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(
        "negvision.data.images.bad_samples.print_log",
        lambda message, **_: messages.append(message),
    )
    return messages
