"""Check that an image file can be decoded and is complete.

OpenCV decodes a truncated JPEG or PNG without an error and fills the missing part with gray, so a
half-downloaded dataset would train silently.
"""

import io

from negvision.data.images.header import (
    BEYOND,
    MAX_PIXELS,
    Header,
    Image,
    png_chunks,
    read_header,
)
from negvision.errors import DatasetError


def find_damage(data: bytes, header: Header | None = None) -> str | None:
    """Describe in a few words what is wrong with an image file; None if nothing is.

    Only the end markers of JPEG and PNG are checked, which takes a microsecond (Pillow's ``verify``
    takes 27 for a small PNG and does nothing for a JPEG). A file without its end marker is decoded
    by Pillow, since some cameras and editors omit the marker of complete images. A PNG chunk that
    reaches past the end is damage at once: OpenCV allocates what a chunk announces, up to 4 GB.
    Other formats are left to their decoder.

    Args:
        data: The encoded image.
        header: The result of :func:`negvision.data.images.header.read_header`, if known.
    """
    if not data:
        return "the file is empty"
    header = header or read_header(data)
    if header is None or header.kind not in ("JPEG", "PNG"):
        return None
    if header.kind == "JPEG":
        # After the first scan, because a thumbnail in the header has an end marker of its own.
        complete = header.scan > 0 and data.rfind(b"\xff\xd9") > header.scan
    else:
        end = _last_chunk_of_png(data)
        if end > len(data):
            return f"truncated PNG (a chunk ends {end - len(data):,} bytes beyond the file)"
        complete = end > 0
    if complete:
        return None
    if Image is None:
        return f"truncated {header.kind} (it has no end)"
    try:
        with Image.open(io.BytesIO(data), formats=(header.kind,)) as image:
            image.load()
    except Exception as error:  # Pillow raises nearly anything for damaged files
        return f"truncated {header.kind} ({error})"
    return None


def _last_chunk_of_png(data: bytes) -> int:
    """The end of IEND, or of the first chunk that is cut off; 0 if there is neither."""
    for kind, _, end in png_chunks(data):
        if kind == b"IEND" or end + 4 > len(data):
            return end + 4
    return 0


def require_size(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Header:
    """Check that an image may be decoded: its format is known and its size within the limit.

    Args:
        data: The encoded image.
        name: Named in errors.
        max_pixels: The largest allowed height x width.

    Returns:
        Its header.

    Raises:
        DatasetError: The image is empty, too large, or of no known format.
    """
    if not data:
        raise DatasetError(
            f"{name}: the file is empty, 0 bytes. Download it again.", kind="empty image file"
        )
    header = read_header(data)
    if header is None:
        raise DatasetError(
            f"{name}: not an image of a known format (JPEG, PNG, WebP, BMP, TIFF, GIF, PNM, JPEG "
            f"2000, AVIF); the file begins with {data[:16]!r}.",
            kind="file that is no image",
        )
    if header.pixels > max_pixels:
        size = f"{header.width:,} x {header.height:,}"
        raise DatasetError(
            f"{name}: the header of this {header.kind} of {len(data):,} bytes announces "
            f"{'more' if header.width >= BEYOND else size} pixels, and an image of more than "
            f"{max_pixels:,} pixels is not decoded. Correct the file, or raise max_pixels of the "
            "transform that loads it.",
            kind="image of too many pixels",
        )
    return header


def require_complete(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Header:
    """:func:`require_size`, and the image must be complete.

    Returns:
        Its header.

    Raises:
        DatasetError: As there, or the image is truncated.
    """
    header = require_size(data, name, max_pixels)
    # After the size, since the search for damage may decode.
    damage = find_damage(data, header)
    if damage is None and header.kind and not header.pixels:
        damage = f"{header.kind} whose header has no size"
    if damage:
        raise DatasetError(
            f"{name}: {damage}, {len(data):,} bytes. Download the file again, or leave such files "
            'out of training with on_bad_sample="skip" of the dataset.',
            kind="truncated image",
        )
    return header
