"""What the page of a run tells of the assignment: positives of boxes, and boxes without any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from negvision.detection.assignment_view import AssignmentView, assignment_views
from negvision.detection.visualization.assignments import anchor_sizes
from negvision.errors import ConfigError
from negvision.report.run_parts import FigureRow, FigureTable, Plots, Section
from negvision.report.run_plots import count_bars
from negvision.visualization.looking import evenly_spaced, seeded

_SIZES = ("small", "medium", "large")
_LIMITS = (32.0**2, 96.0**2)


def assignment_section(model: nn.Module, dataset, images: int = 200, progress=iter) -> Section:
    """Positives of the boxes of some train images, as training would assign them.

    Args:
        model: As of :func:`negvision.detection.assignment_view.assignment_views`.
        dataset: The train set with its pipeline, whose random numbers start from one seed.
        images: At most; they are spread evenly over the set.
        progress: Wraps the indices, e.g. ``tqdm``.
    """
    name, title = "assignment", "Assignment of positives"
    try:
        with seeded(0):
            chosen = progress(evenly_spaced(len(dataset), images))
            views = list(assignment_views(model, dataset, chosen))
    except ConfigError as error:
        return Section(name, title, missing=f"Nothing is shown of it: {error}.")
    if not sum(len(view.boxes) for view in views):
        return Section(name, title, missing="The train images have no boxes.")
    return Section(name, title, assignment_parts(views, len(dataset)))


def assignment_parts(views: Sequence[AssignmentView], total: int) -> list:
    """Tables by size of box and by level, and a bar for each number of positives.

    Args:
        views: At least one, with a box among them.
        total: Images of the train set.
    """
    counts = torch.cat([view.positives_per_box for view in views]).numpy()
    boxes = torch.cat([view.boxes for view in views])
    sizes = np.digitize((boxes[:, 2:] - boxes[:, :2]).prod(1).numpy(), _LIMITS)
    rows = [_row("all", counts)]
    rows += [_row(size, counts[sizes == code]) for code, size in enumerate(_SIZES)]
    by_size = FigureTable(
        "Positives by size of box",
        "boxes",
        ("without a positive", "share", "boxes", "fewest", "median", "mean", "most"),
        rows,
        f"Positives a box in {len(views):,} of {total:,} train images, after the pipeline. Areas "
        "of small boxes are below 32², of medium ones below 96² pixels of the network's image. A "
        "box without a positive is never shown to the network.",
        compared=1,
    )
    bars = count_bars(counts, "positives of a box", "boxes", "Positives a box")
    return [by_size, Plots("Boxes by number of positives", [bars]), _by_level(views)]


def _row(name: str, counts: np.ndarray) -> FigureRow:
    without = int((counts == 0).sum())
    if not len(counts):
        return FigureRow(name, [0, None, 0, None, None, None, None], better="lower")
    spread = [int(counts.min()), float(np.median(counts)), float(counts.mean()), int(counts.max())]
    return FigureRow(name, [without, without / len(counts), len(counts), *spread], better="lower")


def _by_level(views: Sequence[AssignmentView]) -> FigureTable:
    positives = torch.stack([view.positives_per_level for view in views]).sum(0).tolist()
    rows = [
        FigureRow(
            f"level {level}",
            [
                size or "\N{EN DASH}",
                sum(len(view.priors[level]) for view in views),
                count,
                count / max(sum(positives), 1),
            ],
            better="",
        )
        for level, (size, count) in enumerate(zip(anchor_sizes(views), positives, strict=True))
    ]
    columns = ("anchors, px", "anchors", "positives", "share of positives")
    return FigureTable("Positives by level", "level", columns, rows, compared=3)
