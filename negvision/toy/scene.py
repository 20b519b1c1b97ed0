"""Compose one image of the digits dataset: background, handwriting, crowd, occluders, light."""

from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np

from negvision.toy.photos import contrasting_color, random_crop, uneven_light

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# The 8 x 8 samples (0..16) are enlarged to this size once, then warped into the image.
_SIDE = 96
_MARGIN = 12
_SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
# Gray level, as a share of the brightest, at which a stroke ends.
_EDGE = 0.53

# Side lengths in pixels; the largest is a share of the image's side (110 of 192).
MIN_SIZE, USUAL_SIZE, MAX_SHARE = 14.0, 20.0, 0.575
MAX_OVERLAP = 0.12  # IoU of two digits' boxes, before anything is hidden
VISIBLE_SHARE = 0.5  # a digit that shows less is ignored


@dataclass(frozen=True)
class Glyphs:
    """The samples of one split: ``ink[d]`` is N_d x 96 x 96 float32 in 0..1 for digit ``d``."""

    ink: tuple[np.ndarray, ...]
    sample_ids: tuple[np.ndarray, ...]


@cache
def load_glyphs(split: str) -> Glyphs:
    """The handwriting samples of ``split``, from scikit-learn; splits share none."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    shares = list(_SHARES)
    start = sum(_SHARES[name] for name in shares[: shares.index(split)])
    stop = start + _SHARES[split]
    ink, sample_ids = [], []
    for digit in range(10):
        ids = np.flatnonzero(digits.target == digit)
        # The file is sorted by writer; a shuffle gives each split all writers.
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
    """A digit to paint.

    ``alpha`` is h x w float32 in 0..1, cropped to its pixels above one half.
    """

    digit: int
    alpha: np.ndarray


def draw_stroke(rng: np.random.Generator, split: str, digit: int, size: float) -> Stroke:
    """Draw a random sample of ``digit``, rotated, sheared and stretched.

    Args:
        rng: The only source of randomness.
        split: The handwriting to use.
        digit: 0..9.
        size: Length of the longer side in pixels, at least 6.
    """
    samples = load_glyphs(split).ink[digit]
    ink = samples[rng.integers(len(samples))]
    # Rotated by at most 25 degrees: beyond that, a 6 looks like a 9.
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


@dataclass
class SceneObject:
    """One digit or crowd, as annotated.

    Attributes:
        digit: 0..9.
        mask: Visible pixels, H x W bool.
        visible: Visible share of the stroke's pixels, 0..1; pixels beyond the border are hidden.
        crowd: Several digits of one class under one mask.
    """

    digit: int
    mask: np.ndarray
    visible: float = 1.0
    crowd: bool = False

    @property
    def ignore(self) -> bool:
        """Whether too little of the digit is visible to require a detection."""
        return not self.crowd and self.visible < VISIBLE_SHARE


@dataclass
class _Placed:
    """A digit or crowd on the canvas, with its full xyxy box and pixel count before occlusion."""

    digit: int
    box: np.ndarray
    area: int
    crowd: bool = False


@dataclass
class _Canvas:
    """An image being painted.

    ``owner`` holds 1 + the index in ``placed`` of what is visible at each pixel, or 0.
    """

    image: np.ndarray
    owner: np.ndarray
    placed: list[_Placed] = field(default_factory=list)


def compose_scene(
    rng: np.random.Generator, split: str, side: int, digits: list[int], crowd: int | None
) -> tuple[np.ndarray, list[SceneObject]]:
    """Paint one image.

    Args:
        rng: The only source of randomness.
        split: The photographs and handwriting to use.
        side: Height and width in pixels.
        digits: Classes to place; a digit that finds no free place is left out.
        crowd: Class of a cluster of small digits; None for no cluster.

    Returns:
        The image, side x side x 3 uint8 BGR, and its visible objects.
    """
    image = random_crop(rng, split, side, side)
    canvas = _Canvas(image, np.zeros((side, side), dtype=np.int32))
    if crowd is not None:
        _place_crowd(rng, canvas, split, crowd)
    # Large digits first: a small one still finds room beside them.
    for size, digit in sorted(((_draw_size(rng, side), digit) for digit in digits), reverse=True):
        _place(rng, canvas, draw_stroke(rng, split, digit, size))
    for item in canvas.placed:
        if not item.crowd and rng.random() < 0.2:
            _hide_part(rng, canvas, split, item.box)
    objects = []
    for number, item in enumerate(canvas.placed, 1):
        mask = canvas.owner == number
        if mask.any():
            visible = float(mask.sum()) / item.area
            objects.append(SceneObject(item.digit, mask, visible, item.crowd))
    return uneven_light(rng, canvas.image), objects


def _draw_size(rng: np.random.Generator, side: int) -> float:
    if rng.random() < 0.08:
        return rng.uniform(MIN_SIZE, USUAL_SIZE)
    return np.exp(rng.uniform(np.log(USUAL_SIZE), np.log(max(USUAL_SIZE, MAX_SHARE * side))))


def _place(rng: np.random.Generator, canvas: _Canvas, stroke: Stroke) -> None:
    """Paint ``stroke`` at a place where it overlaps no box by more than ``MAX_OVERLAP``."""
    side, (h, w) = canvas.owner.shape[0], stroke.alpha.shape
    beyond = 0.3 if rng.random() < 0.12 else 0.0  # share of a side that may leave the image
    for _ in range(40):
        left = int(rng.integers(round(-beyond * w), max(1, side - w + round(beyond * w) + 1)))
        top = int(rng.integers(round(-beyond * h), max(1, side - h + round(beyond * h) + 1)))
        box = np.array([left, top, left + w, top + h])
        if all(_overlap(box, other.box) <= MAX_OVERLAP for other in canvas.placed):
            break
    else:
        return
    _paint(rng, canvas, stroke.alpha, left, top, number=len(canvas.placed) + 1)
    canvas.placed.append(_Placed(stroke.digit, box, area=int((stroke.alpha > 0.5).sum())))


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """The larger of IoU and half the intersection over the smaller box."""
    inter = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    area_a, area_b = np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2])
    return max(inter / (area_a + area_b - inter), 0.5 * inter / min(area_a, area_b))


def _paint(
    rng: np.random.Generator,
    canvas: _Canvas,
    alpha: np.ndarray,
    left: int,
    top: int,
    number: int,
    color: np.ndarray | None = None,
) -> None:
    """Blend a stroke into the image and assign its pixels to object ``number``."""
    side = canvas.owner.shape[0]
    y1, y2 = max(top, 0), min(top + alpha.shape[0], side)
    x1, x2 = max(left, 0), min(left + alpha.shape[1], side)
    alpha = alpha[y1 - top : y2 - top, x1 - left : x2 - left]
    window = canvas.image[y1:y2, x1:x2]
    if color is None:
        color = contrasting_color(rng, window)
    shade = 1 + rng.uniform(-0.12, 0.12) * np.linspace(-1, 1, window.shape[0])[:, None, None]
    ink = np.clip(color * shade, 0, 255).astype(np.float32)
    window += alpha[..., None] * (ink - window)
    canvas.owner[y1:y2, x1:x2][alpha > 0.5] = number


def _place_crowd(rng: np.random.Generator, canvas: _Canvas, split: str, digit: int) -> None:
    """Paint a cluster of small digits as one object, before any digit is placed."""
    side = canvas.owner.shape[0]
    columns, rows = int(rng.integers(3, 6)), int(rng.integers(2, 5))
    pitch = rng.uniform(11, 15)
    left = rng.uniform(4, max(5, side - columns * pitch - 8))
    top = rng.uniform(4, max(5, side - rows * pitch - 8))
    width, height = round(columns * pitch + 4), round(rows * pitch + 4)
    x, y = int(left), int(top)
    color = contrasting_color(rng, canvas.image[y : y + height, x : x + width])
    for row in range(rows):
        for column in range(columns):
            stroke = draw_stroke(rng, split, digit, rng.uniform(9, 14))
            dx, dy = rng.uniform(-2.5, 2.5, size=2)
            at = round(left + column * pitch + dx), round(top + row * pitch + dy)
            _paint(rng, canvas, stroke.alpha, *at, number=1, color=color)
    gaps = np.ones((9, 9), np.uint8)
    region = cv2.morphologyEx(canvas.owner.astype(np.uint8), cv2.MORPH_CLOSE, gaps)
    canvas.owner[:] = region
    ys, xs = np.nonzero(region)
    box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    canvas.placed.append(_Placed(digit, box, area=int(region.sum()), crowd=True))


def _hide_part(rng: np.random.Generator, canvas: _Canvas, split: str, box: np.ndarray) -> None:
    """Cover a part of the digit in ``box`` with a bar or disc cut from another photograph."""
    side = canvas.owner.shape[0]
    left, top, right, bottom = (int(v) for v in box)
    w, h = right - left, bottom - top
    share = rng.uniform(0.15, 0.45) if rng.random() < 0.85 else rng.uniform(0.6, 0.85)
    cover = np.zeros((side, side), dtype=np.float32)
    if rng.random() < 0.5:
        length, thick = (h, share * w) if h > w else (w, share * h)
        size = (int(thick), int(1.4 * length)) if h > w else (int(1.4 * length), int(thick))
        where = rng.uniform(0.5 * share, 1 - 0.5 * share)
        center = (left + where * w, top + h / 2) if h > w else (left + w / 2, top + where * h)
        corners = cv2.boxPoints((center, size, rng.uniform(-20, 20)))
        cv2.fillPoly(cover, [np.round(corners * 16).astype(np.int32)], 1.0, cv2.LINE_8, shift=4)
    else:
        corner = rng.integers(2, size=2)
        center = (left + corner[0] * w, top + corner[1] * h)
        axes = (max(2, int(1.2 * share * w)), max(2, int(1.2 * share * h)))
        center = (int(center[0]), int(center[1]))
        cv2.ellipse(cover, center, axes, 0, 0, 360, 1.0, cv2.FILLED)
    ys, xs = np.nonzero(cover)
    if ys.size == 0:
        return
    y1, y2, x1, x2 = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
    patch = random_crop(rng, split, max(8, y2 - y1), max(8, x2 - x1))[: y2 - y1, : x2 - x1]
    cover = cv2.GaussianBlur(cover, (0, 0), 0.5)[y1:y2, x1:x2]
    window = canvas.image[y1:y2, x1:x2]
    window += cover[..., None] * (patch - window)
    canvas.owner[y1:y2, x1:x2][cover > 0.5] = 0
