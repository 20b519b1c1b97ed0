"""One image with boxes, anchors and masks on it, and tags that do not hide one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from negvision.visualization.colors import Color, text_color_on
from negvision.visualization.text import font, line_height, text_width

_CASING: Color = (0, 0, 0)
_MARKS = ("circle", "square", "diamond", "triangle")

Rect = tuple[float, float, float, float]


class Canvas:
    """Draw on an image that is enlarged or reduced first.

    Args:
        image: ``(H, W, 3)`` uint8, RGB. It is not changed.
        longest: The longer side of the picture in pixels. By default the image's own, or the
            whole multiple of it that first reaches 640, so that a small image can be read.
        text_size: Height of the tags' font in pixels of the picture.

    Raises:
        ValueError: ``image`` is of another shape or dtype, or has no pixel.

    Example:
        >>> canvas = Canvas(np.zeros((96, 128, 3), np.uint8))
        >>> canvas.box((10, 10, 60, 80), (255, 255, 255), tag="cat 0.93")
        >>> canvas.picture().shape, canvas.zoom
        ((480, 640, 3), 5.0)
    """

    def __init__(self, image: np.ndarray, longest: int | None = None, text_size: int = 13) -> None:
        shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
        if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ValueError(f"image must be (H, W, 3) uint8 with pixels, got {shape} {dtype}")
        height, width = shape[:2]
        side = max(height, width)
        self.zoom = float(-(-640 // side)) if longest is None else longest / side
        size = (max(round(width * self.zoom), 1), max(round(height * self.zoom), 1))
        picture = Image.fromarray(image)
        if size != picture.size:
            kind = Image.Resampling.BICUBIC if self.zoom > 1 else Image.Resampling.LANCZOS
            picture = picture.resize(size, kind)
        self._picture = picture
        # Mode RGBA on an RGB picture blends colours that have a fourth, opaque-to-clear number.
        self._draw = ImageDraw.Draw(picture, "RGBA")
        self._text_size = text_size
        self._tags: list[tuple[Rect, str, Color]] = []

    def box(
        self,
        box: Sequence[float],
        color: Color,
        width: int = 2,
        dashed: bool = False,
        hatched: bool = False,
        tag: str = "",
    ) -> None:
        """Outline a box on a dark casing, which keeps it visible on any background.

        Args:
            box: ``x1, y1, x2, y2`` in pixels of the image.
            color: Of the line, the hatching and the tag.
            width: Of the line, in pixels of the picture.
            dashed: Draw dashes instead of a full line.
            hatched: Fill the box with slanted lines.
            tag: Text at the box; tags are placed when the picture is taken.
        """
        rect = self._rect(box)
        if hatched:
            self._hatch(rect, color)
        self._outline(rect, (*_CASING, 150), width + 2, dashed)
        self._outline(rect, color, width, dashed)
        if tag:
            self._tags.append((rect, tag, color))

    def anchor(
        self, box: Sequence[float], color: Color, level: int = 0, spacing: float | None = None
    ) -> None:
        """Draw an anchor: its outline faintly, and at its centre a mark that tells the level.

        Args:
            box: ``x1, y1, x2, y2`` in pixels of the image.
            color: Of outline and mark.
            level: The mark is a circle, square, diamond or triangle in turn, and grows with it.
            spacing: From one anchor's centre to the next, in pixels of the image; marks are kept
                small enough not to touch.
        """
        x1, y1, x2, y2 = self._rect(box)
        self._draw.rectangle((x1, y1, x2, y2), outline=(*color, 120), width=1)
        radius = 4.0 + level
        if spacing is not None:
            radius = max(min(radius, 0.3 * spacing * self.zoom), 1.5)
        # The rectangle ends on the last pixel inside, half a pixel before the box.
        draw_mark(self._draw, (x1 + x2 + 1) / 2, (y1 + y2 + 1) / 2, radius, color, level)

    def mask(self, mask: np.ndarray, color: Color, opacity: float = 0.45) -> None:
        """Tint the pixels of ``mask``, ``(H, W)`` bool at the size of the image."""
        stencil = Image.fromarray(np.asarray(mask, dtype=np.uint8) * round(255 * opacity))
        stencil = stencil.resize(self._picture.size, Image.Resampling.NEAREST)
        self._picture.paste(color, (0, 0, *self._picture.size), stencil)

    def tag(self, x: float, y: float, text: str, color: Color) -> None:
        """Write ``text`` with its middle at ``x, y``, in pixels of the image."""
        width, height = self._size_of(text)
        left, bottom = x * self.zoom - width / 2, y * self.zoom + height / 2 + 1
        # Tags stand on top of their boxes: this one is a line.
        self._tags.append(((left, bottom, left + width, bottom), text, color))

    def picture(self) -> np.ndarray:
        """The picture with its tags, ``(H * zoom, W * zoom, 3)`` uint8, RGB."""
        placed: list[Rect] = []
        for rect, text, color in self._tags:
            place = self._place(rect, text, placed)
            placed.append(place)
            self._draw.rectangle(place, fill=color)
            self._draw.text(
                (place[0] + 3, place[1]),
                text,
                font=font(self._text_size),
                fill=text_color_on(color),
            )
        self._tags = []
        return np.array(self._picture)

    def _rect(self, box: Sequence[float]) -> Rect:
        x1, y1, x2, y2 = (float(value) * self.zoom for value in box)
        # Far outside there is nothing to see, and Pillow counts pixels in 32 bits.
        limit = 4.0 * max(self._picture.size)
        x1, y1, x2, y2 = (min(max(value, -limit), limit) for value in (x1, y1, x2, y2))
        return x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)

    def _outline(self, rect: Rect, color: Color, width: int, dashed: bool) -> None:
        x1, y1, x2, y2 = rect
        half = (width - 1) / 2
        if not dashed:
            outer = (x1 - half, y1 - half, x2 + half, y2 + half)
            self._draw.rectangle(outer, outline=color, width=width)
            return
        dash, gap = 8, 5
        # The casing is longer than its dash by what it is wider.
        extra = 1 if color[:3] == _CASING else 0
        for y in (y1, y2):
            for start in np.arange(x1, x2 + 0.5, dash + gap):
                end = max(min(start + dash, x2), start)
                box = (start - extra, y - half, end + extra, y + half)
                self._draw.rectangle(box, fill=color)
        for x in (x1, x2):
            for start in np.arange(y1, y2 + 0.5, dash + gap):
                end = max(min(start + dash, y2), start)
                box = (x - half, start - extra, x + half, end + extra)
                self._draw.rectangle(box, fill=color)

    def _hatch(self, rect: Rect, color: Color) -> None:
        left, top = max(int(rect[0]), 0), max(int(rect[1]), 0)
        width = min(int(rect[2]) + 1, self._picture.width) - left
        height = min(int(rect[3]) + 1, self._picture.height) - top
        if width <= 0 or height <= 0:
            return
        stencil = Image.new("L", (width, height))
        draw = ImageDraw.Draw(stencil)
        for start in range(-height, width, 9):
            draw.line((start, height, start + height, 0), fill=130, width=2)
        self._picture.paste(color, (left, top, left + width, top + height), stencil)

    def _size_of(self, text: str) -> tuple[int, int]:
        return text_width(text, self._text_size) + 5, line_height(self._text_size)

    def _place(self, rect: Rect, text: str, placed: list[Rect]) -> Rect:
        """Where a tag covers the least of the others; above the box where there is room."""
        width, height = self._size_of(text)
        x1, y1, x2, y2 = rect
        above = [(x1, y1 - height - 1), (x2 - width, y1 - height - 1)]
        inside = [(x1 + 2, y1 + 2), (x1 + 2, y2 - height - 1)]
        below = [(x1, y2 + 1), (x2 - width, y2 + 1)]
        beside = [(x2 + 2, y1), (x1 - width - 2, y1)]
        # In a large box a tag hides little, and nobody takes it for the neighbour's.
        roomy = x2 - x1 > 1.5 * width and y2 - y1 > 4 * height
        corners = above + inside + below if roomy else above + below + beside + inside
        best, least = None, float("inf")
        for x, y in corners:
            x = min(max(x, 0), max(self._picture.width - width - 1, 0))
            y_inside = min(max(y, 0), max(self._picture.height - height - 1, 0))
            place = (x, y_inside, x + width, y_inside + height)
            # A tag that had to move into the picture covers its box: others come first.
            cost = sum(_overlap(place, other) for other in placed) + abs(y - y_inside)
            if cost < least:
                best, least = place, cost
            if not cost:
                break
        return best


def draw_mark(
    draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: Color, level: int
) -> None:
    """The mark of a level at ``x, y``, with a dark edge."""
    kind = _MARKS[level % len(_MARKS)]
    if kind == "circle":
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color, outline=_CASING)
        return
    sides, rotation = {"square": (4, 0), "diamond": (4, 45), "triangle": (3, 0)}[kind]
    # The same area to the eye as the circle.
    draw.regular_polygon((x, y, radius * 1.25), sides, rotation, fill=color, outline=_CASING)


def _overlap(one: Rect, other: Rect) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)
