"""Image files made byte by byte: bombs, false headers and damage."""

import struct
import zlib

import cv2
import numpy as np

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encoded(suffix: str, height: int = 20, width: int = 30, channels: int = 3, *flags) -> bytes:
    """A picture of noise in the format of ``suffix``."""
    shape = (height, width, channels)[: 3 if channels > 1 else 2]
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return cv2.imencode(suffix, image, flags)[1].tobytes()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk with its length and its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int) -> bytes:
    """The first chunk of a gray PNG of eight bits."""
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def png_bomb(width: int, height: int) -> bytes:
    """A valid black PNG of any size, a thousandth as long as what it decodes to."""
    total = height * (width + 1)
    piece = 1 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    # A piece that stands for itself can be repeated without compressing it anew.
    block = packer.compress(bytes(piece)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    checksum = (total % 65521) << 16 | 1  # Adler-32 of so many zeros
    stream = b"\x78\xda" + block * (total // piece)
    stream += rest.compress(bytes(total % piece)) + rest.flush() + struct.pack(">I", checksum)
    body = png_header(width, height) + png_chunk(b"IDAT", stream) + png_chunk(b"IEND", b"")
    return PNG_SIGNATURE + body


def frame_of_jpeg(data: bytes) -> int:
    """Where the frame header (marker C0 or C2) of a JPEG begins."""
    return max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))


def jpeg_of_size(width: int, height: int, data: bytes | None = None) -> bytes:
    """A small JPEG whose header announces another size."""
    data = data or encoded(".jpg")
    place = frame_of_jpeg(data) + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]
