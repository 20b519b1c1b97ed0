"""Read the size of an image from the first bytes of its file, before anything is decoded.

A file of a few kilobytes can decode to gigabytes. JPEG and PNG headers are parsed here: Pillow's
lazy ``Image.open`` takes 33 and 10 microseconds for them where this takes 3 and 1, and a face crop
decodes in 120. Pillow reads the headers of all other formats.
"""

import io
import re
from typing import NamedTuple

from PIL import Image

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
# Camera data, a color profile and a thumbnail take a few dozen.
_MOST_SEGMENTS = 10_000


class Header(NamedTuple):
    """The content of an image header.

    Attributes:
        kind: Pillow's name of the format, such as "JPEG".
        height: Pixels; 0 if the header has none.
        width: Pixels; 0 if the header has none.
        scan: For JPEG, the offset of the first scan; 0 if there is none.
    """

    kind: str
    height: int
    width: int
    scan: int = 0

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
        # libpng rejects a file that begins with another chunk.
        if data[12:16] != b"IHDR":
            return Header("PNG", 0, 0)
        return Header("PNG", _number(data[20:24]), _number(data[16:20]))
    try:
        with Image.open(io.BytesIO(data), formats=_OTHER_FORMATS) as image:
            return Header(image.format or "", image.height, image.width)
    except Image.DecompressionBombError:
        return Header("image", BEYOND, BEYOND)
    except Exception:  # Pillow's plugins raise nearly anything for damaged headers
        return None


def _read_jpeg(data: bytes) -> Header:
    height = width = 0
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
            return Header("JPEG", height, width, position)
        if marker == _END_OF_IMAGE:
            break
        if marker in _WITHOUT_LENGTH:
            continue
        if marker in _FRAMES:
            height = max(height, _number(data[position + 3 : position + 5]))
            width = max(width, _number(data[position + 5 : position + 7]))
        length = data[position] << 8 | data[position + 1] if position + 1 < size else 0
        position += length if length > 2 else 2
    return Header("JPEG", height, width)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")
