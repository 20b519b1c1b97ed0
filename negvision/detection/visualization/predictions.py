"""Draw detections beside the truth, and the annotations of a training image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from negvision.visualization.canvas import Canvas
from negvision.visualization.colors import BOX_COLOR, IGNORED_COLOR, UNKNOWN_COLOR, class_color
from negvision.visualization.sheet import LegendEntry


def draw_predictions(
    image: np.ndarray,
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    scores: Sequence[float],
    classes: Sequence[str],
    truth: Sequence[Sequence[float]] = (),
    ignored: Sequence[Sequence[float]] = (),
    longest: int | None = None,
    unknown: Sequence[bool] | None = None,
) -> np.ndarray:
    """Ground truth as thin white boxes, detections in the colour of their class, with tags.

    Detections that the model itself takes for unknown objects are dashed and say so.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        boxes: ``(N, 4)`` detections, x1 y1 x2 y2 in pixels of ``image``.
        labels: ``(N,)``.
        scores: ``(N,)``.
        classes: Names; a label beyond them is shown as its number.
        truth: ``(G, 4)``.
        ignored: ``(M, 4)`` ignore and crowd boxes, dashed.
        longest: As in :class:`Canvas`.
        unknown: ``(N,)``, which detections are out of distribution; None where that is not known.

    Returns:
        ``(H, W, 3)`` uint8, RGB.
    """
    canvas = Canvas(image, longest)
    for box in ignored:
        canvas.box(box, IGNORED_COLOR, width=1, dashed=True)
    for box in truth:
        canvas.box(box, BOX_COLOR, width=1)
    # The best on top: it is what a reader looks at first.
    for index in np.argsort(np.asarray(scores), kind="stable"):
        label = int(labels[index])
        if unknown is not None and unknown[index]:
            tag = f"unknown {scores[index]:.2f}"
            canvas.box(boxes[index], UNKNOWN_COLOR, dashed=True, tag=tag)
            continue
        tag = f"{name_of(label, classes)} {scores[index]:.2f}"
        canvas.box(boxes[index], class_color(label), tag=tag)
    return canvas.picture()


def prediction_legend(has_ignored: bool, has_unknown: bool = False) -> list[LegendEntry]:
    """The legend of pictures by :func:`draw_predictions`."""
    entries = [
        LegendEntry("ground truth", BOX_COLOR),
        LegendEntry("detection: class and score, coloured by class", class_color(0)),
    ]
    if has_unknown:
        entries.append(LegendEntry("detection called unknown", UNKNOWN_COLOR, dashed=True))
    if has_ignored:
        entries.append(LegendEntry("ignore box or crowd", IGNORED_COLOR, dashed=True))
    return entries


def draw_annotations(
    image: np.ndarray,
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    classes: Sequence[str],
    masks: np.ndarray | None = None,
    ignored: Sequence[Sequence[float]] = (),
    longest: int | None = None,
) -> np.ndarray:
    """Boxes with class names, masks as a tint, ignore and crowd boxes dashed and hatched.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        boxes: ``(G, 4)``, x1 y1 x2 y2 in pixels of ``image``.
        labels: ``(G,)``.
        classes: Names; a label beyond them is shown as its number.
        masks: ``(G, H, W)`` bool, one a box.
        ignored: ``(M, 4)``.
        longest: As in :class:`Canvas`.

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
    return canvas.picture()


def name_of(label: int, classes: Sequence[str]) -> str:
    """The class of ``label``; its number where there is no name."""
    return classes[label] if label < len(classes) else str(label)
