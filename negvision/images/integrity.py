"""Tell whether the bytes of an image file are complete.

OpenCV decodes a truncated JPEG or PNG without an error and fills the missing part with grey, so a
half-downloaded data set would train in silence.
"""

import io

from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_START_OF_SCAN = 0xDA


def find_damage(data: bytes) -> str | None:
    """Say in a few words what is wrong with an image file, or return None.

    Only the end markers of JPEG and PNG are looked for, which costs microseconds. A file without
    its end marker is then decoded by Pillow, since some cameras and editors leave the marker out
    of pictures that are complete. Other formats are left to their decoder.
    """
    if not data:
        return "the file is empty"
    if data.startswith(_JPEG):
        complete, name = _jpeg_ends(data), "JPEG"
    elif data.startswith(_PNG):
        complete, name = data.rfind(b"IEND") > 0, "PNG"
    else:
        return None
    if complete:
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        return f"truncated {name} ({error})"
    return None


def _jpeg_ends(data: bytes) -> bool:
    """Whether an end-of-image marker follows the first scan.

    The headers are walked over because the thumbnail inside them has an end marker of its own.
    """
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # padding before a marker
            position += 1
            continue
        if marker == _START_OF_SCAN:
            return data.rfind(b"\xff\xd9") > position
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False
