"""A picture of what a model says about an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import matplotlib
import numpy as np

from negvision.inference.inferencer import above
from negvision.inference.runtime import Detections, Embedding, LabelMap
from negvision.inference.runtime.results import Result
from negvision.visualization.boxes import draw_predictions, name_of
from negvision.visualization.canvas import Canvas
from negvision.visualization.colors import Color
from negvision.visualization.heat import draw_heat

# Segmentors know more classes than six colours tell apart, and regions lie side by side.
_LABEL_COLORS = "tab20"
# Of the image; smaller regions go without a name.
_SMALLEST_NAMED = 0.005


def draw(
    image: np.ndarray,
    result: Result,
    classes: Sequence[str],
    *,
    score_threshold: float = 0.3,
    ood_threshold: float | None = None,
) -> np.ndarray:
    """Draw boxes, or a label map with its OOD scores beside it.

    Args:
        image: (H, W, 3) uint8, blue first. A small one is enlarged, as in
            :class:`negvision.visualization.Canvas`.
        result: Of ``Inferencer.predict`` on it.
        classes: Names; a label beyond them is shown as its number.
        score_threshold: Boxes of a lower score are left out.
        ood_threshold: Unknown is what scores higher; None for what ``result`` calls unknown. Such
            boxes are dashed, such regions outlined.

    Returns:
        (H', W', 3) uint8, blue first. Where there is a map of OOD scores it stands on the right.

    Raises:
        ValueError: ``result`` is of a face, which nothing can be drawn of.

    Example:
        >>> [found] = model.predict(["street.jpg"])
        >>> cv2.imwrite("seen.jpg", draw(cv2.imread("street.jpg"), found, model.classes))
    """
    if isinstance(result, Embedding):
        raise ValueError("an embedding cannot be drawn; compare it with others by similarity()")
    if ood_threshold is not None and result.ood_scores is not None:
        result = dataclasses.replace(result, unknown=result.ood_scores > ood_threshold)
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if isinstance(result, LabelMap):
        picture = _draw_labels(rgb, result, classes, ood_threshold)
    else:
        picture = _draw_boxes(rgb, above(result, score_threshold), classes)
    return cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)


def label_color(label: int) -> Color:
    """The colour of a class in label maps; repeats after twenty."""
    red, green, blue = matplotlib.colormaps[_LABEL_COLORS].colors[label % 20]
    return round(255 * red), round(255 * green), round(255 * blue)


def _draw_boxes(rgb: np.ndarray, found: Detections, classes: Sequence[str]) -> np.ndarray:
    return draw_predictions(
        rgb, found.boxes, found.labels, found.scores, classes, unknown=found.unknown
    )


def _draw_labels(
    rgb: np.ndarray, found: LabelMap, classes: Sequence[str], threshold: float | None
) -> np.ndarray:
    canvas = Canvas(rgb)
    for label in np.unique(found.labels):
        mask = found.labels == label
        color = label_color(int(label))
        canvas.mask(mask, color)
        x, y, share = _middle(mask)
        if share >= _SMALLEST_NAMED:
            canvas.tag(x, y, name_of(int(label), classes), color)
    blended = canvas.picture()
    if found.ood_scores is None:
        return blended
    # At its own size: it was enlarged already.
    longest = max(blended.shape[:2])
    return draw_heat(blended, found.ood_scores, None, found.unknown, threshold, longest)


def _middle(mask: np.ndarray) -> tuple[float, float, float]:
    """The place deepest inside the regions of ``mask``, and the share of the image it covers."""
    # With a border, so that the edge of the image counts as one.
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(x) - 0.5, float(y) - 0.5, float(mask.mean())
