"""Where images come from: files, folders, patterns, videos, webcams and URLs."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib import request
from urllib.error import URLError

import numpy as np

from negvision import __version__
from negvision.data.images import IMAGE_SUFFIXES
from negvision.errors import UserError
from negvision.inference.runtime.images import read_bytes
from negvision.inference.videos import VIDEO_SUFFIXES, Footage, find_video, find_webcam

Decode = Callable[[bytes, str], np.ndarray]

# Larger than any image of a camera.
MAX_BYTES = 64 << 20
# Seconds: for each read of the socket, and for a download.
_SILENCE, _SECONDS = 20.0, 120.0


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
    """

    places: tuple[str | Footage, ...]
    frames: int | None = None

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

    def read(self, decode: Decode) -> Iterator[Frame]:
        """The images, each read when it is needed.

        Args:
            decode: Takes an encoded image and its name, and returns (H, W, 3) uint8 BGR.

        Raises:
            DatasetError: An image cannot be read.
            UserError: A URL cannot be downloaded.
        """
        for place in self.places:
            if isinstance(place, Footage):
                for number, image in place.read(self.frames):
                    yield Frame(image, place.name, number, place.rate)
            else:
                content = fetch(place) if "://" in place else read_bytes(place)
                yield Frame(decode(content, place), place)


def find_sources(
    texts: Sequence[str], allow_urls: bool = False, frames: int | None = None
) -> Sources:
    """Check sources, without decoding or downloading anything.

    Args:
        texts: Each a file; a folder, whose images are read in the order of their names; a pattern
            with ``*``, ``?``, ``[]`` or ``**`` for subfolders; the number of a webcam; or a URL
            that begins with http:// or https://.
        allow_urls: Whether URLs may be downloaded.
        frames: Largest number of frames of each video or webcam.

    Raises:
        UserError: A file or webcam does not exist, a folder or pattern has no images, or a URL is
            not allowed.
        DatasetError: A video cannot be used.
    """
    return Sources(tuple(place for text in texts for place in _places(text, allow_urls)), frames)


def _places(text: str, allow_urls: bool) -> Iterator[str | Footage]:
    path = Path(text)
    if "://" in text:
        if not text.lower().startswith(("http://", "https://")):
            raise UserError(f"{text}: only http:// and https:// URLs and files are supported")
        if not allow_urls:
            raise UserError(f"{text}: nothing is downloaded by default: add --allow-urls")
        yield text
    elif text.isdecimal():
        yield find_webcam(int(text))
    elif path.is_dir():
        files = sorted(file for file in path.iterdir() if _is(file, IMAGE_SUFFIXES))
        if not files:
            raise UserError(
                f"{text}: the folder has no images ({', '.join(IMAGE_SUFFIXES)}). To read "
                f"subfolders, give a pattern: '{path / '**' / '*.jpg'}'"
            )
        yield from map(str, files)
    elif path.exists():
        yield _file(text)
    elif any(sign in text for sign in "*?["):
        found = sorted(glob.glob(text, recursive=True))
        known = [name for name in found if _is(Path(name), IMAGE_SUFFIXES + VIDEO_SUFFIXES)]
        if not known:
            raise UserError(
                f"{text}: none of the {len(found)} matching files is an image or a video"
            )
        yield from map(_file, known)
    else:
        raise UserError(
            f"{text}: no such file or folder. A source is a file, a folder, a pattern, the number "
            "of a webcam or, with --allow-urls, a URL"
        )


def _is(path: Path, suffixes: Sequence[str]) -> bool:
    return path.suffix.lower() in suffixes and path.is_file()


def _file(name: str) -> str | Footage:
    return find_video(name) if _is(Path(name), VIDEO_SUFFIXES) else name


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
