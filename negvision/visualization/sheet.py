"""Many pictures on one sheet, with captions, a title and a legend."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from negvision.visualization.canvas import draw_mark
from negvision.visualization.colors import Color
from negvision.visualization.text import font, line_height, shortened, text_width

_PAPER: Color = (255, 255, 255)
_INK: Color = (20, 20, 20)
_SWATCH_PAPER: Color = (70, 70, 70)
_MARGIN = 12
_TEXT, _TITLE = 14, 18
_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class LegendEntry:
    """A colour and what it stands for; ``level`` gives the swatch that level's mark instead."""

    text: str
    color: Color
    level: int | None = None
    dashed: bool = False


def contact_sheet(
    pictures: Sequence[np.ndarray],
    captions: Sequence[str],
    columns: int = 4,
    title: str = "",
    legend: Sequence[LegendEntry] = (),
) -> np.ndarray:
    """Pictures in rows of ``columns``, the caption of each below it.

    Args:
        pictures: ``(H, W, 3)`` uint8 each, RGB, not all of one size; shown as they are.
        captions: One a picture, a line each (``"\\n"`` starts another); what does not fit in the
            width of the column is cut with an ellipsis.
        columns: At least 1; fewer are used where there are fewer pictures.
        title: A line above all.
        legend: Entries below the title.

    Returns:
        The sheet, ``(H, W, 3)`` uint8, RGB, on white.

    Raises:
        ValueError: ``columns`` below 1, or captions and pictures of different number.

    Example:
        >>> tiles = [np.full((90, 120, 3), shade, np.uint8) for shade in (60, 120, 180)]
        >>> contact_sheet(tiles, ["a", "b", "c"], columns=2).shape
        (264, 276, 3)
    """
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    if len(pictures) != len(captions):
        raise ValueError(f"{len(pictures)} pictures need as many captions, got {len(captions)}")
    columns = max(min(columns, len(pictures)), 1)
    cell = max((picture.shape[1] for picture in pictures), default=200)
    width = columns * cell + (columns + 1) * _MARGIN
    step = line_height(_TEXT)

    head = _head(title, legend, width)
    rows = []
    for start in range(0, len(pictures), columns):
        height = max(picture.shape[0] for picture in pictures[start : start + columns])
        lines = max(caption.count("\n") + 1 for caption in captions[start : start + columns])
        rows.append((start, height, lines))
    total = head.height + sum(height + lines * step + _MARGIN + 4 for _, height, lines in rows)
    sheet = Image.new("RGB", (width, total + _MARGIN), _PAPER)
    sheet.paste(head, (0, 0))
    draw = ImageDraw.Draw(sheet)
    y = head.height + _MARGIN
    for start, height, lines in rows:
        for column, index in enumerate(range(start, min(start + columns, len(pictures)))):
            picture = pictures[index]
            x = _MARGIN + column * (cell + _MARGIN)
            # Captions of a row stand on one line, each close below its picture.
            sheet.paste(Image.fromarray(picture), (x, y + height - picture.shape[0]))
            for number, line in enumerate(captions[index].split("\n")):
                place = (x, y + height + 2 + number * step)
                draw.text(place, shortened(line, _TEXT, cell), font=font(_TEXT), fill=_INK)
        y += height + lines * step + _MARGIN + 4
    return np.array(sheet)


def with_legend(
    picture: np.ndarray, title: str = "", legend: Sequence[LegendEntry] = ()
) -> np.ndarray:
    """``picture`` with a title and a legend above it, which wraps to the picture's width."""
    head = _head(title, legend, picture.shape[1])
    return np.concatenate([np.array(head), picture])


def save_picture(path: str | Path, picture: np.ndarray) -> Path:
    """Write ``picture`` (RGB) as PNG or JPEG, by the suffix; folders above it are made.

    Raises:
        ValueError: another suffix.
    """
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"a picture is written as {', '.join(_SUFFIXES)}, got {str(path)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Quality is JPEG's alone; the default of 75 smears thin lines.
    Image.fromarray(picture).save(path, quality=92)
    return path


def shown_path(path: Path) -> str:
    """``path`` relative to the current folder where it is below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _head(title: str, legend: Sequence[LegendEntry], width: int) -> Image.Image:
    rows = _wrapped(legend, width)
    step = line_height(_TEXT) + 4
    height = 0
    titles = _title_lines(title, width)
    if titles or rows:
        height = 8 + len(titles) * line_height(_TITLE) + len(rows) * step + 4
    head = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(head)
    y = 6
    for line in titles:
        draw.text((_MARGIN, y), line, font=font(_TITLE), fill=_INK)
        y += line_height(_TITLE)
    y += 2
    for row in rows:
        x = _MARGIN
        for entry in row:
            _draw_swatch(draw, x, y, entry)
            text = shortened(entry.text, _TEXT, width - x - 30)
            draw.text((x + 28, y), text, font=font(_TEXT), fill=_INK)
            x += _entry_width(entry)
        y += step
    return head


def _title_lines(title: str, width: int) -> list[str]:
    lines: list[str] = []
    for word in title.split():
        if lines and text_width(f"{lines[-1]} {word}", _TITLE) <= width - 2 * _MARGIN:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [shortened(line, _TITLE, width - 2 * _MARGIN) for line in lines]


def _entry_width(entry: LegendEntry) -> int:
    return 28 + text_width(entry.text, _TEXT) + 18


def _wrapped(legend: Sequence[LegendEntry], width: int) -> list[list[LegendEntry]]:
    rows: list[list[LegendEntry]] = []
    used = width
    for entry in legend:
        if not rows or used + _entry_width(entry) > width - _MARGIN:
            rows.append([])
            used = _MARGIN
        rows[-1].append(entry)
        used += _entry_width(entry)
    return rows


def _draw_swatch(draw: ImageDraw.ImageDraw, x: int, y: int, entry: LegendEntry) -> None:
    middle = y + line_height(_TEXT) // 2
    # On grey, so that white and yellow show on the white paper as they do on a photograph.
    draw.rectangle((x, middle - 9, x + 22, middle + 9), fill=_SWATCH_PAPER)
    if entry.level is not None:
        draw_mark(draw, x + 11, middle, min(4 + entry.level, 7), entry.color, entry.level)
    elif entry.dashed:
        for start in (x + 2, x + 13):
            draw.rectangle((start, middle - 1, start + 6, middle + 1), fill=entry.color)
    else:
        draw.rectangle((x + 4, middle - 5, x + 18, middle + 5), outline=entry.color, width=2)
