"""A compact text table of COCO figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from negvision.detection.metrics.coco_evaluation import CocoResult

_PRECISIONS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def coco_table(
    result: CocoResult,
    classes: Sequence[str],
    category_ids: Sequence[int],
    instances: Mapping[int, int],
    classwise: bool = True,
) -> str:
    """Overall figures, then one line a class; "-" where there is no ground truth.

    Args:
        result: What :func:`evaluate_coco` returned.
        classes: Names, in the order to show.
        category_ids: The category of each class.
        instances: Objects (crowds excluded) of each category; a missing one has none.
        classwise: Whether to add the lines of the classes.

    Returns:
        Lines of equal columns, without a trailing newline.
    """
    figures = list(result.figures().values())
    recalls = [f"AR@{limit}" for limit in result.max_dets] + ["ARs", "ARm", "ARl"]
    lines = [
        "".join(f"{name:>8}" for name in _PRECISIONS + tuple(recalls)),
        "".join(f"{_shown(value):>8}" for value in figures),
    ]
    if not classwise:
        return "\n".join(lines)

    width = max(len("class"), *(len(name) for name in classes)) if classes else len("class")
    heads = "".join(f"{name:>8}" for name in _PRECISIONS)
    lines += ["", f"{'class':<{width}} {'objects':>8}{heads}"]
    for name, category_id in zip(classes, category_ids, strict=True):
        values = class_figures(result, category_id)
        cells = "".join(f"{_shown(value):>8}" for value in values)
        lines.append(f"{name:<{width}} {instances.get(category_id, 0):>8}{cells}")
    return "\n".join(lines)


def class_figures(result: CocoResult, category_id: int) -> list[float]:
    """AP, AP50, AP75, APs, APm and APl of one category, NaN where it has no ground truth."""
    ious = (None, 0.5, 0.75)
    areas = ("small", "medium", "large")
    return [result.average_precision(iou=iou, category_id=category_id) for iou in ious] + [
        result.average_precision(area=area, category_id=category_id) for area in areas
    ]


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
