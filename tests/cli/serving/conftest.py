"""The command in processes of their own, on free ports, until the tests end."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from helpers.served_models import save_detector, save_recognizer, save_segmentor

from negvision.data.face_threshold import FaceThreshold

ROOT = Path(__file__).parents[3]
_DATA = Path(os.environ.get("NEGVISION_DATA", ROOT.parent / "shared" / "data"))
# Logs every address that the process looks up or connects to.
_WATCH = """
import os, sys
places = {"socket.connect": 1, "socket.getaddrinfo": 0}
def watch(event, args):
    if event in places:
        with open(os.environ["ASKED"], "a") as file:
            print(event, args[places[event]], file=file)
sys.addaudithook(watch)
"""


@dataclass
class Served:
    """A running command.

    Attributes:
        process: Its process.
        asked: File of the addresses that it contacted.
        temporary: Its temporary folder.
        url: Of its page.
        lines: Its output so far.
    """

    process: subprocess.Popen
    asked: Path
    temporary: Path
    url: str = ""
    lines: list[str] = field(default_factory=list)

    def stop(self) -> int:
        """Stop it as Ctrl-C does; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(600)
        finally:
            self.process.kill()


class _Servers(dict):
    def __init__(self, folder: Path, arguments: dict[str, list]) -> None:
        self._folder, self._arguments = folder, arguments

    def __missing__(self, name: str) -> Served:
        self[name] = served = _start(self._folder, name, self._arguments[name])
        _wait_for_page(served)
        return served


@pytest.fixture(scope="session")
def servers(tmp_path_factory) -> Iterator[dict[str, Served]]:
    """Commands by the name of their model, each started when it is asked for."""
    pytest.importorskip("gradio", reason="gradio is not installed (requirements/serve.txt)")
    folder = tmp_path_factory.mktemp("served")
    (folder / "sitecustomize.py").write_text(_WATCH)
    detector = save_detector(folder / "detector.onnx")
    # Known boxes had OOD scores of -9 to -1; the threshold of -2.5 is above 81.25 % of them.
    calibrated = save_detector(
        folder / "calibrated.onnx", ood_quantiles=(-9, -5, -1), f1_threshold=0.6001234, best_f1=0.5
    )
    arguments = {
        # At most 256 KiB and 100,000 pixels.
        "detector": [detector, "--max-upload-mb", "0.25", "--max-pixels", "100000"],
        "segmentor": [save_segmentor(folder / "pixels.onnx")],
        "recognizer": [save_recognizer(folder / "face.onnx")],
        "photographs": [
            save_recognizer(
                folder / "photos.onnx",
                face_threshold=FaceThreshold(0.5, 0.01, 0.4, 0.6, None, None, None, 99, 9999),
            ),
            "--face-detector",
            _DATA / "weights" / "yunet" / "yunet_n_640_640.onnx",
        ],
        "everywhere": [detector, "--host", "0.0.0.0"],
        "proxied": [calibrated, "--root-path", "/demo/", "--allowed-host", "demo.example"],
    }
    started = _Servers(folder, arguments)
    try:
        yield started
    finally:
        for served in started.values():
            served.stop()


@pytest.fixture(scope="session")
def detector(servers) -> Served:
    """The server of the detector of ``served_models``."""
    return servers["detector"]


def _start(folder: Path, name: str, arguments: list) -> Served:
    asked, temporary = folder / f"{name}_asked.txt", folder / f"{name}_temporary"
    asked.touch()
    temporary.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "ASKED": str(asked),
        "TMPDIR": str(temporary),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "negvision", "serve", "--port", "0", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Served(process, asked, temporary)


def _wait_for_page(served: Served) -> None:
    printed: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in served.process.stdout:
            printed.put(line)
        printed.put(None)

    # Keep reading: a full pipe would block the process.
    threading.Thread(target=read, daemon=True).start()
    while not served.url:
        line = printed.get(timeout=600)
        assert line is not None, "".join(served.lines)
        served.lines.append(line)
        if found := re.match(r"page  (http://\S+)", line):
            served.url = found[1]
