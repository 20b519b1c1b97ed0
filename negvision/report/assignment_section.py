"""The section about assignment: positives per box, and boxes without any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from negvision.detection.assignment_view import AssignmentView, anchor_sizes, assignment_views
from negvision.errors import ConfigError
from negvision.report.page_parts import MetricRow, MetricTable, Part, Plots, Section
from negvision.report.plots import count_bars
from negvision.visualization.looking import evenly_spaced, seeded

_SIZES = ("small", "medium", "large")
_LIMITS = (32.0**2, 96.0**2)


def assignment_section(model: nn.Module, dataset, images: int = 200, progress=iter) -> Section:
    """Positives per box in some train images, assigned as in training.

    Args:
        model: As in :func:`negvision.detection.assignment_view.assignment_views`.
        dataset: The train set with its pipeline, which is seeded.
        images: At most this many, evenly spaced.
        progress: Wraps the indices, e.g. ``tqdm``.
    """
    name, title = "assignment", "Assignment of positives"
    try:
        with seeded(0):
            chosen = progress(evenly_spaced(len(dataset), images))
            views = list(assignment_views(model, dataset, chosen))
    except ConfigError as error:
        return Section(name, title, missing=f"Not available: {error}.")
    if not any(len(view.boxes) for view in views):
        return Section(name, title, missing="The train images have no boxes.")
    return Section(name, title, _parts(views, len(dataset)))


def _parts(views: Sequence[AssignmentView], total: int) -> list[Part]:
    counts = torch.cat([view.positives_per_box for view in views]).numpy()
    boxes = torch.cat([view.boxes for view in views])
    sizes = np.digitize((boxes[:, 2:] - boxes[:, :2]).prod(1).numpy(), _LIMITS)
    rows = [_row("all", counts)]
    rows += [_row(size, counts[sizes == code]) for code, size in enumerate(_SIZES)]
    by_size = MetricTable(
        "Positives by box size",
        "boxes",
        ("without a positive", "share", "boxes", "fewest", "median", "mean", "most"),
        rows,
        f"Positives per box in {len(views):,} of {total:,} train images, after the pipeline. Small "
        "boxes are below 32², medium ones below 96² pixels of the network's image. The network "
        "never learns from a box without a positive.",
        compared=1,
    )
    bars = count_bars(counts, "positives per box", "boxes", "Positives per box")
    return [by_size, Plots("Boxes by number of positives", [bars]), _by_level(views)]


def _row(name: str, counts: np.ndarray) -> MetricRow:
    without = int((counts == 0).sum())
    if not len(counts):
        return MetricRow(name, [0, None, 0, None, None, None, None], better="lower")
    spread = [int(counts.min()), float(np.median(counts)), float(counts.mean()), int(counts.max())]
    return MetricRow(name, [without, without / len(counts), len(counts), *spread], better="lower")


def _by_level(views: Sequence[AssignmentView]) -> MetricTable:
    positives = torch.stack([view.positives_per_level for view in views]).sum(0).tolist()
    total = max(sum(positives), 1)
    rows = []
    for level, (size, count) in enumerate(zip(anchor_sizes(views), positives, strict=True)):
        anchors = sum(len(view.priors[level]) for view in views)
        values = [size or "\N{EN DASH}", anchors, count, count / total]
        rows.append(MetricRow(f"level {level}", values, better=""))
    columns = ("anchors, px", "anchors", "positives", "share of positives")
    return MetricTable("Positives by level", "level", columns, rows, compared=3)
