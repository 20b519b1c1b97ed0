"""Bilinear interpolation by loops over the four pixels around a point."""

import math


def bilinear(plane, y: float, x: float):
    """Interpolate ``plane`` (H, W, ...) at a point; pixels outside of it count as 0."""
    value = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < len(plane) and 0 <= column < len(plane[0]):
                value += (1 - abs(y - row)) * (1 - abs(x - column)) * plane[row][column]
    return value
