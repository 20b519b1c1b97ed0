"""Several images on one sheet, with captions, a title, and a legend."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from negvision.visualization.canvas import draw_mark, font, line_height, text_width
from negvision.visualization.colors import Color

_PAPER: Color = (255, 255, 255)
_INK: Color = (20, 20, 20)
# Gray, so that white and yellow show as they do on photographs.
_SWATCH_PAPER: Color = (70, 70, 70)
_MARGIN = 12
_TEXT, _TITLE = 14, 18


@dataclass(frozen=True)
class LegendEntry:
    """A color and its meaning; with ``level``, the swatch is the mark of that level."""

    text: str
    color: Color
    level: int | None = None
    dashed: bool = False


def contact_sheet(
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    columns: int = 4,
    title: str = "",
    legend: Sequence[LegendEntry] = (),
) -> np.ndarray:
    """Arrange images in rows, each with its caption below.

    Args:
        images: ``(H, W, 3)`` uint8 each, RGB, of any sizes; not resized.
        captions: One per image; ``"\\n"`` starts another line. Lines are shortened to the column.
        columns: With fewer images, fewer are used.
        title: Above all.
        legend: Below the title.

    Returns:
        The sheet, ``(H, W, 3)`` uint8, RGB, on white.

    Example:
        >>> tiles = [np.full((90, 120, 3), shade, np.uint8) for shade in (60, 120, 180)]
        >>> contact_sheet(tiles, ["a", "b", "c"], columns=2).shape[1:]
        (276, 3)
    """
    columns = max(min(columns, len(images)), 1)
    cell = max((image.shape[1] for image in images), default=200)
    width = columns * cell + (columns + 1) * _MARGIN
    step = line_height(_TEXT)
    head = _head(title, legend, width)
    rows = []
    for start in range(0, len(images), columns):
        row = list(zip(images, captions, strict=True))[start : start + columns]
        height = max(image.shape[0] for image, _ in row)
        lines = max(caption.count("\n") + 1 for _, caption in row)
        rows.append((row, height, height + lines * step + _MARGIN + 4))
    total = head.height + sum(size for *_, size in rows) + _MARGIN
    sheet = Image.new("RGB", (width, total), _PAPER)
    sheet.paste(head, (0, 0))
    draw = ImageDraw.Draw(sheet)
    y = head.height + _MARGIN
    for row, height, size in rows:
        for column, (image, caption) in enumerate(row):
            x = _MARGIN + column * (cell + _MARGIN)
            # Images of a row are aligned at the bottom, close to their captions.
            sheet.paste(Image.fromarray(image), (x, y + height - image.shape[0]))
            for number, line in enumerate(caption.split("\n")):
                place = (x, y + height + 2 + number * step)
                draw.text(place, shortened(line, _TEXT, cell), font=font(_TEXT), fill=_INK)
        y += size
    return np.array(sheet)


def with_legend(
    image: np.ndarray, title: str = "", legend: Sequence[LegendEntry] = ()
) -> np.ndarray:
    """``image`` with a title and a legend above, wrapped to its width."""
    return np.concatenate([np.array(_head(title, legend, image.shape[1])), image])


def save_image(path: str | Path, image: np.ndarray) -> Path:
    """Write ``image`` (RGB) as PNG or JPEG, by the suffix, and create parent folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # For JPEG; the default of 75 smears thin lines.
    Image.fromarray(image).save(path, quality=92)
    return path


def shown_path(path: str | os.PathLike) -> str:
    """``path`` relative to the current folder if it is below it; an address as it is."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") or "://" in str(path) else relative


def shortened(text: str, size: int, width: int) -> str:
    """``text`` if it fits in ``width`` pixels, else its beginning with an ellipsis."""
    if text_width(text, size) <= width:
        return text
    text = text[:width]
    while text and text_width(text.rstrip() + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _head(title: str, legend: Sequence[LegendEntry], width: int) -> Image.Image:
    words = title.split()
    titles = _wrapped(words, [text_width(f"{word} ", _TITLE) for word in words], width)
    rows = _wrapped(legend, [46 + text_width(entry.text, _TEXT) for entry in legend], width)
    step = line_height(_TEXT) + 4
    height = 12 + len(titles) * line_height(_TITLE) + len(rows) * step if titles or rows else 0
    head = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(head)
    y = 6
    for row in titles:
        line = shortened(" ".join(row), _TITLE, width - 2 * _MARGIN)
        draw.text((_MARGIN, y), line, font=font(_TITLE), fill=_INK)
        y += line_height(_TITLE)
    y += 2
    for row in rows:
        x = _MARGIN
        for entry in row:
            _draw_swatch(draw, x, y, entry)
            text = shortened(entry.text, _TEXT, width - x - 30)
            draw.text((x + 28, y), text, font=font(_TEXT), fill=_INK)
            x += 46 + text_width(entry.text, _TEXT)
        y += step
    return head


def _wrapped(items: Sequence, widths: Sequence[int], width: int) -> list[list]:
    """``items`` in rows that fit in ``width``, at least one per row."""
    rows: list[list] = []
    used = width
    for item, own in zip(items, widths, strict=True):
        if not rows or used + own > width - _MARGIN:
            rows.append([])
            used = _MARGIN
        rows[-1].append(item)
        used += own
    return rows


def _draw_swatch(draw: ImageDraw.ImageDraw, x: int, y: int, entry: LegendEntry) -> None:
    middle = y + line_height(_TEXT) // 2
    draw.rectangle((x, middle - 9, x + 22, middle + 9), fill=_SWATCH_PAPER)
    if entry.level is not None:
        draw_mark(draw, x + 11, middle, min(4 + entry.level, 7), entry.color, entry.level)
    elif entry.dashed:
        for start in (x + 2, x + 13):
            draw.rectangle((start, middle - 1, start + 6, middle + 1), fill=entry.color)
    else:
        draw.rectangle((x + 4, middle - 5, x + 18, middle + 5), outline=entry.color, width=2)
