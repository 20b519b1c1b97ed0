"""Tiny images, and what the datasets log."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from negvision.errors import DatasetError
from negvision.registry import DATASETS

PIPELINE = [{"type": "negvision.LoadImageFromFile"}, {"type": "negvision.PackFaceInputs"}]


def jpeg(number: int, size: int = 24) -> bytes:
    """An encoded image of noise, different for each number."""
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


@pytest.fixture
def in_both_modes(log):
    """Build with each ``on_bad_sample``; the error and the log must have all ``expected`` texts."""

    def check(build, kind: str, *expected: str, **kwargs):
        with pytest.raises(DatasetError) as caught:
            build(**kwargs)
        for text in (f"1 x {kind}", 'on_bad_sample="skip"', *expected):
            assert text in str(caught.value)
        dataset = build(on_bad_sample="skip", **kwargs)
        assert any(f"1 x {kind}" in line for line in log)
        return dataset

    return check
