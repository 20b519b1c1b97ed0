"""Color distortions one pixel at a time, with fractions where the definition is exact."""

from fractions import Fraction
from math import floor

import numpy as np


def distort(image: np.ndarray, steps: list[tuple[str, float]]) -> np.ndarray:
    """The definition of :func:`negvision.ops.distort_colors`, for (H, W, 3) uint8 BGR."""
    image = image.copy()
    for kind, amount in steps:
        for place in np.ndindex(image.shape[:2]):
            image[place] = _step(image[place], kind, amount)
    return image


def _step(pixel: np.ndarray, kind: str, amount: float) -> np.ndarray:
    amount = np.float32(amount)
    if kind == "brightness":
        return _to_byte(pixel.astype(np.float32) + amount)
    if kind == "contrast":
        return _to_byte(pixel.astype(np.float32) * amount)
    hue, saturation, value = _to_hsv(*map(int, pixel))
    if kind == "saturation":
        saturation = int(_to_byte(np.float32(saturation) * amount))
    else:
        hue = (hue + int(amount)) % 180
    return _to_bgr(hue, saturation, value)


def _to_byte(values: np.ndarray) -> np.ndarray:
    return np.floor(np.clip(values, 0, 255).astype(np.float64) + 0.5).astype(np.uint8)


def _to_hsv(b: int, g: int, r: int) -> tuple[int, int, int]:
    """OpenCV's 8-bit HSV: quotients are fractions of 12 bits."""
    value = max(b, g, r)
    span = value - min(b, g, r)
    if value == r:
        sector = g - b
    elif value == g:
        sector = b - r + 2 * span
    else:
        sector = r - g + 4 * span
    hue = (sector * (round(30 * 4096 / span) if span else 0) + 2048) >> 12
    saturation = (span * (round(255 * 4096 / value) if value else 0) + 2048) >> 12
    return hue % 180, saturation, value


def _to_bgr(hue: int, saturation: int, value: int) -> list[int]:
    """The textbook's sectors, exactly, rounded to nearest with halves up."""
    sector, rest = divmod(Fraction(hue, 30), 1)
    none, full, falling, rising = Fraction(0), Fraction(1), rest, 1 - rest
    shares = {  # of blue, green, red: what the saturation takes off
        0: (full, rising, none), 1: (full, none, falling), 2: (rising, none, full),
        3: (none, falling, full), 4: (none, full, rising), 5: (falling, full, none),
    }[int(sector)]  # fmt: skip
    channels = (value * (1 - Fraction(saturation, 255) * share) for share in shares)
    return [floor(channel + Fraction(1, 2)) for channel in channels]
