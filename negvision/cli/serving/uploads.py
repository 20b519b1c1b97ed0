"""Look at an uploaded file before anything of it is decoded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from negvision.data.images.header import BEYOND, read_header
from negvision.data.images.integrity import find_damage
from negvision.errors import DatasetError

# 33.5 million pixels: the picture of most cameras, and 96 MiB decoded.
MAX_PIXELS = 1 << 25


def read_upload(
    path: str | os.PathLike,
    decode: Callable[[bytes, str], np.ndarray],
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decode an uploaded file, once its header says that this can be done.

    Args:
        path: Of the file; errors name its last part alone.
        decode: From bytes and a name to (H, W, 3) uint8, such as that of an Inferencer.
        max_pixels: Height x width that the image may have.

    Raises:
        DatasetError: The file is empty, no image, damaged, or of too many pixels. The messages are
            for someone who looks at the page.
    """
    name = Path(path).name
    data = Path(path).read_bytes()
    if not data:
        raise DatasetError(f"{name}: the file is empty.")
    header = read_header(data)
    if header is None:
        raise DatasetError(
            f"{name}: not an image of a known format. JPEG, PNG, WebP, BMP, TIFF, GIF, PNM, JPEG "
            "2000 and AVIF are."
        )
    if header.pixels > max_pixels:
        size = f"{header.width:,} x {header.height:,}"
        raise DatasetError(
            f"{name}: {'more' if header.width >= BEYOND else size} pixels, and this page takes "
            f"images of {max_pixels:,} at most. Reduce the image, or start the page with a larger "
            "--max-pixels."
        )
    damage = find_damage(data, header)
    if damage:
        raise DatasetError(f"{name}: {damage}. Take a whole copy of the file.")
    return decode(data, name)
