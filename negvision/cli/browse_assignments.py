"""``negvision browse-assignments CONFIG``: draw boxes with their positive anchors."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from negvision.cli.arguments import add_browsing_arguments
from negvision.cli.output import progress_bar, text_table

if TYPE_CHECKING:
    from negvision.detection.assignment_view import AssignmentView

HELP = "draw boxes with their positive anchors"
DESCRIPTION = (
    "Draw each box of train images with its positive anchors on every level, and count them."
)
_FOLDER = "assignments"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_browsing_arguments(parser, _FOLDER)


def run(args: argparse.Namespace) -> int:
    """Draw and summarize; 0."""
    from mmengine.registry import MODELS

    from negvision.cli.browsing import chosen_indices, image_path, read_config, train_dataset
    from negvision.compat.patches import captured_pycocotools
    from negvision.detection.assignment_view import (
        assignment_legend,
        assignment_views,
        draw_assignment,
        drawing_side,
        find_head,
    )
    from negvision.visualization import save_image, with_legend
    from negvision.visualization.looking import seeded

    cfg, folder = read_config(args, _FOLDER)
    # Seeded, so that random augmentations give the same images every time.
    with captured_pycocotools(), seeded(0):
        model = MODELS.build(cfg.model)
        find_head(model)
        dataset = train_dataset(cfg)
        indices = progress_bar(chosen_indices(args, len(dataset)), "images")
        views = list(assignment_views(model, dataset, indices))
    for view in views:
        title = f"{view.name}: {int(view.positives_per_box.sum())} positives"
        image = draw_assignment(view, drawing_side(view))
        image = with_legend(image, title, assignment_legend([view]))
        save_image(image_path(folder, view.index, view.name), image)
    print(summary(views))
    print(f"\nimages  {folder}/ ({len(views)} files)")
    return 0


def summary(views: Sequence[AssignmentView]) -> str:
    """Positives by level and by box, and the boxes without any.

    Args:
        views: At least one.
    """
    import torch

    from negvision.detection.assignment_view import anchor_sizes

    levels = torch.stack([view.positives_per_level for view in views]).sum(0).tolist()
    anchors = [sum(len(view.priors[level]) for view in views) for level in range(len(levels))]
    total = max(sum(levels), 1)
    rows = [
        [level, size or "-", f"{count:,}", f"{positive:,}", f"{positive / total:.1%}"]
        for level, (size, count, positive) in enumerate(
            zip(anchor_sizes(views), anchors, levels, strict=True)
        )
    ]
    header = ["level", "anchor px", "anchors", "positives", "share"]
    lines = [text_table(header, rows), "", _per_box(views)]
    unmatched = [(view, box) for view in views for box in view.unmatched]
    boxes = sum(len(view.boxes) for view in views)
    if not unmatched:
        lines.append("boxes with no positive: none")
        return "\n".join(lines)
    share = len(unmatched) / boxes
    lines += [f"boxes with no positive: {len(unmatched)} of {boxes} ({share:.1%})", ""]
    rows = []
    for view, box in unmatched:
        x1, y1, x2, y2 = view.boxes[box].tolist()
        rows.append([view.name, view.index, view.class_name(box), f"{x2 - x1:.1f} x {y2 - y1:.1f}"])
    lines.append(text_table(["image", "index", "class", "size, px"], rows))
    return "\n".join(lines)


def _per_box(views: Sequence[AssignmentView]) -> str:
    import torch

    counts = torch.cat([view.positives_per_box for view in views]).double()
    if not len(counts):
        return f"no boxes in {len(views)} images"
    # torch's median of an even number of values is the lower of the middle two.
    return (
        f"{len(views)} images, {len(counts)} boxes; positives per box: "
        f"min {counts.min():.0f}, median {counts.quantile(0.5):g}, max {counts.max():.0f}"
    )
