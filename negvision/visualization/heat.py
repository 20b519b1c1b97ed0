"""Maps of a score beside the image, with a color bar and outlines of regions."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw

from negvision.visualization.canvas import Canvas, font, line_height, text_width
from negvision.visualization.colors import UNKNOWN_COLOR, Color
from negvision.visualization.sheet import LegendEntry

# Perceptually uniform, and lighter means more, for color-blind readers too.
_COLORMAP = "inferno"
TRUTH_COLOR: Color = (90, 220, 255)
_GAP, _BAR, _TEXT = 6, 14, 12
_DASH, _PERIOD = 7, 12
# From this side on, lines of one pixel are too thin.
_LARGE = 640


def heat_colors(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """RGB from black at ``low`` to pale yellow at ``high``, ``values.shape + (3,)`` uint8.

    Values beyond are clipped; if the ends are equal, everything is black.
    """
    import matplotlib  # loads slowly

    span = high - low
    places = np.clip((values - low) / span, 0, 1) if span > 0 else np.zeros_like(values)
    return matplotlib.colormaps[_COLORMAP](places, bytes=True)[..., :3]


def heat_range(values: np.ndarray, threshold: float | None = None) -> tuple[float, float]:
    """The 1st and 99th percentiles, widened to include ``threshold`` if given."""
    low, high = (float(value) for value in np.quantile(values, [0.01, 0.99]))
    return (low, high) if threshold is None else (min(low, threshold), max(high, threshold))


def draw_heat(
    image: np.ndarray,
    heat: np.ndarray,
    truth: np.ndarray | None = None,
    unknown: np.ndarray | None = None,
    threshold: float | None = None,
    longest: int | None = None,
) -> np.ndarray:
    """Draw the image, the map of its score, and a color bar side by side.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        heat: ``(h, w)`` float, finite; shown at the size of the image.
        truth: ``(h, w)`` bool; its regions are outlined.
        unknown: ``(h, w)`` bool; its regions are outlined with dashes.
        threshold: Marked on the bar.
        longest: Of the image, as in :class:`Canvas`.

    Returns:
        ``(H', W', 3)`` uint8, RGB.

    Example:
        >>> heat = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
        >>> draw_heat(np.zeros((60, 80, 3), np.uint8), heat, heat > 0.8, longest=80).shape[0]
        60
    """
    left = Canvas(image, longest).image()
    size = (left.shape[1], left.shape[0])
    low, high = heat_range(heat, threshold)
    right = cv2.resize(heat_colors(heat, low, high), size, interpolation=cv2.INTER_NEAREST)
    for mask, color, dashed in ((truth, TRUTH_COLOR, False), (unknown, UNKNOWN_COLOR, True)):
        if mask is not None:
            outline(left, mask, color, dashed)
            outline(right, mask, color, dashed)
    gap = np.full((size[1], _GAP, 3), 255, np.uint8)
    return np.hstack([left, gap, right, _bar(size[1], low, high, threshold)])


def outline(image: np.ndarray, mask: np.ndarray, color: Color, dashed: bool = False) -> None:
    """Outline the regions of ``mask``, ``(h, w)`` bool, in ``image``, with a dark casing."""
    size = (image.shape[1], image.shape[0])
    resized = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(resized, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    line = np.zeros(resized.shape, np.uint8)
    for contour in contours:
        points = contour[:, 0]
        if dashed:
            points = points[np.arange(len(points)) % _PERIOD < _DASH]
        line[tuple(points[:, ::-1].T)] = 1
    if max(size) > _LARGE:
        line = cv2.dilate(line, np.ones((2, 2), np.uint8))
    casing = cv2.dilate(line, np.ones((3, 3), np.uint8)) > 0
    image[casing] = image[casing] // 4
    image[line > 0] = color


def heat_legend(has_truth: bool, has_unknown: bool) -> list[LegendEntry]:
    """The legend for :func:`draw_heat`."""
    entries = [LegendEntry("OOD in the ground truth", TRUTH_COLOR)] if has_truth else []
    if has_unknown:
        entries.append(LegendEntry("predicted unknown", UNKNOWN_COLOR, dashed=True))
    return entries


def shrunk(values: np.ndarray, longest: int | None) -> np.ndarray:
    """A map (H, W) with a longer side of at most ``longest`` pixels, by area means."""
    if longest is None or max(values.shape) <= longest:
        return values
    factor = longest / max(values.shape)
    size = tuple(max(round(side * factor), 1) for side in values.shape[::-1])
    if values.dtype == bool:
        # A region of one pixel stays visible.
        return cv2.resize(values.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    return cv2.resize(values, size, interpolation=cv2.INTER_AREA)


def _bar(height: int, low: float, high: float, threshold: float | None) -> np.ndarray:
    """The colors from ``high`` (at the top) to ``low``, with their values."""
    marks = [(high, 0.0), (low, 1.0)]
    if threshold is not None and high > low:
        marks.append((threshold, (high - threshold) / (high - low)))
    width = _GAP + _BAR + 4 + max(text_width(f"{value:.3g}", _TEXT) for value, _ in marks)
    bar = np.full((height, width, 3), 255, np.uint8)
    column = np.linspace(high, low, height, dtype=np.float32)
    bar[:, _GAP : _GAP + _BAR] = heat_colors(column, low, high)[:, None]
    image = Image.fromarray(bar)
    draw = ImageDraw.Draw(image)
    step, taken = line_height(_TEXT), []
    for value, place in marks:
        y = place * (height - 1)
        top = min(max(y - step / 2, 0), max(height - step, 0))
        if place not in (0.0, 1.0):
            draw.line((_GAP, y, _GAP + _BAR + 2, y), fill=UNKNOWN_COLOR, width=2)
        if all(abs(top - other) >= step for other in taken):
            draw.text((_GAP + _BAR + 4, top), f"{value:.3g}", font=font(_TEXT), fill=(20, 20, 20))
            taken.append(top)
    return np.array(image)
