"""Where images come from: files, folders, patterns, videos, webcams, addresses."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from negvision.data.images import IMAGE_SUFFIXES
from negvision.errors import DatasetError, UserError
from negvision.inference.fetching import fetch
from negvision.inference.videos import VIDEO_SUFFIXES, Footage, find_video, find_webcam

_PATTERN = "*?["
Decode = Callable[[bytes, str], np.ndarray]


@dataclass(frozen=True)
class Frame:
    """One image.

    Attributes:
        image: (H, W, 3) uint8, blue first.
        name: The file, address or webcam it is from.
        number: Of frames of a video, counted from 0; None for a single image.
        rate: Frames a second of its video; None for a single image.
    """

    image: np.ndarray
    name: str
    number: int | None = None
    rate: float | None = None


@dataclass(frozen=True)
class Sources:
    """What was named on the command line, looked at and ready to be read.

    Attributes:
        places: In their order; files and addresses as text.
        frames: So many of each video or webcam at most, or None.
    """

    places: tuple[str | Footage, ...]
    frames: int | None = None

    @property
    def is_live(self) -> bool:
        """Whether one of them goes on until somebody stops it."""
        return self.frames is None and any(
            isinstance(place, Footage) and place.count is None for place in self.places
        )

    @property
    def count(self) -> int | None:
        """Images in all, as far as is known."""
        counts = [
            place.at_most(self.frames) if isinstance(place, Footage) else 1 for place in self.places
        ]
        return None if None in counts else sum(counts)

    def read(self, decode: Decode) -> Iterator[Frame]:
        """The images, each read when it is asked for.

        Args:
            decode: Makes an array of an encoded image and its name.

        Raises:
            DatasetError: One cannot be read; it is named.
            UserError: An address does not answer.
        """
        for place in self.places:
            if isinstance(place, Footage):
                for number, image in place.read(self.frames):
                    yield Frame(image, place.name, number, place.rate)
            else:
                yield Frame(decode(_content(place), place), place)


def find_sources(
    texts: Sequence[str], allow_urls: bool = False, frames: int | None = None
) -> Sources:
    """Look at what was named; nothing is decoded and no address is asked yet.

    Args:
        texts: A file; a folder, whose images are taken in the order of their names; a pattern with
            ``*``, ``?`` or ``[]``, ``**`` standing for folders; the number of a webcam; an address
            that begins with http:// or https://.
        allow_urls: Whether addresses may be fetched.
        frames: So many of each video or webcam at most.

    Raises:
        UserError: There is no such file or webcam, nothing in a folder, nothing of a pattern, or an
            address is not allowed.
        DatasetError: A video is none.
    """
    return Sources(tuple(place for text in texts for place in _places(text, allow_urls)), frames)


def _places(text: str, allow_urls: bool) -> Iterator[str | Footage]:
    path = Path(text)
    if "://" in text:
        yield _address(text, allow_urls)
    elif text.isdecimal():
        yield find_webcam(int(text))
    elif path.is_dir():
        files = sorted(file for file in path.iterdir() if _is(file, IMAGE_SUFFIXES))
        if not files:
            raise UserError(
                f"{text}: the folder has no images ({', '.join(IMAGE_SUFFIXES)}). Folders below it "
                f"are read with a pattern: '{path / '**' / '*.jpg'}'"
            )
        yield from map(str, files)
    elif path.exists():
        yield _file(text)
    elif any(sign in text for sign in _PATTERN):
        found = sorted(glob.glob(text, recursive=True))
        known = [name for name in found if _is(Path(name), IMAGE_SUFFIXES + VIDEO_SUFFIXES)]
        if not known:
            raise UserError(f"{text}: of {len(found)} files that match none is an image or a video")
        yield from map(_file, known)
    else:
        raise UserError(
            f"{text}: there is no such file or folder. A source is a file, a folder, a pattern, "
            "the number of a webcam or, with --allow-urls, an address"
        )


def _is(path: Path, suffixes: Sequence[str]) -> bool:
    return path.suffix.lower() in suffixes and path.is_file()


def _file(name: str) -> str | Footage:
    return find_video(name) if _is(Path(name), VIDEO_SUFFIXES) else name


def _address(text: str, allowed: bool) -> str:
    if not text.lower().startswith(("http://", "https://")):
        raise UserError(f"{text}: only http:// and https:// are fetched; name a file otherwise")
    if not allowed:
        raise UserError(f"{text}: nothing is fetched unless it is asked for: add --allow-urls")
    return text


def _content(place: str) -> bytes:
    if "://" in place:
        return fetch(place)
    try:
        return Path(place).read_bytes()
    except OSError as error:
        raise DatasetError(f"{place}: cannot be read: {error.strerror or error}.") from None
