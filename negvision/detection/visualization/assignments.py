"""Draw boxes with the anchors that are positive for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from negvision.visualization.canvas import Canvas
from negvision.visualization.colors import (
    BOX_COLOR,
    IGNORED_COLOR,
    UNMATCHED_COLOR,
    level_color,
)
from negvision.visualization.sheet import LegendEntry

if TYPE_CHECKING:
    from negvision.detection.assignment_view import AssignmentView


def draw_assignment(view: AssignmentView, longest: int | None = None) -> np.ndarray:
    """The image of ``view`` with its boxes and their positive anchors.

    Boxes are white and tagged with class and number of positives; an anchor is a mark at its
    centre and a faint outline in the colour of its level; a box without positives is red, and
    ignore boxes are dashed.

    Args:
        view: What :func:`negvision.detection.assignment_view.assignment_views` yields.
        longest: As in :class:`Canvas`.

    Returns:
        ``(H, W, 3)`` uint8, RGB.
    """
    canvas = Canvas(view.image, longest)
    for box in view.ignored.tolist():
        canvas.box(box, IGNORED_COLOR, dashed=True, hatched=True)
    counts = view.positives_per_box.tolist()
    for index, box in enumerate(view.boxes.tolist()):
        name = view.class_name(index)
        if counts[index]:
            canvas.box(box, BOX_COLOR, tag=f"{name}: {counts[index]}")
        else:
            canvas.box(box, UNMATCHED_COLOR, width=3, hatched=True, tag=f"{name}: no positive")
    start = 0
    for level, priors in enumerate(view.priors):
        positive = view.gt_inds[start : start + len(priors)] > 0
        spacing = _spacing(priors)
        for anchor in priors[positive].tolist():
            canvas.anchor(anchor, level_color(level), level, spacing)
        start += len(priors)
    return canvas.picture()


def picture_size(view: AssignmentView) -> int:
    """The longer side of a picture of ``view`` alone that lets neighbouring anchors be told apart.

    A whole multiple of the image's longer side, at least 900 pixels.
    """
    side = max(view.image.shape[:2])
    return side * -(-900 // side)


def _spacing(priors: torch.Tensor) -> float | None:
    """The smallest distance between columns or rows of centres; None for a single anchor."""
    gaps = []
    for low, high in ((0, 2), (1, 3)):
        centers = ((priors[:, low] + priors[:, high]) / 2).unique()
        gaps += centers.diff().tolist()
    return min(gaps, default=None)


def assignment_legend(views: Sequence[AssignmentView]) -> list[LegendEntry]:
    """The legend of pictures of ``views``: boxes, and each level with its size of anchors."""
    entries = [LegendEntry("box: number of its positives", BOX_COLOR)]
    entries.append(LegendEntry("box without a positive", UNMATCHED_COLOR))
    if any(len(view.ignored) for view in views):
        entries.append(LegendEntry("ignore box", IGNORED_COLOR, dashed=True))
    for level, size in enumerate(anchor_sizes(views)):
        text = f"level {level}: anchors {size} px" if size else f"level {level}"
        entries.append(LegendEntry(text, level_color(level), level))
    return entries


def anchor_sizes(views: Sequence[AssignmentView]) -> list[str]:
    """For each level the square root of the anchors' area in pixels, ``""`` without anchors."""
    sizes: list[str] = []
    for level in range(max((len(view.priors) for view in views), default=0)):
        sides: set[int] = set()
        for view in views:
            priors = view.priors[level].double()
            area = (priors[:, 2] - priors[:, 0]) * (priors[:, 3] - priors[:, 1])
            sides.update(area.clamp(min=0).sqrt().round().int().unique().tolist())
        ends = sorted({min(sides), max(sides)}) if sides else []
        sizes.append("-".join(str(side) for side in ends))
    return sizes
