"""Where images come from: files, folders, patterns, videos, webcams and URLs."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from urllib import request
from urllib.error import URLError

import numpy as np

from negvision import __version__
from negvision.data.images import IMAGE_SUFFIXES
from negvision.data.images.header import read_header
from negvision.data.images.listing import PassedOver
from negvision.errors import DatasetError, UserError, WarnOnce
from negvision.inference.runtime.images import read_bytes
from negvision.inference.videos import VIDEO_SUFFIXES, Footage, find_video, find_webcam

Decode = Callable[[bytes, str], np.ndarray]
# Takes the error of an image or video that cannot be read; returns to go on without it.
LeaveOut = Callable[[UserError], None]

# Larger than any image of a camera.
MAX_BYTES = 64 << 20
# Seconds: for each read of the socket, and for a download.
_SILENCE, _SECONDS = 20.0, 120.0
_several = WarnOnce()


def end_at_once(error: UserError) -> None:
    """Leave nothing out: raise ``error``."""
    raise error


@dataclass(frozen=True)
class Frame:
    """One image.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        name: Its file, URL or webcam.
        number: Of a video frame, from 0; None for a single image.
        rate: Frames per second of its video; None for a single image.
    """

    image: np.ndarray
    name: str
    number: int | None = None
    rate: float | None = None


@dataclass(frozen=True)
class Sources:
    """The sources of a command, checked and ready to be read.

    Attributes:
        places: Files and URLs as text, videos and webcams, in order.
        frames: Largest number of frames of each video or webcam, or None.
        passed_over: What folders and patterns hold besides.
    """

    places: tuple[str | Footage, ...]
    frames: int | None = None
    passed_over: PassedOver = field(default_factory=PassedOver)

    @property
    def count(self) -> int | None:
        """Total number of images, None for a webcam without an end."""
        total = 0
        for place in self.places:
            counts = (place.count, self.frames) if isinstance(place, Footage) else (1,)
            known = [count for count in counts if count is not None]
            if not known:
                return None
            total += min(known)
        return total

    def read(self, decode: Decode, leave_out: LeaveOut = end_at_once) -> Iterator[Frame]:
        """The images, each read when it is needed.

        Args:
            decode: Takes an encoded image and its name, and returns (H, W, 3) uint8 BGR.
            leave_out: Called for what cannot be read, and for a video that ends too early.

        Raises:
            DatasetError: An image or the rest of a video cannot be read.
            UserError: A URL cannot be downloaded.
        """
        for place in self.places:
            try:
                if isinstance(place, Footage):
                    for number, image in place.read(self.frames):
                        yield Frame(image, place.name, number, place.rate)
                else:
                    content = fetch(place) if "://" in place else read_bytes(place)
                    yield Frame(decode(content, place), place)
                    _mention_several(content, place)
            except UserError as error:
                leave_out(error)


def _mention_several(content: bytes, name: str) -> None:
    header = read_header(content)
    if header is not None and header.several:
        _several(
            f"{name}: only the first of its pages or frames is read. Split such a file into "
            "images, or convert an animation to a video"
        )


def find_sources(
    texts: Sequence[str],
    allow_urls: bool = False,
    frames: int | None = None,
    leave_out: LeaveOut = end_at_once,
) -> Sources:
    """Check sources, without decoding or downloading anything.

    Args:
        texts: Each a file; a folder, whose images are read in the order of their names; a pattern
            with ``*``, ``?``, ``[]`` or ``**`` for subfolders; the number of a webcam; or a URL
            that begins with http:// or https://.
        allow_urls: Whether URLs may be downloaded.
        frames: Largest number of frames of each video or webcam.
        leave_out: Called for a video that cannot be used.

    Raises:
        UserError: A file or webcam does not exist, a folder or pattern has no images, or a URL is
            not allowed.
        DatasetError: A video cannot be used.
    """
    passed_over, places = PassedOver(), []
    for text in texts:
        for place in _places(text, allow_urls, passed_over):
            try:
                places.append(_opened(place))
            except DatasetError as error:
                leave_out(error)
    return Sources(tuple(places), frames, passed_over)


def _places(text: str, allow_urls: bool, passed_over: PassedOver) -> list[str]:
    """The files, URLs and webcams that a source stands for."""
    path = Path(text)
    if "://" in text:
        if not text.lower().startswith(("http://", "https://")):
            raise UserError(f"{text}: only http:// and https:// URLs and files are supported")
        if not allow_urls:
            raise UserError(f"{text}: nothing is downloaded by default: add --allow-urls")
        return [text]
    if text.isdecimal():
        return [text]
    if path.is_dir():
        try:
            entries = sorted(map(str, path.iterdir()))
        except OSError as error:
            raise UserError(f"{text}: the folder cannot be read: {error.strerror}") from None
        if files := passed_over.chosen(entries):
            return files
        raise UserError(
            f"{text}: the folder has no images ({', '.join(IMAGE_SUFFIXES)}){passed_over.but()}. "
            f"To read subfolders, give a pattern: '{path / '**' / '*.jpg'}'"
        )
    if path.exists():
        return [text]
    if any(sign in text for sign in "*?["):
        found = sorted(glob.glob(_with_literal_folders(path), recursive=True))
        if files := passed_over.chosen(found, IMAGE_SUFFIXES + VIDEO_SUFFIXES):
            return files
        hint = ". In a pattern [ and ] enclose characters; for a bracket write [[]" * ("[" in text)
        raise UserError(
            f"{text}: none of the {len(found)} matching files is an image or a video{hint}"
        )
    raise UserError(
        f"{text}: no such file or folder. A source is a file, a folder, a pattern, the number "
        "of a webcam or, with --allow-urls, a URL"
    )


def _with_literal_folders(pattern: Path) -> str:
    """The pattern in which the folders at its beginning that exist stand for themselves."""
    folder = Path(pattern.anchor)
    for count, part in enumerate(pattern.relative_to(pattern.anchor).parts):
        if not (folder / part).is_dir():
            rest = pattern.relative_to(pattern.anchor).parts[count:]
            return str(Path(glob.escape(str(folder)), *rest))
        folder /= part
    return glob.escape(str(folder))


def _opened(place: str) -> str | Footage:
    if place.isdecimal():
        return find_webcam(int(place))
    is_video = Path(place).suffix.lower() in VIDEO_SUFFIXES and "://" not in place
    return find_video(place) if is_video else place


def fetch(url: str, max_bytes: int = MAX_BYTES, seconds: float = _SECONDS) -> bytes:
    """Download ``url`` into memory.

    Args:
        url: An http:// or https:// URL; redirects to other schemes are refused.
        max_bytes: Limit of the size.
        seconds: Limit of the total time.

    Raises:
        UserError: The download fails, or exceeds a limit.
    """
    end = time.monotonic() + seconds
    # urllib's own opener also reads file:, ftp: and data: URLs, to which servers could redirect.
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.UnknownHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPRedirectHandler,
        request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    try:
        asked = request.Request(url, headers={"User-Agent": f"negvision/{__version__}"})
        with opener.open(asked, timeout=min(_SILENCE, seconds)) as answer:
            content = bytearray()
            # One socket read at a time: a server may send a byte now and then.
            while piece := answer.read1(1 << 16):
                content += piece
                if len(content) > max_bytes:
                    raise UserError(f"{url}: larger than {max_bytes / 2**20:.0f} MiB, not read")
                if time.monotonic() > end:
                    raise UserError(f"{url}: not complete after {seconds:.0f} seconds")
            missing = answer.length
    # From sockets and certificates, malformed URLs, and answers that are not HTTP.
    except (OSError, ValueError, HTTPException) as error:
        reason = error.reason if type(error) is URLError else error
        raise UserError(f"{url}: cannot be downloaded: {reason}") from None
    if missing:
        raise UserError(f"{url}: {missing:,} bytes are missing at the end; try again")
    return bytes(content)
