"""Tell the size of an image from the first bytes of its file, before anything is decoded.

A file of a few kilobytes can decode to gigabytes. JPEG, PNG and WebP headers are read here, which
takes microseconds; a few other formats through Pillow, which decodes nothing until it is asked to.
"""

import io
import re
from typing import NamedTuple

from PIL import Image

# 2**27 pixels, 11,585 x 11,585, hold the picture of any camera that fits in a hand, and decode to
# 384 MiB as BGR: a worker survives it.
MAX_PIXELS = 1 << 27

# The side of an image that Pillow does not open because of a limit of its own above this one.
BEYOND = 1 << 32

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
# Formats that OpenCV decodes and whose header Pillow reads. Pillow alone knows more, of which one
# (EPS) runs an interpreter to decode: they are never tried.
_OTHER_FORMATS = ("BMP", "DIB", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")

# As libjpeg looks for markers: what stands in front and FF bytes that fill up are passed over.
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
# Those of a camera, its color profile and its thumbnail are some dozens.
_MOST_SEGMENTS = 10_000


class Header(NamedTuple):
    """What the first bytes of an image file say.

    Attributes:
        kind: Pillow's name of the format, such as "JPEG" or "PNG".
        height: Pixels; 0 where the file does not say.
        width: Pixels; 0 where the file does not say.
        scan: JPEG: where the first scan begins; 0 where there is none.
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
    """The header of an encoded image; None where the format is not known.

    Of several frames in one JPEG header the largest counts, as a decoder might take any.

    Example:
        >>> import cv2, numpy
        >>> data = cv2.imencode(".jpg", numpy.zeros((20, 30, 3), numpy.uint8))[1].tobytes()
        >>> read_header(data)[:3]
        ('JPEG', 20, 30)
    """
    if data.startswith(JPEG):
        return _read_jpeg_like_last(data)
    if data.startswith(PNG):
        # libpng takes no file whose first chunk is another one.
        if data[12:16] != b"IHDR":
            return Header("PNG", 0, 0)
        return Header("PNG", _big(data[20:24]), _big(data[16:20]))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _read_webp(data)
    try:
        with Image.open(io.BytesIO(data), formats=_OTHER_FORMATS) as image:
            return Header(image.format or "", image.height, image.width)
    except Image.DecompressionBombError:
        return Header("image", BEYOND, BEYOND)
    except Exception:  # Pillow's plugins raise nearly every kind at damaged headers
        return None


# Up to its first scan, the last JPEG that had one, and its header.
_last_jpeg: tuple[bytes, Header] = (b"", Header("JPEG", 0, 0))


def _read_jpeg_like_last(data: bytes) -> Header:
    """What stands in front of the first scan decides, and images that one program wrote in one size
    have it in common byte for byte."""
    global _last_jpeg
    start, header = _last_jpeg
    if start and data.startswith(start):
        return header
    header = _read_jpeg(data)
    start = data[: header.scan]
    # A frame that pretends to be shorter than it is would be read beyond the scan.
    if header.scan and _read_jpeg(start) == header:
        _last_jpeg = start, header
    return header


def _read_jpeg(data: bytes) -> Header:
    height = width = 0
    position, size = len(JPEG), len(data)
    for _ in range(_MOST_SEGMENTS):
        # Nearly all files have their markers one after the other, and need no search.
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
            height = max(height, _big(data[position + 3 : position + 5]))
            width = max(width, _big(data[position + 5 : position + 7]))
        length = data[position] << 8 | data[position + 1] if position + 1 < size else 0
        position += length if length > 2 else 2
    return Header("JPEG", height, width)


def _read_webp(data: bytes) -> Header:
    kind, body = data[12:16], data[20:30]
    width = height = 0
    if kind == b"VP8X":
        width, height = _little(body[4:7]) + 1, _little(body[7:10]) + 1
    elif kind == b"VP8L":
        bits = _little(body[1:5])
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = _little(body[6:8]) & 0x3FFF, _little(body[8:10]) & 0x3FFF
    return Header("WEBP", height, width)


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
