"""Read what the header of an image file says, before anything is decoded.

A file of a few kilobytes can decode to gigabytes. JPEG and PNG headers are parsed here: Pillow's
lazy ``Image.open`` takes 33 and 10 microseconds for them where this takes 3 and 1, and a face crop
decodes in 120. Pillow reads the headers of all other formats; without it these are not checked.
"""

import io
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

try:
    from PIL import Image
except ImportError:  # the runtime of exported models does without
    Image: Any = None

# 2**27 pixels, 11,585 x 11,585, hold the image of any hand-held camera. As BGR they take 384 MiB,
# which a worker survives.
MAX_PIXELS = 1 << 27

# The side reported for an image that Pillow does not open because of its own, higher limit.
BEYOND = 1 << 32

PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
# Formats that OpenCV decodes. Pillow knows more, one of which (EPS) starts an interpreter.
_OTHER_FORMATS = ("WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")

# libjpeg looks for markers like this: it skips garbage in front and FF fill bytes.
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_APP1, _EXIF = 0xE1, b"Exif\0\0"
# EXIF has the form of a TIFF file: an order of bytes, then tags.
_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II": "little", b"MM": "big"}
_ORIENTATION = 0x112
# Camera data, a color profile and a thumbnail take a few dozen.
_MOST_SEGMENTS = 10_000


class Header(NamedTuple):
    """The content of an image header.

    Attributes:
        kind: Pillow's name of the format, such as "JPEG"; "" if the format needs Pillow, which is
            not installed.
        height: Pixels, as stored; 0 if the header has none.
        width: Pixels, as stored; 0 if the header has none.
        scan: For JPEG, the offset of the first scan; 0 if there is none.
        orientation: 1 to 8 as EXIF defines it; 1 is upright, from 5 on the sides are swapped.
        several: Whether there are further images: pages, or frames of an animation.
    """

    kind: str
    height: int
    width: int
    scan: int = 0
    orientation: int = 1
    several: bool = False

    @property
    def pixels(self) -> int:
        """Height x width."""
        return self.height * self.width


def read_header(data: bytes) -> Header | None:
    """Read the header of an encoded image; None for an unknown format.

    If a JPEG has several frame headers, the largest size counts: a decoder might use any.

    Example:
        >>> import cv2, numpy
        >>> data = cv2.imencode(".jpg", numpy.zeros((20, 30, 3), numpy.uint8))[1].tobytes()
        >>> read_header(data)[:3]
        ('JPEG', 20, 30)
    """
    if data.startswith(_JPEG):
        return _read_jpeg(data)
    if data.startswith(PNG):
        return _read_png(data)
    if Image is None:
        return Header("", 0, 0, 0, _orientation(data))
    try:
        with Image.open(io.BytesIO(data), formats=_OTHER_FORMATS) as image:
            kind, size = image.format or "", (image.height, image.width)
            orientation = _orientation(data)
            if kind == "AVIF":
                orientation = int(image.getexif().get(_ORIENTATION, 1))
            if kind == "TIFF" and orientation >= 5:  # which Pillow has turned
                size = size[::-1]
            several = bool(getattr(image, "is_animated", False))
            return Header(kind, *size, 0, orientation, several)
    except Image.DecompressionBombError:
        return Header("image", BEYOND, BEYOND)
    except Exception:  # Pillow's plugins raise nearly anything for damaged headers
        return None


def _read_jpeg(data: bytes) -> Header:
    height = width = 0
    orientation = 0
    position, size = len(_JPEG), len(data)
    for _ in range(_MOST_SEGMENTS):
        # In nearly all files one marker follows another; no search is needed.
        if position + 1 < size and data[position] == 0xFF and 0 < data[position + 1] < 0xFF:
            marker, position = data[position + 1], position + 2
        else:
            found = _MARKER.search(data, position)
            if found is None:
                break
            marker, position = data[found.end() - 1], found.end()
        if marker == _START_OF_SCAN:
            return Header("JPEG", height, width, position, orientation or 1)
        if marker == _END_OF_IMAGE:
            break
        if marker in _WITHOUT_LENGTH:
            continue
        length = data[position] << 8 | data[position + 1] if position + 1 < size else 0
        if marker in _FRAMES:
            height = max(height, _number(data[position + 3 : position + 5]))
            width = max(width, _number(data[position + 5 : position + 7]))
        elif marker == _APP1 and not orientation and data.startswith(_EXIF, position + 2):
            orientation = _orientation_of_tiff(data[position + 2 + len(_EXIF) : position + length])
        position += length if length > 2 else 2
    return Header("JPEG", height, width, 0, orientation or 1)


def _read_png(data: bytes) -> Header:
    # libpng rejects a file that begins with another chunk.
    if data[12:16] != b"IHDR":
        return Header("PNG", 0, 0)
    orientation, several = 1, False
    for kind, start, end in png_chunks(data):
        if kind == b"eXIf":
            orientation = _orientation_of_tiff(data[start:end])
        several |= kind == b"acTL"
    size = _number(data[20:24]), _number(data[16:20])
    return Header("PNG", *size, 0, orientation, several)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each chunk; the last may end beyond ``data``."""
    position = len(PNG)
    while position + 12 <= len(data):
        start = position + 8
        end = start + _number(data[position : position + 4])
        yield data[position + 4 : start], start, end
        position = end + 4  # the checksum


def _orientation(data: bytes) -> int:
    """The EXIF orientation of a file that is neither JPEG nor PNG."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return _orientation_of_tiff(data)
    position = 12
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] == b"EXIF":
            content = data[position + 8 : position + 8 + length]
            return _orientation_of_tiff(content.removeprefix(_EXIF))
        position += 8 + length + length % 2
    return 1


def _orientation_of_tiff(data: bytes) -> int:
    """The orientation in the first directory of a TIFF file, in whose form EXIF is stored."""
    place = _place_of_orientation(data)
    found = 1 if place is None else max(data[place : place + 2], default=1)
    return found if 1 <= found <= 8 else 1


def with_tag_upright(data: bytes) -> bytes:
    """A TIFF file whose tag says 1: decoders turn others, OpenCV wrongly if the file has tiles."""
    place = _place_of_orientation(data)
    if place is None:
        return data
    order = _ORDERS[data[:2]]
    return data[:place] + (1).to_bytes(2, order) + data[place + 2 :]


def _place_of_orientation(data: bytes) -> int | None:
    """Where the value of the tag is, two bytes long; None without one."""
    order = _ORDERS.get(data[:2])
    if order is None:
        return None

    def number(position: int, size: int) -> int:
        return int.from_bytes(data[position : position + size], order)

    version = number(2, 2)
    if version not in (42, 43):
        return None
    # Sizes of offsets, of the number of entries, and of entries. BigTIFF has version 43.
    offset, count, size = (4, 2, 12) if version == 42 else (8, 8, 20)
    start = number(offset, offset)
    first = start + count
    for entry in range(first, min(first + size * number(start, count), len(data)), size):
        if number(entry, 2) == _ORIENTATION:
            return entry + 4 + offset
    return None


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")
