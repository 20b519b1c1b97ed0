"""Read videos and webcams frame by frame, and write videos.

OpenCV decodes: it rotates frames as the file says, and reads webcams too. PyAV was measured: it
takes 0.73 s for 100 frames of 640 x 480 pixels that OpenCV reads in 0.08 s, leaves the rotation to
the caller, and adds 100 MB.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
# FFmpeg guesses more where frames come irregularly.
_LIKELY_RATE = 240.0
_LARGEST_MOVIE = 64 << 20
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
WEBCAM_STOPPED = "webcam that stopped"
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")


@dataclass(frozen=True)
class Footage:
    """A video or a webcam that can be read.

    Attributes:
        name: Its name in results and error messages.
        source: A path or the number of a webcam.
        count: Number of frames according to the file; None for a webcam.
        rate: Frames per second.
        slack: How many of them may be missing, since the file does not count frames exactly.
    """

    name: str
    source: str | int
    count: int | None
    rate: float
    slack: int = 0

    def read(self, frames: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Frame numbers from 0, and images (H, W, 3) uint8 BGR; at most ``frames`` of them.

        Raises:
            DatasetError: No frame can be read, or less than the file announces. A webcam that
                stops has the kind :data:`WEBCAM_STOPPED`.
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
        if number == frames:
            return
        if self.count is None:
            raise DatasetError(f"{self.name}: stopped after {number:,} frames", WEBCAM_STOPPED)
        announced = self.count if frames is None else min(frames, self.count)
        if number < announced - self.slack:
            raise DatasetError(
                f"{self.name}: only {number:,} of {announced:,} frames can be read; the video is "
                "damaged or cut off",
                "video with missing frames",
            )


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
    shown = _require_complete(path)
    capture = _capture(path)
    if not capture.isOpened():
        raise DatasetError(
            f"{path}: OpenCV cannot decode this video. Convert it to H.264 in an .mp4 file, e.g. "
            "with ffmpeg"
        )
    found = _footage(capture, path, path)
    count = found.count or 0
    if shown is None:
        # AVI counts frames that a camera dropped; MKV has a duration, from which FFmpeg estimates.
        is_estimate = Path(path).suffix.lower() in (".mkv", ".webm")
        if is_estimate and found.rate > _LIKELY_RATE:
            count = 0
        return replace(found, count=count, slack=max(2, count // (4 if is_estimate else 20)))
    # A part of a video begins or ends between frames.
    return replace(found, count=round(shown * count), slack=0 if shown == 1 else 2)


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


def _require_complete(path: str) -> float | None:
    """Check the container: FFmpeg also opens lists of addresses, and does not report truncation.

    Returns:
        The share of its frames that a player shows; None if it does not count frames.
    """
    shown = None
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = file.read(64)
            if head[4:8] in _MP4_BOXES:
                end, movie = _top_boxes(file, size)
                shown = _shown_share(movie)
            elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
                end = 8 + int.from_bytes(head[4:8], "little")
            elif head[:4] == _EBML:
                end = _end_of_segment(head)
            else:
                raise DatasetError(
                    f"{path}: not a video of a known format (MP4, MOV, AVI, MKV, WebM); the file "
                    f"begins with {head[:16]!r}."
                )
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}.") from None
    if end > size:
        raise DatasetError(
            f"{path}: truncated video, {end - size:,} bytes are missing. Download or copy it "
            "again.",
            "truncated video",
        )
    return shown


def _top_boxes(file: BinaryIO, size: int) -> tuple[int, bytes]:
    """Where the top-level boxes of an MP4 or MOV file end by their lengths; the content of moov."""
    position, movie = 0, b""
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # a 64-bit length follows
            length = int.from_bytes(head[8:16], "big")
        if length == 0:  # up to the end of the file
            return size, movie
        if length < 8 or not head[4:8].isalnum():  # other data was appended
            break
        if head[4:8] == b"moov" and length <= _LARGEST_MOVIE:
            file.seek(position + 8)
            movie = file.read(length - 8)
        position += length
    return position, movie


def _boxes(data: bytes, *path: bytes) -> list[bytes]:
    """The contents of the boxes at ``path`` below ``data``."""
    found, position = [], 0
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if length < 8:
            break
        if data[position + 4 : position + 8] == path[0]:
            found.append(data[position + 8 : position + length])
        position += length
    return found if len(path) == 1 else [box for one in found for box in _boxes(one, *path[1:])]


def _shown_share(movie: bytes) -> float:
    """The share of a video track's time that its edit list shows: editors cut by such lists."""

    def time(box: bytes) -> tuple[int, int]:
        """Units a second, and the duration in them."""
        start, size = (20, 8) if box[0] else (12, 4)
        parts = box[start : start + 4], box[start + 4 : start + 4 + size]
        return int.from_bytes(parts[0], "big"), int.from_bytes(parts[1], "big")

    for track in _boxes(movie, b"trak"):
        handlers = _boxes(track, b"mdia", b"hdlr")
        edits = _boxes(track, b"edts", b"elst")
        clocks = [time(box) for box in _boxes(movie, b"mvhd") + _boxes(track, b"mdia", b"mdhd")]
        if not handlers or handlers[0][8:12] != b"vide" or not edits or len(clocks) != 2:
            continue
        (units, _), (own_units, duration) = clocks
        size = 8 if edits[0][0] else 4
        shown = 0
        for start in range(8, len(edits[0]) - 2 * size - 3, 2 * size + 4):
            length, place = (edits[0][at : at + size] for at in (start, start + size))
            if place != b"\xff" * size:  # not a pause
                shown += int.from_bytes(length, "big")
        if units and own_units and duration and shown:
            share = shown / units / (duration / own_units)
            # Both clocks round.
            return share if share < 0.99 else 1.0
    return 1.0


def _end_of_segment(head: bytes) -> int:
    """Where an MKV or WebM file ends by the length of its segment; 0 for a live recording."""

    def length(position: int) -> tuple[int, int]:
        """A length of variable size, and where it ends."""
        size = 9 - head[position].bit_length()
        value = int.from_bytes(head[position : position + size], "big") & (1 << 7 * size) - 1
        return (0 if value == (1 << 7 * size) - 1 else value), position + size

    header, start = length(4)
    segment = start + header
    if head[segment : segment + 4] != _SEGMENT or len(head) < segment + 12:
        return 0
    content, start = length(segment + 4)
    return start + content if content else 0


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
        self._path, self._count = path, 0
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
        self._count += 1

    def close(self) -> None:
        """Finish the file; UserError if frames are missing in it, since OpenCV reports nothing."""
        self._writer.release()
        written = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        count = int(written.get(cv2.CAP_PROP_FRAME_COUNT))
        written.release()
        if count != self._count:
            raise UserError(
                f"{self._path.name} cannot be written: {max(count, 0)} of {self._count} frames are "
                "in the file. Is the disk full?"
            )
