"""Boxes that are turned."""

from __future__ import annotations

from math import cos, radians, sin

from negvision.data.formats.contents import Box, bounds


def turned_bounds(box: Box, degrees: float, center: tuple[float, float]) -> Box:
    """The upright box around a box that is turned clockwise about ``center``.

    Example:
        >>> [round(value) for value in turned_bounds((10, 20, 30, 10), 90, (25, 25))]
        [20, 10, 10, 30]
    """
    x, y, w, h = box
    c, s = cos(radians(degrees)), sin(radians(degrees))
    points = []
    for px, py in ((x, y), (x + w, y), (x + w, y + h), (x, y + h)):
        dx, dy = px - center[0], py - center[1]
        points += [center[0] + c * dx - s * dy, center[1] + s * dx + c * dy]
    return bounds(points)
