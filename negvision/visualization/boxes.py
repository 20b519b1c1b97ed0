"""Draw detections beside the ground truth, and annotations of training images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from negvision.visualization.canvas import Canvas
from negvision.visualization.colors import BOX_COLOR, IGNORED_COLOR, UNKNOWN_COLOR, class_color
from negvision.visualization.sheet import LegendEntry

Boxes = Sequence[Sequence[float]] | np.ndarray


def draw_predictions(
    image: np.ndarray,
    boxes: Boxes,
    labels: Sequence[int] | np.ndarray,
    scores: Sequence[float] | np.ndarray,
    classes: Sequence[str],
    truth: Boxes = (),
    ignored: Boxes = (),
    longest: int | None = None,
    unknown: Sequence[bool] | np.ndarray | None = None,
    masks: Sequence[np.ndarray] | np.ndarray | None = None,
) -> np.ndarray:
    """Draw detections in the color of their class with tags, and ground truth in thin white.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        boxes: ``(N, 4)`` detections, x1 y1 x2 y2 in pixels of ``image``.
        labels: ``(N,)``.
        scores: ``(N,)``.
        classes: Names; labels beyond them are shown as numbers.
        truth: ``(G, 4)``.
        ignored: ``(M, 4)`` ignore and crowd boxes, dashed.
        longest: As in :class:`Canvas`.
        unknown: ``(N,)``, which detections are out of distribution: these are dashed and tagged
            "unknown". None if not known.
        masks: ``N`` masks, (H, W) bool each, as a tint; None for a model without masks.

    Returns:
        ``(H, W, 3)`` uint8, RGB.
    """
    canvas = Canvas(image, longest)
    for box in ignored:
        canvas.box(box, IGNORED_COLOR, width=1, dashed=True)
    for box in truth:
        canvas.box(box, BOX_COLOR, width=1)
    # The best detections come last, on top.
    for index in np.argsort(np.asarray(scores), kind="stable"):
        label = int(labels[index])
        is_unknown = unknown is not None and unknown[index]
        if masks is not None:
            canvas.mask(masks[index], UNKNOWN_COLOR if is_unknown else class_color(label))
        if is_unknown:
            tag = f"unknown {scores[index]:.2f}"
            canvas.box(boxes[index], UNKNOWN_COLOR, dashed=True, tag=tag)
        else:
            tag = f"{name_of(label, classes)} {scores[index]:.2f}"
            canvas.box(boxes[index], class_color(label), tag=tag)
    return canvas.image()


def prediction_legend(has_ignored: bool, has_unknown: bool = False) -> list[LegendEntry]:
    """The legend for :func:`draw_predictions`."""
    entries = [
        LegendEntry("ground truth", BOX_COLOR),
        LegendEntry("detection: class and score, colored by class", class_color(0)),
    ]
    if has_unknown:
        entries.append(LegendEntry("detection called unknown", UNKNOWN_COLOR, dashed=True))
    if has_ignored:
        entries.append(LegendEntry("ignore box or crowd", IGNORED_COLOR, dashed=True))
    return entries


def draw_annotations(
    image: np.ndarray,
    boxes: Boxes,
    labels: Sequence[int] | np.ndarray,
    classes: Sequence[str],
    masks: np.ndarray | None = None,
    ignored: Boxes = (),
    longest: int | None = None,
) -> np.ndarray:
    """Draw boxes with class names, masks as a tint, ignore and crowd boxes dashed and hatched.

    Args:
        image, boxes, labels, classes, ignored, longest: As in :func:`draw_predictions`.
        masks: ``(N, H, W)`` bool, one per box.

    Returns:
        ``(H, W, 3)`` uint8, RGB.
    """
    canvas = Canvas(image, longest)
    for mask, label in zip(() if masks is None else masks, labels, strict=False):
        canvas.mask(mask, class_color(int(label)))
    for box in ignored:
        canvas.box(box, IGNORED_COLOR, dashed=True, hatched=True, tag="ignore")
    for box, label in zip(boxes, labels, strict=True):
        canvas.box(box, class_color(int(label)), tag=name_of(int(label), classes))
    return canvas.image()


def name_of(label: int, classes: Sequence[str]) -> str:
    """The class of ``label``, or its number if it has no name."""
    return classes[label] if label < len(classes) else str(label)
