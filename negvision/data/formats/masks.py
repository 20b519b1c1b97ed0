"""Masks of objects: from run lengths and pictures to outlines, and back."""

from __future__ import annotations

import numpy as np

from negvision.data.formats.contents import ImageRecord, Instance
from negvision.errors import Problems


def polygons_of(item: Instance, image: ImageRecord, notes: Problems) -> list[list[float]]:
    """The outlines of an object; those of an encoded mask are traced, and its holes counted."""
    if item.polygons or item.rle is None:
        return item.polygons
    from pycocotools import mask

    rle = item.rle
    if isinstance(rle["counts"], list):
        rle = mask.frPyObjects(rle, image.height, image.width)
    return outlines(mask.decode(rle), notes, image.name)


def outlines(mask: np.ndarray, notes: Problems, where: str, left: int = 0, top: int = 0) -> list:
    """The outer outlines of a mask (H, W), moved by ``left`` and ``top`` pixels.

    They run along the borders of the pixels, so that they enclose exactly those.

    Example:
        >>> outlines(np.ones((2, 3), np.uint8), Problems(), "a.png", left=5)
        [[5.0, 0.0, 5.0, 2.0, 8.0, 2.0, 8.0, 0.0]]
    """
    import cv2

    # Twice as large, traced points lie in the centers of the border pixels' corners.
    mask = np.ascontiguousarray(mask > 0, np.uint8)
    doubled = cv2.resize(mask, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    found, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for number, contour in enumerate(found):
        if hierarchy[0][number][3] >= 0:
            notes.add("hole of a mask, which an outline does not hold: filled", where)
            continue
        points = contour[:, 0].astype(float)
        # Odd coordinates are the last pixel of a pair.
        points = (points + points % 2) / 2 + (left, top)
        parts.append(points.ravel().tolist())
    return parts


def polygon_area(parts: list[list[float]]) -> float:
    """The area of outlines that do not overlap.

    Example:
        >>> polygon_area([[0, 0, 4, 0, 4, 3, 0, 3]])
        12.0
    """
    area = 0.0
    for part in parts:
        x, y = np.array(part[0::2]), np.array(part[1::2])
        area += abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    return area
