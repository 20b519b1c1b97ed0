"""Images, a video, and a server of files."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.small_models import write_images


@pytest.fixture
def image_files(tmp_path) -> list[str]:
    """Three image files of two sizes, in which models of `small_models` find boxes."""
    sizes = {"b_png": (96, 128), "a_jpg": (128, 96), "c_png": (96, 128)}
    return write_images(tmp_path / "image_files", **sizes)


@pytest.fixture
def make_video(tmp_path):
    """Function that writes frames, 64 x 48, each lighter than the one before, ten a second."""

    def make(suffix: str = "mp4", code: str = "mp4v", count: int = 6, noise: int = 0) -> Path:
        path = tmp_path / f"clip.{suffix}"
        rng = np.random.default_rng(0)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 10, (64, 48))
        for number in range(count):
            pixels = rng.integers(0, noise + 1, (48, 64, 3)) + min(40 * number, 255 - noise)
            writer.write(pixels.astype(np.uint8))
        writer.release()
        return path

    return make


@pytest.fixture
def video(make_video) -> Path:
    return make_video()


@pytest.fixture
def served(tmp_path):
    """Address of a server of the files in a folder, and the folder."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to/"))
                self.end_headers()
            elif self.path == "/cut.png":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"12345")
            else:
                super().do_GET()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()
    thread.join()
