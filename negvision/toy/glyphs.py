"""Handwritten digits of scikit-learn, drawn at any size as smooth strokes."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# The 8 x 8 samples (0..16) are enlarged to this size once, then warped into the picture.
_SIDE = 96
_MARGIN = 12
_SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
# Gray value, as a share of the brightest, at which a stroke ends.
_EDGE = 0.53


@dataclass(frozen=True)
class Glyphs:
    """The samples of one split: ``ink[d]`` is N_d x 96 x 96 float32 in 0..1 for digit ``d``."""

    ink: tuple[np.ndarray, ...]
    sample_ids: tuple[np.ndarray, ...]


@cache
def load_glyphs(split: str) -> Glyphs:
    """The handwriting samples of ``split``; no sample of scikit-learn's is in two splits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    shares = list(_SHARES)
    start = sum(_SHARES[name] for name in shares[: shares.index(split)])
    stop = start + _SHARES[split]
    ink, sample_ids = [], []
    for digit in range(10):
        ids = np.flatnonzero(digits.target == digit)
        # The file lists writers one after another; a shuffle gives each split all hands.
        ids = np.random.default_rng([1797, digit]).permutation(ids)
        ids = ids[round(start * len(ids)) : round(stop * len(ids))]
        ink.append(np.stack([_enlarge(image) for image in digits.images[ids]]))
        sample_ids.append(ids)
    return Glyphs(tuple(ink), tuple(sample_ids))


def _enlarge(sample: np.ndarray) -> np.ndarray:
    padded = np.pad(sample.astype(np.float32), 1)
    inner = _SIDE - 2 * _MARGIN
    big = cv2.resize(padded, (inner, inner), interpolation=cv2.INTER_CUBIC)
    big = cv2.GaussianBlur(np.pad(big, _MARGIN), (0, 0), 2.0)
    return np.clip(big / big.max(), 0, 1)


@dataclass(frozen=True)
class Stroke:
    """A digit ready to be painted.

    ``alpha`` is h x w float32 in 0..1, cropped so that its pixels above one half touch all four
    sides of the array; h and w are the digit's height and width in pixels.
    """

    digit: int
    alpha: np.ndarray


def draw_stroke(rng: np.random.Generator, split: str, digit: int, size: float) -> Stroke:
    """Draw a random sample of ``digit``, turned, sheared and stretched.

    Args:
        rng: the only source of randomness.
        split: whose handwriting to use.
        digit: 0..9.
        size: length of the longer side in pixels, at least 6.
    """
    samples = load_glyphs(split).ink[digit]
    ink = samples[rng.integers(len(samples))]
    # Turned by at most 25 degrees: beyond that a 6 may be read as a 9.
    angle = np.deg2rad(np.clip(rng.normal(0, 10), -25, 25))
    stretch, shear = np.exp(rng.normal(0, 0.13)), rng.normal(0, 0.08)
    edge = _EDGE + rng.uniform(-0.06, 0.04)
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.array([[stretch, shear], [0, 1 / stretch]])

    # Scale so that the longer side of the stroke, once transformed, is `size`.
    rows, columns = np.nonzero(ink > edge)
    extent = np.ptp(linear @ np.stack([columns, rows]), axis=1) + 1
    scale = size / extent.max()
    linear *= scale

    center = np.array([columns.min() + columns.max(), rows.min() + rows.max()]) / 2
    side = int(np.ceil(size * 1.5)) + 4
    offset = np.array([side / 2, side / 2]) - linear @ center
    warp = np.column_stack([linear, offset])
    if scale < 0.5:
        # Below half size the warp would skip samples of the ink.
        ink = cv2.GaussianBlur(ink, (0, 0), 0.35 / scale)
    gray = cv2.warpAffine(ink, warp, (side, side), flags=cv2.INTER_LINEAR)
    # A steeper ramp for larger digits keeps the soft edge about one and a half pixels wide.
    gain = max(3.0, 11.0 * scale)
    alpha = np.clip((gray - edge) * gain + 0.5, 0, 1)
    rows, columns = np.nonzero(alpha > 0.5)
    alpha = alpha[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return Stroke(digit, np.ascontiguousarray(alpha, dtype=np.float32))
