"""One picture of a character: in some font, seen from some side, on a piece of a photograph."""

import cv2
import numpy as np

from negvision.toy.characters import SIDE, drawings
from negvision.toy.paint import contrasting_color, uneven_light
from negvision.toy.photos import random_crop


def compose_character(
    rng: np.random.Generator, split: str, character: str, side: int
) -> np.ndarray:
    """Paint one picture.

    Args:
        rng: the only source of randomness.
        split: whose photographs to use.
        character: what to draw.
        side: height and width of the picture in pixels.

    Returns:
        side x side x 3 uint8 BGR.
    """
    fonts = drawings(character)
    alpha = _look(rng, fonts[rng.integers(len(fonts))], side)
    image = random_crop(rng, split, side, side)
    color = contrasting_color(rng, image)
    image += rng.uniform(0.8, 1.0) * alpha[..., None] * (color - image)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.8))
    image += rng.uniform(0, 8) * rng.standard_normal(image.shape, dtype=np.float32)
    return uneven_light(rng, image)


def _look(rng: np.random.Generator, ink: np.ndarray, side: int) -> np.ndarray:
    """The strokes turned, sheared, stretched, tilted, and thinner or thicker: side x side, 0..1."""
    # Turned by at most 20 degrees: far beyond that a < may be read as a caret.
    angle = np.deg2rad(np.clip(rng.normal(0, 8), -20, 20))
    stretch, shear = np.exp(rng.normal(0, 0.1)), rng.normal(0, 0.1)
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.array([[stretch, shear], [0, 1 / stretch]])
    corners = np.array([[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE]]) - SIDE / 2
    seen = corners @ linear.T
    size = rng.uniform(0.8, 0.98) * side
    seen *= size / np.ptp(seen, axis=0).max()
    seen += rng.normal(0, 0.02 * size, size=(4, 2))  # tilted out of the plane
    # Nearly in the middle: recognizers are given aligned faces, too.
    seen += side / 2 + rng.uniform(-0.05, 0.05, size=2) * side
    warp = cv2.getPerspectiveTransform(
        (corners + SIDE / 2).astype(np.float32), seen.astype(np.float32)
    )
    # Soft strokes cut at another height are thinner or thicker ones. Reduced to size / SIDE, the
    # warp would skip samples of sharper ones.
    soft = cv2.GaussianBlur(ink, (0, 0), max(1.2, 0.35 * SIDE / size))
    gray = cv2.warpPerspective(soft, warp, (side, side), flags=cv2.INTER_LINEAR)
    edge = rng.uniform(0.2, 0.5)
    return np.clip((gray - edge) * 3 + 0.5, 0, 1)
