"""``negvision browse-assignments CONFIG``: draw boxes with their positive anchors."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from negvision.cli.browsing import add_browsing_arguments, save_drawings
from negvision.errors import text_table

if TYPE_CHECKING:
    from negvision.detection.assignment_view import AssignmentView

HELP = "draw boxes with their positive anchors on every level, and count these"
_FOLDER = "assignments"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_browsing_arguments(parser, _FOLDER)


def run(args: argparse.Namespace) -> int:
    """Draw and summarize; 0."""
    from mmengine.registry import MODELS

    from negvision.detection import assignment_view
    from negvision.visualization import with_legend

    views: list[AssignmentView] = []

    def draw(cfg, dataset, indices):
        model = MODELS.build(cfg.model)
        for view in assignment_view.assignment_views(model, dataset, indices):
            views.append(view)
            title = f"{view.name}: {int(view.positives_per_box.sum())} positives"
            image = assignment_view.draw_assignment(view, assignment_view.drawing_side(view))
            legend = assignment_view.assignment_legend([view])
            yield view.index, view.name, with_legend(image, title, legend)

    saved = save_drawings(args, _FOLDER, draw)
    print(f"{_summary(views)}\n{saved}")
    return 0


def _summary(views: Sequence[AssignmentView]) -> str:
    """Positives by level and by box, and the boxes without any."""
    import functools

    import torch

    from negvision.detection.assignment_counts import AssignmentCounts, similarity_scales
    from negvision.detection.assignment_view import anchor_sizes

    total = functools.reduce(AssignmentCounts.__add__, [view.counts for view in views])
    levels = total.by_level.tolist()
    rows = []
    for level, (size, positives) in enumerate(zip(anchor_sizes(views), levels, strict=True)):
        anchors = sum(len(view.priors[level]) for view in views)
        share = f"{positives / max(sum(levels), 1):.1%}"
        rows.append([level, size or "-", anchors, positives, share])
    table = text_table(["level", "anchor px", "anchors", "positives", "share"], rows)
    counts = torch.cat([view.positives_per_box for view in views]).double()
    if not len(counts):
        return f"{table}\n\nno boxes in {len(views)} images"
    # torch's median of an even number of values is the lower of the middle two.
    spread = f"min {counts.min():.0f}, median {counts.quantile(0.5):g}, max {counts.max():.0f}"
    table += f"\n\n{len(views)} images, {len(counts)} boxes; positives per box: {spread}"
    table += f"\n\n{total.table()}"
    scales = similarity_scales((view.boxes, torch.cat(view.priors)) for view in views)
    if scales is not None:
        c, m, n = scales
        table += f"\nsimilarity_scale of these boxes: nwd {c:.1f}, simd ({m:.2f}, {n:.2f})\n"
    unmatched = []
    for view in views:
        for box in view.unmatched:
            x1, y1, x2, y2 = view.boxes[box].tolist()
            size = f"{x2 - x1:.1f} x {y2 - y1:.1f}"
            unmatched.append([view.name, str(view.index), view.class_name(box), size])
    if not unmatched:
        return f"{table}\nboxes with no positive: none"
    share = f"{len(unmatched)} of {len(counts)} ({len(unmatched) / len(counts):.1%})"
    boxes = text_table(["image", "index", "class", "size, px"], unmatched)
    return f"{table}\nboxes with no positive: {share}\n\n{boxes}"
