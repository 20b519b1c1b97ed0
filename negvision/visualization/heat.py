"""Maps of a score beside the image: colours, a bar that explains them, and outlines."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from negvision.visualization.canvas import Canvas
from negvision.visualization.colors import UNKNOWN_COLOR, Color
from negvision.visualization.sheet import LegendEntry
from negvision.visualization.text import font, line_height, text_width

# Equal steps of the score look equally large, and lighter is more, for colour-blind readers too.
COLORMAP = "inferno"
TRUTH_COLOR: Color = (90, 220, 255)
_INK: Color = (20, 20, 20)
_PAPER: Color = (255, 255, 255)
_GAP, _BAR, _TEXT = 6, 14, 12
_DASH, _PERIOD = 7, 12
# From this side on a line of one pixel is too thin to be seen.
_LARGE = 640


def heat_colors(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colours of ``values``, black at ``low`` to pale yellow at ``high``; beyond them as at them.

    Args:
        values: Any shape, float.
        low: Of the range.
        high: Of the range; where it is ``low``, all is black.

    Returns:
        ``values.shape + (3,)`` uint8, RGB.
    """
    span = high - low
    places = np.clip((values - low) / span, 0, 1) if span > 0 else np.zeros_like(values)
    return matplotlib.colormaps[COLORMAP](places, bytes=True)[..., :3]


def heat_range(values: np.ndarray, threshold: float | None = None) -> tuple[float, float]:
    """From the 1st to the 99th percentile, so that a few extremes do not darken all the rest.

    With a ``threshold`` the range is widened to hold it.
    """
    low, high = (float(value) for value in np.quantile(values, [0.01, 0.99]))
    if threshold is not None:
        low, high = min(low, threshold), max(high, threshold)
    return low, high


def draw_heat(
    image: np.ndarray,
    heat: np.ndarray,
    truth: np.ndarray | None = None,
    unknown: np.ndarray | None = None,
    threshold: float | None = None,
    longest: int | None = None,
) -> np.ndarray:
    """The image, the map of its score, and a bar of the map's range, side by side.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        heat: ``(h, w)`` float, finite; shown at the size of the image.
        truth: ``(h, w)`` bool; its regions are outlined in both pictures.
        unknown: ``(h, w)`` bool; its regions are outlined, dashed.
        threshold: Is marked on the bar.
        longest: Of the image in the picture, as in :class:`Canvas`.

    Returns:
        ``(H', W', 3)`` uint8, RGB.

    Example:
        >>> heat = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
        >>> draw_heat(np.zeros((60, 80, 3), np.uint8), heat, heat > 0.8, longest=80).shape[0]
        60
    """
    left = Canvas(image, longest).picture()
    size = (left.shape[1], left.shape[0])
    low, high = heat_range(heat, threshold)
    right = cv2.resize(heat_colors(heat, low, high), size, interpolation=cv2.INTER_NEAREST)
    for mask, color, dashed in ((truth, TRUTH_COLOR, False), (unknown, UNKNOWN_COLOR, True)):
        if mask is not None:
            for picture in (left, right):
                outline(picture, mask, color, dashed)
    gap = np.full((size[1], _GAP, 3), 255, np.uint8)
    return np.hstack([left, gap, right, _bar(size[1], low, high, threshold)])


def outline(picture: np.ndarray, mask: np.ndarray, color: Color, dashed: bool = False) -> None:
    """Draw the outlines of the regions of ``mask`` into ``picture``, on a dark casing.

    Args:
        picture: ``(H, W, 3)`` uint8, RGB; is changed.
        mask: ``(h, w)`` bool, enlarged or reduced to the picture.
        color: Of the line.
        dashed: Dashes in the place of a full line.
    """
    size = (picture.shape[1], picture.shape[0])
    enlarged = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(enlarged, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    line = np.zeros(enlarged.shape, np.uint8)
    for contour in contours:
        points = contour[:, 0]
        if dashed:
            points = points[np.arange(len(points)) % _PERIOD < _DASH]
        line[points[:, 1], points[:, 0]] = 1
    if max(size) > _LARGE:
        line = cv2.dilate(line, np.ones((2, 2), np.uint8))
    casing = cv2.dilate(line, np.ones((3, 3), np.uint8)) > 0
    picture[casing] = picture[casing] // 4
    picture[line > 0] = color


def heat_legend(has_truth: bool, has_unknown: bool) -> list[LegendEntry]:
    """The legend of pictures by :func:`draw_heat`."""
    entries = [LegendEntry("OOD in the truth", TRUTH_COLOR)] if has_truth else []
    if has_unknown:
        entries.append(LegendEntry("predicted unknown", UNKNOWN_COLOR, dashed=True))
    return entries


def _bar(height: int, low: float, high: float, threshold: float | None) -> np.ndarray:
    """The colours from ``high`` (at the top) to ``low``, with their numbers."""
    marks = [(high, 0.0), (low, 1.0)]
    labels = [f"{high:.3g}", f"{low:.3g}"]
    if threshold is not None and high > low:
        marks.append((threshold, (high - threshold) / (high - low)))
        labels.append(f"{threshold:.3g}")
    width = _GAP + _BAR + 4 + max(text_width(label, _TEXT) for label in labels)
    bar = np.full((height, width, 3), _PAPER, np.uint8)
    column = np.linspace(high, low, height, dtype=np.float32)
    bar[:, _GAP : _GAP + _BAR] = heat_colors(column, low, high)[:, None]
    picture = Image.fromarray(bar)
    draw = ImageDraw.Draw(picture)
    taken: list[tuple[float, float]] = []
    for label, (_, place) in zip(labels, marks, strict=True):
        y = place * (height - 1)
        top = min(max(y - line_height(_TEXT) / 2, 0), max(height - line_height(_TEXT), 0))
        if place not in (0.0, 1.0):
            draw.line((_GAP, y, _GAP + _BAR + 2, y), fill=UNKNOWN_COLOR, width=2)
        if _is_free(top, taken):
            draw.text((_GAP + _BAR + 4, top), label, font=font(_TEXT), fill=_INK)
            taken.append((top, top + line_height(_TEXT)))
    return np.array(picture)


def _is_free(top: float, taken: Sequence[tuple[float, float]]) -> bool:
    bottom = top + line_height(_TEXT)
    return all(bottom <= start or top >= end for start, end in taken)
