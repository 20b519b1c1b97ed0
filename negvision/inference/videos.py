"""Read videos and webcams frame by frame, and write videos."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from negvision.data.images.header import MAX_PIXELS
from negvision.errors import DatasetError, UserError

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
# Where a camera or a file does not say.
_RATE = 25.0
_HIGHEST_RATE = 1000.0
_EBML = b"\x1a\x45\xdf\xa3"
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")


@dataclass(frozen=True)
class Footage:
    """A video or a webcam, which was looked at and is opened again to be read.

    Attributes:
        name: Shown, and named in errors.
        source: What OpenCV opens: a path or the number of a webcam.
        count: Frames, as the file says; None for a webcam.
        rate: Frames a second.
    """

    name: str
    source: str | int
    count: int | None
    rate: float

    def at_most(self, frames: int | None) -> int | None:
        """Frames that :meth:`read` will give, as far as is known."""
        return min((n for n in (self.count, frames) if n is not None), default=None)

    def read(self, frames: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Numbers from 0 and images (H, W, 3) uint8, blue first; ``frames`` of them at most.

        Raises:
            DatasetError: There is not one.
        """
        capture = _capture(self.source)
        number = 0
        try:
            while frames is None or number < frames:
                there, image = capture.read()
                if not there:
                    break
                yield number, image
                number += 1
        finally:
            capture.release()
        if not number:
            raise DatasetError(f"{self.name}: no frame of it can be read; it is damaged or in use.")


def find_webcam(number: int) -> Footage:
    """Look whether a camera of this machine answers.

    Raises:
        UserError: There is none of this number, or it is in use.
    """
    capture = _capture(number)
    if not capture.isOpened():
        raise UserError(
            f"webcam {number}: there is none, or another program uses it. (A file or folder of "
            f"this name is written ./{number})"
        )
    return _footage(capture, f"webcam {number}", number)


def find_video(path: str) -> Footage:
    """Look at a video file.

    Raises:
        DatasetError: It is no video, cut off, of too large frames, or nothing that OpenCV decodes.
    """
    _require_whole(path)
    capture = _capture(path)
    if not capture.isOpened():
        raise DatasetError(
            f"{path}: OpenCV cannot decode this video. Write it as H.264 in an .mp4 file, e.g. "
            "with ffmpeg"
        )
    return _footage(capture, path, path)


def _footage(capture: cv2.VideoCapture, name: str, source: str | int) -> Footage:
    keys = ("FPS", "FRAME_WIDTH", "FRAME_HEIGHT", "FRAME_COUNT")
    rate, width, height, count = (capture.get(getattr(cv2, f"CAP_PROP_{key}")) for key in keys)
    capture.release()
    if width * height > MAX_PIXELS:
        raise DatasetError(
            f"{name}: frames of {width:,.0f} x {height:,.0f} pixels; more than {MAX_PIXELS:,} "
            "pixels are not decoded."
        )
    known = math.isfinite(rate) and 0 < rate <= _HIGHEST_RATE
    is_file = isinstance(source, str)
    return Footage(name, source, max(int(count), 0) if is_file else None, rate if known else _RATE)


def _capture(source: str | int) -> cv2.VideoCapture:
    # OpenCV prints what each of its backends had to say, and FFmpeg what it makes of each frame.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.setLogLevel(0)
    try:
        # Others would take a video for an image, or a name with a number for many.
        backend = cv2.CAP_FFMPEG if isinstance(source, str) else cv2.CAP_ANY
        return cv2.VideoCapture(source, backend)
    finally:
        cv2.setLogLevel(level)


def _require_whole(path: str) -> None:
    """Look at the containers alone; what decoders call a video may also be a list of addresses."""
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
                end = 0  # written as it comes: it may end anywhere
            else:
                raise DatasetError(
                    f"{path}: not a video of a known format (MP4, MOV, AVI, MKV, WebM); the file "
                    f"begins with {head!r}."
                )
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}.") from None
    if end > size:
        raise DatasetError(
            f"{path}: truncated video, {end - size:,} bytes are missing. Fetch the file anew."
        )


def _end_of_boxes(file, size: int) -> int:
    """Where the boxes of an MP4 or MOV file end, by what each says of itself."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # of more than 4 GB
            length = int.from_bytes(head[8:16], "big")
        if length == 0:  # up to the end of the file
            return size
        if length < 8 or not head[4:8].isalnum():  # something else that was appended
            break
        position += length
    return position


class VideoWriter:
    """Write pictures as an .mp4 file.

    Args:
        path: The file.
        rate: Frames a second.

    Raises:
        UserError: It cannot be written.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path = path
        self.rate = rate
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def add(self, picture: np.ndarray) -> None:
        """Append (H, W, 3) uint8, blue first; all become as large as the first."""
        if self._writer is None:
            # The codec halves the resolution of colours, so that sides are even.
            self._size = tuple(side + side % 2 for side in picture.shape[:2])
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self.path), code, self.rate, self._size[::-1])
            if not self._writer.isOpened():
                raise UserError(f"{self.path.name}: OpenCV cannot write a video here")
        page = np.full((*self._size, 3), 255, np.uint8)
        height, width = (min(sides) for sides in zip(self._size, picture.shape[:2], strict=True))
        page[:height, :width] = picture[:height, :width]
        self._writer.write(page)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()
