"""``negvision browse-assignments CONFIG``: draw boxes with their positive anchors."""

import sys
from collections.abc import Sequence

import torch
from mmengine.registry import MODELS
from tqdm import tqdm

from negvision.cli.browsing import (
    browsing_parser,
    chosen_indices,
    picture_path,
    read_config,
    text_table,
    train_dataset,
)
from negvision.detection.assignment_view import AssignmentView, assignment_views, find_head
from negvision.detection.visualization.assignments import (
    anchor_sizes,
    assignment_legend,
    draw_assignment,
    picture_size,
)
from negvision.engine.quiet import captured_pycocotools
from negvision.errors import reports_user_errors
from negvision.visualization import save_picture, with_legend
from negvision.visualization.looking import seeded


def summary(views: Sequence[AssignmentView]) -> str:
    """Positives by level and by box, and the boxes that got none.

    Args:
        views: At least one.
    """
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
    counts = torch.cat([view.positives_per_box for view in views]).double()
    if not len(counts):
        return f"no boxes in {len(views)} images"
    # quantile, since torch's median of an even number is the lower of the middle two.
    return (
        f"{len(views)} images, {len(counts)} boxes; positives of a box: "
        f"min {counts.min():.0f}, median {counts.quantile(0.5):g}, max {counts.max():.0f}"
    )


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Draw and summarise; 0, or 2 after a user error, which is printed."""
    parser = browsing_parser(
        "browse-assignments",
        "Draw each box of train images with its positive anchors by level, and count them.",
        "assignments",
    )
    args = parser.parse_args(argv)
    cfg, folder = read_config(args)
    # The same pictures each time: random augmentations start from one seed.
    with captured_pycocotools(), seeded(0):
        model = MODELS.build(cfg.model)
        find_head(model)
        dataset = train_dataset(cfg)
        indices = chosen_indices(args, len(dataset))
        # disable=None: the bar shows on a terminal only.
        bar = tqdm(indices, desc="images", leave=False, disable=None, file=sys.stdout)
        views = list(assignment_views(model, dataset, bar))
    for view in views:
        title = f"{view.name}: {int(view.positives_per_box.sum())} positives"
        picture = draw_assignment(view, picture_size(view))
        picture = with_legend(picture, title, assignment_legend([view]))
        save_picture(picture_path(folder, view.index, view.name), picture)
    print(summary(views))
    print(f"\npictures  {folder}/ ({len(views)} files)")
    return 0
