"""What makes a box unusable, whatever file it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any


def find_box_problem(box: Any, width: float, height: float) -> str | None:
    """The kind of problem with a box; None if there is none.

    Args:
        box: x, y, width and height in pixels, of any type.
        width: Of the image; infinite if it is not known.
        height: Likewise.

    Example:
        >>> find_box_problem([90, 10, 20, 20], 100, 80), find_box_problem([5, 5, -3, 4], 100, 80)
        (None, 'box of negative size')
        >>> find_box_problem([120, 10, 20, 20], 100, 80)
        'box outside its image of 100 x 80'
    """
    try:
        x, y, w, h = box
        finite = isfinite(x) and isfinite(y) and isfinite(w) and isfinite(h)
    except (TypeError, ValueError, OverflowError):
        return "box that is not four numbers"
    if not finite:
        return "box with NaN or infinite coordinates"
    if w <= 0 or h <= 0:
        return "box of negative size" if w < 0 or h < 0 else "box of zero area"
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return f"box outside its image of {width} x {height}"
    return None


def clip_box(
    box: Sequence[float], width: float, height: float
) -> tuple[tuple[float, float, float, float], float]:
    """A box cut off at the borders of its image, and how many pixels it reached beyond them.

    Example:
        >>> clip_box([-5, 10, 20, 20], 100, 80)
        ((0, 10, 15, 20), 5)
    """
    x, y, w, h = box
    if x >= 0 and y >= 0 and x + w <= width and y + h <= height:
        return (x, y, w, h), 0
    right, bottom = min(x + w, width), min(y + h, height)
    beyond = max(-x, -y, x + w - right, y + h - bottom)
    x, y = max(x, 0), max(y, 0)
    return (x, y, right - x, bottom - y), beyond
