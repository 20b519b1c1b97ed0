"""Draw predictions on an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from negvision.data.score_threshold import FIXED
from negvision.inference.runtime import Classification, Embedding, LabelMap
from negvision.inference.runtime.results import Result
from negvision.visualization.boxes import draw_predictions, name_of
from negvision.visualization.canvas import Canvas
from negvision.visualization.colors import UNKNOWN_COLOR, Color, class_color
from negvision.visualization.heat import draw_heat

# Segmentors have more classes than six colors can tell apart, and their regions touch.
_LABEL_COLORS = "tab20"
# Share of the image; smaller regions get no name.
_SMALLEST_NAMED = 0.005
# Of a class: others would be written as 0.00.
_SMALLEST_PROBABILITY = 0.005


def draw(
    image: np.ndarray,
    result: Result,
    classes: Sequence[str],
    *,
    score_threshold: float = FIXED.value,
    ood_threshold: float | None = None,
    top: int | None = None,
    enlarge: bool = False,
) -> np.ndarray:
    """Draw boxes and masks, a label map with its OOD scores next to it, or the class of the image.

    Args:
        image: (H, W, 3) uint8 BGR.
        result: Of ``Inferencer.predict`` for this image.
        classes: Names; other labels are shown as numbers.
        score_threshold: Boxes with a lower score are not drawn.
        ood_threshold: Higher OOD scores are unknown; None for what ``result`` marks as unknown.
            Unknown boxes are dashed, unknown regions outlined.
        top: How many classes of a classifier are written, best first; None for 5. Those below a
            probability of 0.005 are not.
        enlarge: Enlarge images below 640 pixels by a whole number, as
            :class:`negvision.visualization.Canvas` does, so that tags hide less.

    Returns:
        (H, W, 3) uint8 BGR, or larger. A map of OOD scores is on the right.

    Raises:
        ValueError: ``result`` is an embedding.

    Example:
        >>> from negvision import Detections
        >>> boxes = np.array([[100, 100, 300, 300]], np.float32)
        >>> found = Detections(boxes, np.array([0.9]), np.array([0]))
        >>> draw(np.zeros((480, 640, 3), np.uint8), found, ["car"]).shape
        (480, 640, 3)
    """
    if isinstance(result, Embedding):
        raise ValueError("an embedding cannot be drawn; compare embeddings by similarity()")
    scores = result.ood_score if isinstance(result, Classification) else result.ood_scores
    if ood_threshold is not None and scores is not None:
        result = dataclasses.replace(result, unknown=scores > ood_threshold)
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    longest = None if enlarge else max(image.shape[:2])
    if isinstance(result, Classification):
        drawn = _draw_classes(Canvas(rgb, longest), result, classes, top or 5)
    elif isinstance(result, LabelMap):
        drawn = _draw_labels(Canvas(rgb, longest), result, classes, ood_threshold)
    else:
        found = result.above(score_threshold)
        drawn = draw_predictions(
            rgb,
            found.boxes,
            found.labels,
            found.scores,
            classes,
            longest=longest,
            unknown=found.unknown,
            masks=found.masks,
        )
    return cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)


def label_color(label: int) -> Color:
    """The RGB color of a class in label maps; colors repeat after twenty classes."""
    import matplotlib  # loads slowly

    red, green, blue, _ = matplotlib.colormaps[_LABEL_COLORS](label % 20)
    return round(255 * red), round(255 * green), round(255 * blue)


def _draw_classes(
    canvas: Canvas, found: Classification, classes: Sequence[str], top: int
) -> np.ndarray:
    lines = [("unknown", UNKNOWN_COLOR)] if found.unknown else []
    for place, label in enumerate(found.top(top).tolist()):
        score = found.probabilities[label]
        if not place or score >= _SMALLEST_PROBABILITY:
            lines.append((f"{name_of(label, classes)} {score:.2f}", class_color(label)))
    canvas.lines(lines)
    return canvas.image()


def _draw_labels(
    canvas: Canvas, found: LabelMap, classes: Sequence[str], threshold: float | None
) -> np.ndarray:
    for label in np.unique(found.labels):
        mask = found.labels == label
        color = label_color(int(label))
        canvas.mask(mask, color)
        if mask.mean() >= _SMALLEST_NAMED:
            # The deepest point of the region. The padding makes the image border an edge.
            depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)
            y, x = np.unravel_index(int(depth.argmax()), depth.shape)
            canvas.tag(float(x) - 0.5, float(y) - 0.5, name_of(int(label), classes), color)
    blended = canvas.image()
    if found.ood_scores is None:
        return blended
    # At its own size: the image has been enlarged, if at all.
    longest = max(blended.shape[:2])
    return draw_heat(blended, found.ood_scores, None, found.unknown, threshold, longest)
