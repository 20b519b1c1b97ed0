"""Text of a chosen size, in the font that comes with matplotlib."""

from functools import lru_cache
from pathlib import Path

import matplotlib
from PIL import ImageFont


@lru_cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, ``size`` in pixels: it has Latin, Greek, Cyrillic and the signs used here."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def text_width(text: str, size: int, bold: bool = False) -> int:
    """Width of one line in pixels, rounded up."""
    return int(font(size, bold).getlength(text)) + 1


def line_height(size: int) -> int:
    """Height of one line in pixels: the same for every text of this size."""
    ascent, descent = font(size).getmetrics()
    return ascent + descent


def shortened(text: str, size: int, width: int) -> str:
    """``text`` if it fits in ``width`` pixels, else its beginning with an ellipsis."""
    if text_width(text, size) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(text[:middle].rstrip() + "…", size) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"
