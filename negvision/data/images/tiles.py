"""Overlapping tiles of large images: where they lie, and what each shows of a box."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from negvision.errors import ConfigError

# Share of a box's area below which a tile that cuts it does not teach it.
MIN_VISIBLE = 0.25
MERGES = ("nms", "fusion")
_SIDE = re.compile(r"(\d+)(?:x(\d+))?")
Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Tiles:
    """Tiles of one size that overlap, evenly spread over an image.

    Args:
        size: Width and height in pixels; an image that is smaller is one tile in that direction.
        overlap: Of neighbors at least: below 1 a share of their side, else pixels. It should be as
            large as the objects, so that some tile shows each as a whole.
        merge: Which box an object gets that several tiles show: of the highest score ("nms"), or
            the mean, weighted by the scores ("fusion").

    Raises:
        ConfigError: A number out of its range.
    """

    size: tuple[int, int]
    overlap: float = 0.2
    merge: str = "nms"

    def __post_init__(self) -> None:
        pixels = [self._pixels(side) for side in self.size]
        if min(self.size) < 1 or any(
            not 1 <= p < s for p, s in zip(pixels, self.size, strict=True)
        ):
            raise ConfigError(
                f"tiles {str(self)!r}: the overlap must be from 1 pixel to less than a tile. "
                "Objects at a tile's edge are joined by what both tiles show"
            )
        if self.merge not in MERGES:
            raise ConfigError(f"tiles {str(self)!r}: joined by {' or '.join(MERGES)}")

    @classmethod
    def of(cls, text: Tiles | str | int | None) -> Tiles | None:
        """Read "SIZE[:OVERLAP[:MERGE]]", SIZE being a side or WIDTHxHEIGHT; None for "none" or 0.

        Raises:
            ConfigError: It is nothing of the kind.

        Example:
            >>> Tiles.of("640x480:64"), Tiles.of(640) == Tiles((640, 640)), Tiles.of("none")
            (Tiles(size=(640, 480), overlap=64.0, merge='nms'), True, None)
        """
        if text is None or isinstance(text, Tiles):
            return text
        size, *rest = str(text).split(":")
        if size in ("none", "0") and not rest:
            return None
        sides = _SIDE.fullmatch(size)
        try:
            overlap = float(rest[0]) if rest else 0.2
        except ValueError:
            overlap = math.nan
        if sides is None or math.isnan(overlap) or len(rest) > 2:
            raise ConfigError(
                f"tiles {str(text)!r}: give SIZE[:OVERLAP[:MERGE]], such as 640, 640:0.2, "
                "1024x768:128 or 640:0.2:fusion; none for whole images"
            )
        return cls((int(sides[1]), int(sides[2] or sides[1])), overlap, *rest[1:])

    def __str__(self) -> str:
        width, height = self.size
        side = str(width) if width == height else f"{width}x{height}"
        return f"{side}:{self.overlap:g}" + f":{self.merge}" * (self.merge != "nms")

    def windows(self, height: int, width: int) -> list[Window]:
        """The tiles of an image as (x1, y1, x2, y2), row by row.

        Example:
            >>> Tiles((4, 8), overlap=1).windows(height=5, width=10)
            [(0, 0, 4, 5), (3, 0, 7, 5), (6, 0, 10, 5)]
        """
        columns, rows = (
            self._starts(*pair) for pair in zip((width, height), self.size, strict=True)
        )
        return [
            (x, y, min(x + self.size[0], width), min(y + self.size[1], height))
            for y in rows
            for x in columns
        ]

    def _pixels(self, side: int) -> float:
        return self.overlap * side if self.overlap < 1 else self.overlap

    def _starts(self, length: int, side: int) -> list[int]:
        if length <= side:
            return [0]
        steps = math.ceil((length - side) / (side - self._pixels(side)))
        return [round(i * (length - side) / steps) for i in range(steps + 1)]


def cut(boxes: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) as a window shows them, relative to it, and the visible share of each (N,).

    Example:
        >>> boxes, visible = cut(np.array([[0.0, 0, 4, 4], [8, 0, 9, 1]]), (2, 2, 6, 6))
        >>> boxes[0].tolist(), visible.tolist()
        ([0.0, 0.0, 2.0, 2.0], [0.25, 0.0])
    """
    x1, y1, x2, y2 = window
    inside = np.clip(boxes, [x1, y1, x1, y1], [x2, y2, x2, y2])
    whole, left = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes, inside))
    return inside - [x1, y1, x1, y1], left / np.maximum(whole, np.finfo(float).tiny)
