"""Read videos and webcams frame by frame, and write videos.

OpenCV decodes: it rotates frames as the file says, and reads webcams too. PyAV was measured: it
takes 0.73 s for 100 frames of 640 x 480 pixels that OpenCV reads in 0.08 s, leaves the rotation to
the caller, and adds 100 MB.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from negvision.data.images.header import MAX_PIXELS
from negvision.errors import DatasetError, UserError

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
# Frames per second, if a camera or a file does not say.
_RATE = 25.0
_HIGHEST_RATE = 1000.0
_EBML = b"\x1a\x45\xdf\xa3"
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")


@dataclass(frozen=True)
class Footage:
    """A video or a webcam that can be read.

    Attributes:
        name: Its name in results and error messages.
        source: A path or the number of a webcam.
        count: Number of frames according to the file; None for a webcam.
        rate: Frames per second.
    """

    name: str
    source: str | int
    count: int | None
    rate: float

    def read(self, frames: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Frame numbers from 0, and images (H, W, 3) uint8 BGR; at most ``frames`` of them.

        Raises:
            DatasetError: No frame can be read.
        """
        capture = _capture(self.source)
        number = 0
        try:
            while frames is None or number < frames:
                success, image = capture.read()
                if not success:
                    break
                yield number, image
                number += 1
        finally:
            capture.release()
        if not number:
            raise DatasetError(f"{self.name}: no frame can be read; it is damaged or in use.")


def find_webcam(number: int) -> Footage:
    """Open a camera of this machine to see whether it answers.

    Raises:
        UserError: There is no camera with this number, or it is in use.
    """
    capture = _capture(number)
    if not capture.isOpened():
        raise UserError(
            f"webcam {number}: not found, or used by another program. (For a file or folder of "
            f"this name, give ./{number})"
        )
    return _footage(capture, f"webcam {number}", number)


def find_video(path: str) -> Footage:
    """Check a video file and open it to read its size.

    Raises:
        DatasetError: It is not a video, is truncated, has too large frames, or has a codec that
            OpenCV does not support.
    """
    _require_complete(path)
    capture = _capture(path)
    if not capture.isOpened():
        raise DatasetError(
            f"{path}: OpenCV cannot decode this video. Convert it to H.264 in an .mp4 file, e.g. "
            "with ffmpeg"
        )
    return _footage(capture, path, path)


def _footage(capture: cv2.VideoCapture, name: str, source: str | int) -> Footage:
    keys = ("FPS", "FRAME_WIDTH", "FRAME_HEIGHT", "FRAME_COUNT")
    rate, width, height, count = (capture.get(getattr(cv2, f"CAP_PROP_{key}")) for key in keys)
    capture.release()
    if width * height > MAX_PIXELS:
        raise DatasetError(
            f"{name}: frames of {width:,.0f} x {height:,.0f} pixels exceed the limit of "
            f"{MAX_PIXELS:,} pixels."
        )
    known = math.isfinite(rate) and 0 < rate <= _HIGHEST_RATE
    is_file = isinstance(source, str)
    return Footage(name, source, max(int(count), 0) if is_file else None, rate if known else _RATE)


def _capture(source: str | int) -> cv2.VideoCapture:
    # Otherwise OpenCV prints messages of each backend, and FFmpeg one for each damaged frame.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.setLogLevel(0)
    try:
        # Other backends take a name with a number for a sequence of images.
        backend = cv2.CAP_FFMPEG if isinstance(source, str) else cv2.CAP_ANY
        return cv2.VideoCapture(source, backend)
    finally:
        cv2.setLogLevel(level)


def _require_complete(path: str) -> None:
    """Check the container: FFmpeg also opens lists of addresses, and does not report truncation."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = file.read(16)
            if head[4:8] in _MP4_BOXES:
                end = _end_of_boxes(file, size)
            elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
                end = 8 + int.from_bytes(head[4:8], "little")
            elif head[:4] == _EBML:
                end = 0  # has no total length
            else:
                raise DatasetError(
                    f"{path}: not a video of a known format (MP4, MOV, AVI, MKV, WebM); the file "
                    f"begins with {head!r}."
                )
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}.") from None
    if end > size:
        raise DatasetError(
            f"{path}: truncated video, {end - size:,} bytes are missing. Download or copy it again."
        )


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Where the top-level boxes of an MP4 or MOV file end, according to their lengths."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # a 64-bit length follows
            length = int.from_bytes(head[8:16], "big")
        if length == 0:  # up to the end of the file
            return size
        if length < 8 or not head[4:8].isalnum():  # other data was appended
            break
        position += length
    return position


class VideoWriter:
    """Write images as an .mp4 file.

    Args:
        path: The file.
        rate: Frames per second.
        size: Height and width; odd sides are padded by a pixel, as the codec requires.

    Raises:
        UserError: The file cannot be written.
    """

    def __init__(self, path: Path, rate: float, size: tuple[int, int]) -> None:
        self._page = np.full((size[0] + size[0] % 2, size[1] + size[1] % 2, 3), 255, np.uint8)
        code = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(path), code, rate, self._page.shape[1::-1])
        if not self._writer.isOpened():
            raise UserError(f"{path.name}: OpenCV cannot write a video here")

    def add(self, image: np.ndarray) -> None:
        """Append (H, W, 3) uint8 BGR; larger images are cut, smaller ones padded."""
        page = self._page.copy()
        height, width = (min(sides) for sides in zip(page.shape[:2], image.shape[:2], strict=True))
        page[:height, :width] = image[:height, :width]
        self._writer.write(page)

    def close(self) -> None:
        """Finish the file."""
        self._writer.release()
