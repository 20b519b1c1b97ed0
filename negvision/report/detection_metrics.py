"""The figures of a detector as tables, plots and a matrix for the page of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from negvision.detection.metrics.coco_evaluation import CocoResult
from negvision.detection.metrics.coco_table import class_figures
from negvision.report.plots import line_styles
from negvision.report.run_parts import FigureRow, FigureTable, Matrix, Plots
from negvision.report.run_plots import precision_plot

# Detections of less are neither drawn nor in the confusion matrix.
SCORE, IOU = 0.3, 0.5
# Plots of single classes that a page has room for.
_MOST_CLASSES = 24
_MEANINGS = {
    "mAP": "AP over IoU 0.50 to 0.95, all sizes: COCO's main figure",
    "mAP_50": "AP at IoU 0.5",
    "mAP_75": "AP at IoU 0.75",
    "mAP_s": "AP of small objects",
    "mAP_m": "AP of medium objects",
    "mAP_l": "AP of large objects",
    "AR": "share of objects found, mean over IoU, at most so many detections an image",
    "AR_s": "the same of small objects",
    "AR_m": "the same of medium objects",
    "AR_l": "the same of large objects",
}


def coco_parts(
    result: CocoResult, classes: Sequence[str], ids: Sequence[int], objects: Mapping[int, int]
) -> list[FigureTable]:
    """The figures of COCO, and AP by class and by size."""
    rows = [
        FigureRow(key, [value], _MEANINGS[key.partition("@")[0]])
        for key, value in result.figures().items()
    ]
    by_class = [
        FigureRow(name, [*class_figures(result, category_id), objects[category_id]])
        for name, category_id in zip(classes, ids, strict=True)
    ]
    columns = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large", "objects")
    return [
        FigureTable("COCO figures", "figure", ["value"], rows),
        FigureTable(
            "AP by class and size",
            "class",
            columns,
            by_class,
            "A dash: there is no object of this class and size to find.",
        ),
    ]


def precision_parts(
    result: CocoResult, classes: Sequence[str], ids: Sequence[int], objects: Mapping[int, int]
) -> list[Plots]:
    """Precision against recall over all classes, and of those with the most objects."""
    recall = np.linspace(0, 1, result.precision.shape[1])
    with_objects = [(name, one) for name, one in zip(classes, ids, strict=True) if objects[one]]
    if not with_objects:
        return []
    overall = precision_plot("mean of all classes", _curves(result, None), recall)
    ranked = sorted(with_objects, key=lambda pair: -objects[pair[1]])[:_MOST_CLASSES]
    shown = [pair for pair in with_objects if pair in ranked]
    plots = [precision_plot(name, _curves(result, one), recall) for name, one in shown]
    caption = "The area below a line is the AP at that overlap (mean IoU: 0.50 to 0.95)."
    if len(shown) < len(with_objects):
        caption += f" Of {len(with_objects)} classes the {len(shown)} with the most objects."
    legend = line_styles(_curves(result, None))
    return [Plots("All classes, and each by itself", [overall, *plots], legend, caption)]


def _curves(result: CocoResult, category_id: int | None) -> dict[str, np.ndarray]:
    chosen = slice(None) if category_id is None else [result.category_ids.index(category_id)]
    found = {}
    for name, iou in (("IoU 0.5", 0.5), ("IoU 0.75", 0.75), ("mean IoU", None)):
        at = slice(None) if iou is None else np.isclose(result.iou_thresholds, iou)
        precision = result.precision[at][:, :, chosen, 0, -1]
        found[name] = np.nanmean(np.where(precision > -1, precision, np.nan), axis=(0, 2))
    return found


def confusion_matrix(counts: np.ndarray, classes: Sequence[str]) -> Matrix:
    """What :func:`negvision.detection.metrics.box_confusion.box_confusion` counted, in words."""
    return Matrix(
        f"Boxes of score {SCORE:g} and more, matched from IoU {IOU:g} on",
        [*classes, "background"],
        [*classes, "missed"],
        counts.tolist(),
        "In each image the detections choose in the order of their scores: each takes the free "
        "object that it overlaps most, of whatever class. What nobody took is missed, and a "
        "detection without an object is background taken for one.",
        "boxes",
    )


def count_objects(truth: Mapping, ids: Sequence[int]) -> dict[int, int]:
    """Objects, crowds excluded, of each category."""
    counts = dict.fromkeys(ids, 0)
    for annotation in truth["annotations"]:
        if annotation["category_id"] in counts:
            counts[annotation["category_id"]] += not annotation["iscrowd"]
    return counts
