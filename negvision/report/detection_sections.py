"""Sections for detectors: COCO metrics, confusions between classes, and the worst images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import nn

from negvision.bootstrap import RESAMPLES, bootstrap, interval
from negvision.data.formats.coco_file import find_classes
from negvision.data.reliability import FROM_SCORE, Reliability, reliability
from negvision.data.score_threshold import FIXED, ScoreThreshold
from negvision.detection.metrics.box_matching import box_confusion
from negvision.detection.metrics.coco_annotations import load_coco_annotations
from negvision.detection.metrics.coco_evaluation import AREAS, CocoResult
from negvision.detection.metrics.coco_metric import units_of
from negvision.detection.metrics.coco_statistics import CocoStatistics
from negvision.detection.metrics.error_kinds import KINDS, SIDES, ErrorKinds, error_kinds
from negvision.detection.metrics.froc import FROC, RATES, RECALLS, fppi_names
from negvision.errors import counted
from negvision.report.image_samples import embedded, read_rgb
from negvision.report.page_parts import (
    Gallery,
    ImageSample,
    Matrix,
    MetricRow,
    MetricTable,
    Part,
    Plots,
    Section,
)
from negvision.report.plots import froc_plot, line_styles, precision_plot, reliability_plot
from negvision.visualization.boxes import draw_predictions
from negvision.visualization.looking import seeded

_WORST, _SIDE = 12, 480
_IOU = 0.5
# Plots of single classes.
_MOST_CLASSES = 24
_MEANINGS = {
    "mAP": "AP over IoU 0.50 to 0.95, all sizes: the main COCO metric",
    "mAP_50": "AP at IoU 0.5",
    "mAP_75": "AP at IoU 0.75",
    "mAP_s": "AP of small objects",
    "mAP_m": "AP of medium objects",
    "mAP_l": "AP of large objects",
    "AR": "recall, mean over IoU, with at most this many detections per image",
    "AR_s": "recall of small objects",
    "AR_m": "recall of medium objects",
    "AR_l": "recall of large objects",
}


_Read = Callable[[str], np.ndarray] | None


@dataclass(frozen=True)
class _Seen:
    """An image: its detections, its ground truth, and its losses or why there are none."""

    image_id: int
    path: str
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    unknown: np.ndarray | None
    truth: np.ndarray
    ignored: np.ndarray
    losses: Mapping[str, float]
    problem: str


class DetectionCollector:
    """Keeps what a detector predicts in a test, with the loss of each image.

    Args:
        model: The detector.
        classes: Names, by label.
        evaluator: Arguments of the test evaluator; metrics need its ``ann_file``.
        shown: Detections with lower scores are neither drawn nor in the confusion matrix.
        read: Reads images, as in :func:`negvision.report.image_samples.read_rgb`.
    """

    def __init__(
        self,
        model: BaseModel,
        classes: Sequence[str],
        evaluator: Mapping,
        shown: ScoreThreshold = FIXED,
        read: _Read = None,
    ) -> None:
        self.model = model
        self.classes = tuple(classes)
        self.evaluator = evaluator
        self.shown = shown
        self.read = read
        self._images: list[_Seen] = []

    def add(self, inputs: Sequence[torch.Tensor], samples: Sequence) -> None:
        """Keep the known images of a batch: as packed, and their predicted data samples."""
        for image, sample in zip(inputs, samples, strict=True):
            if sample.get("is_ood", False):
                continue
            problem = why_no_loss(self.model, sample)
            found = sample.pred_instances
            self._images.append(
                _Seen(
                    image_id=sample.img_id,
                    path=str(sample.get("img_path", "")),
                    boxes=found.bboxes.cpu().numpy().reshape(-1, 4),
                    scores=found.scores.cpu().numpy(),
                    labels=found.labels.cpu().numpy(),
                    unknown=found.is_ood.cpu().numpy() if "is_ood" in found else None,
                    truth=_boxes_of(sample, "gt_instances"),
                    ignored=_boxes_of(sample, "ignored_instances"),
                    losses={} if problem else loss_of_image(self.model, image, sample),
                    problem=problem,
                )
            )

    def sections(self) -> list[Section]:
        """Metrics, curves, confusions, and worst images."""
        parts: list[Sequence[Part]] = [(), (), (), (), (), ()]
        missing = "The config's test evaluator has no COCO annotations (ann_file)."
        if "ann_file" in self.evaluator:
            parts, missing = self._coco_parts(self._images), ""
        return [
            Section("metrics", "Average precision", parts[0], missing),
            Section("precision", "Precision and recall", parts[1], missing),
            Section("errors", "Errors and what they cost", parts[3], missing),
            Section("negatives", "False positives per image", parts[5], missing),
            Section("calibration", "Calibration of the scores", parts[4], missing),
            Section("confusion", "Confused classes", parts[2], missing),
            _worst(self._images, self.classes, self.shown, self.read),
        ]

    def _coco_parts(self, images: Sequence[_Seen]) -> list[Sequence[Part]]:
        path = self.evaluator["ann_file"]
        truth = load_coco_annotations(path)
        _, ids = find_classes(str(path), truth, self.classes)
        detections = [found for image in images for found in _detections(image, ids)]
        given = ("max_dets", "area_limits")
        options = {name: self.evaluator[name] for name in given if name in self.evaluator}
        statistics = CocoStatistics(truth, detections, ids, **options)
        result, units = statistics.result, units_of(truth["images"], None, str(path))
        values = np.array(list(result.metrics().values()))
        draws = bootstrap(statistics.figures, units)[:, : len(values)]
        limits = interval(values, draws) if len(units) > 1 else None
        objects = dict.fromkeys(ids, 0)
        for annotation in truth["annotations"]:
            if annotation["category_id"] in objects:
                objects[annotation["category_id"]] += not annotation["iscrowd"]
        confusion = Matrix(
            f"Boxes with scores from {self.shown.value:.3g}, matched at IoU from {_IOU:g}",
            [*self.classes, "background"],
            [*self.classes, "missed"],
            box_confusion(truth, detections, ids, self.shown.value, _IOU).tolist(),
            "In each image, in the order of their scores, detections take the free object with the "
            "largest overlap, of any class. Objects that remain are missed; detections without an "
            f"object count as background. The score threshold: {self.shown}.",
            "boxes",
        )
        errors = error_kinds(truth, detections, ids, **options)
        sizes = {
            size: error_kinds(truth, detections, ids, **options, area=size) for size in AREAS[1:]
        }
        return [
            _coco_tables(result, self.classes, objects, limits),
            _precision_plots(result, self.classes, objects),
            [confusion],
            _error_tables(errors, sizes, self.classes, ids),
            _calibration_parts(errors, self.classes, ids),
            _false_positives(FROC.of(errors), units),
        ]


def _coco_tables(
    result: CocoResult,
    classes: Sequence[str],
    objects: Mapping[int, int],
    limits: np.ndarray | None,
) -> list[MetricTable]:
    overall = []
    for place, (key, value) in enumerate(result.metrics().items()):
        meaning = _MEANINGS[key.partition("@")[0]]
        if limits is not None and not np.isnan(limits[:, place]).any():
            meaning += "; 95 % interval {:.3f} to {:.3f}".format(*limits[:, place])
        overall.append(MetricRow(key, [value], meaning))
    by_class = [
        MetricRow(name, [*result.precisions(category_id), objects[category_id]])
        for name, category_id in zip(classes, objects, strict=True)
    ]
    columns = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large", "objects")
    caption = "A dash means that there is no object of this class and size."
    return [
        MetricTable("COCO metrics", "metric", ["value"], overall),
        MetricTable("AP by class and size", "class", columns, by_class, caption),
    ]


def _error_tables(
    errors: ErrorKinds,
    sizes: Mapping[str, ErrorKinds],
    classes: Sequence[str],
    category_ids: Sequence[int],
) -> list[MetricTable]:
    """What each kind of error costs, over all, by size and by class."""
    costs = errors.mean_costs()
    by_size = {size: one.mean_costs() for size, one in sizes.items()}
    meanings = {name: f"detections {text}" for name, text in KINDS.items()}
    meanings |= {"missed": KINDS["missed"], **SIDES}
    rows = []
    for name, meaning in meanings.items():
        number = int(errors.counts[name].sum()) if name in errors.counts else None
        values = [costs[name], number, *(one[name] for one in by_size.values())]
        rows.append(MetricRow(name, values, meaning, "lower"))
    of_classes = []
    for name, category_id in zip(classes, category_ids, strict=True):
        place = list(errors.category_ids).index(category_id)
        values = [float(errors.costs[kind][place]) for kind in KINDS]
        of_classes.append(MetricRow(name, values, better="lower"))
    caption = (
        "How much AP50 rises if the errors of a kind are corrected. The costs do not add up, "
        "since one error may hide another. Scores count: a wrong box with a low score costs little."
    )
    columns = ("AP50 lost", "errors", *(f"{size} objects" for size in sizes))
    return [
        MetricTable("Errors by kind", "kind", columns, rows, caption),
        MetricTable(
            "AP50 lost by class and kind of error", "class", list(KINDS), of_classes, compared=None
        ),
    ]


def _false_positives(froc: FROC, units: np.ndarray) -> list[Part]:
    """False positives per image on images without objects, and the FROC curve."""
    figures, _ = froc.measured(units, RESAMPLES)
    names = [f"at recall {level:g}" for level in RECALLS]
    meanings = ["false positives per image without an object"] * len(RECALLS)
    names += [f"recall at {rate:g}" for rate in RATES]
    meanings += ["recall with so many false positives per image, of all images"] * len(RATES)
    rows = []
    for key, name, meaning in zip(fppi_names(), names, meanings, strict=True):
        better = "higher" if key.startswith("froc") else "lower"
        values = [figures[key + end] for end in ("", "_low", "_high")]
        rows.append(MetricRow(name, values, meaning, better))
    caption = (
        f"{int(froc.background.sum()):,} of {len(units):,} images have no object. One score "
        "threshold for all classes; a detection is right on an object of its class at IoU 0.5. "
        "From and to: the 95 % interval. A dash: there is no such image, or no such recall."
    )
    columns = ("value", "from", "to")
    table = MetricTable("False positives", "figure", columns, rows, caption, compared=1)
    return [table, Plots("Recall by false positives per image", [froc_plot(*froc.curve())])]


def _calibration_parts(
    errors: ErrorKinds, classes: Sequence[str], category_ids: Sequence[int]
) -> list[Part]:
    """The calibration error over all and by class, and the curves."""
    places = [list(errors.category_ids).index(one) for one in category_ids]
    named = {"all classes": reliability(errors.scores, errors.hits)}
    for name, place in zip(classes, places, strict=True):
        own = errors.labels == place
        named[name] = reliability(errors.scores[own], errors.hits[own])
    caption = (
        f"Detections with scores from {FROM_SCORE:g}; right ones are on an object of their class, "
        "at IoU 0.5."
    )
    return calibration_parts(named, "detections", caption)


def calibration_parts(named: Mapping[str, Reliability], what: str, caption: str) -> list[Part]:
    """A table of calibration errors, and reliability curves.

    Args:
        named: Of all and of each class.
        what: Is scored.
        caption: Of the table.
    """
    rows = [
        MetricRow(
            name, [one.error, one.mean_confidence, one.mean_precision, one.total], better="lower"
        )
        for name, one in named.items()
    ]
    caption += " ECE: the mean gap between score and share that is right, in 15 bins."
    columns = ("ECE", "mean score", "right", what)
    ranked = sorted((name for name in named if named[name].total), key=lambda n: -named[n].total)
    plots = [
        reliability_plot(name, named[name].confidence, named[name].precision)
        for name in ranked[: 1 + _MOST_CLASSES]
    ]
    table = MetricTable("Calibration", "class", columns, rows, caption)
    lines = "Below the dotted line, scores promise too much; above it, too little."
    return [table, Plots("Reliability", plots, caption=lines)] if plots else [table]


def _precision_plots(
    result: CocoResult, classes: Sequence[str], objects: Mapping[int, int]
) -> list[Plots]:
    """Precision against recall over all classes, and of the classes with the most objects."""
    recall = np.linspace(0, 1, result.precision.shape[1])
    present = [(name, one) for name, one in zip(classes, objects, strict=True) if objects[one]]
    if not present:
        return []
    overall = _precision_curves(result, None)
    ranked = sorted(present, key=lambda pair: -objects[pair[1]])[:_MOST_CLASSES]
    shown = [pair for pair in present if pair in ranked]
    plots = [precision_plot("mean of all classes", overall, recall)]
    plots += [precision_plot(name, _precision_curves(result, one), recall) for name, one in shown]
    caption = "The area below a line is the AP at that IoU (mean IoU: 0.50 to 0.95)."
    if len(shown) < len(present):
        caption += f" Shows the {len(shown)} of {len(present)} classes with the most objects."
    return [Plots("All classes, and each class", plots, line_styles(overall), caption)]


def _precision_curves(result: CocoResult, category_id: int | None) -> dict[str, np.ndarray]:
    chosen = slice(None) if category_id is None else [result.category_ids.index(category_id)]
    curves = {}
    for name, iou in (("IoU 0.5", 0.5), ("IoU 0.75", 0.75), ("mean IoU", None)):
        at = slice(None) if iou is None else np.isclose(result.iou_thresholds, iou)
        precision = result.precision[at][:, :, chosen, 0, -1]
        curves[name] = np.nanmean(np.where(precision > -1, precision, np.nan), axis=(0, 2))
    return curves


def _worst(
    images: Sequence[_Seen], classes: Sequence[str], shown: ScoreThreshold, read: _Read
) -> Section:
    name, title = "worst", "Images with the highest loss"
    rated = [image for image in images if np.isfinite(image.losses.get("loss", np.nan))]
    if not rated:
        reason = (images[0].problem if images else "nothing was predicted") or "none is finite"
        return Section(name, title, missing=f"There are no losses of single images: {reason}.")
    ranked = sorted(rated, key=lambda image: -image.losses["loss"])[:_WORST]
    median = np.median([image.losses["loss"] for image in rated])
    caption = (
        f"The {len(ranked)} worst of {len(rated):,} images (median loss {median:.3f}), each run "
        f"alone. White: ground truth. Colored: detections with scores from {shown.value:.3g}, "
        "dashed if the model calls them unknown."
    )
    samples = [_drawn(image, classes, shown.value, read) for image in ranked]
    return Section(name, title, [Gallery("Ground truth and detections", samples, caption)])


def _drawn(seen: _Seen, classes: Sequence[str], score: float, read: _Read) -> ImageSample:
    kept = seen.scores >= score
    losses = [f"{key} {value:.3g}" for key, value in seen.losses.items() if "loss_" in key]
    facts = [", ".join(losses), f"{counted(len(seen.truth), 'object')}, {int(kept.sum())} found"]
    tag = f"loss {seen.losses['loss']:.3f}"
    image, problem = read_rgb(seen.path, read)
    if image is None:
        return ImageSample(seen.path, facts, (), problem, tag)
    image = draw_predictions(
        image,
        seen.boxes[kept],
        seen.labels[kept],
        seen.scores[kept],
        classes,
        seen.truth,
        seen.ignored,
        _SIDE,
        None if seen.unknown is None else seen.unknown[kept],
    )
    return ImageSample(seen.path, facts, [embedded(image, f"{seen.path}: {tag}")], tag=tag)


def _boxes_of(sample, name: str) -> np.ndarray:
    # Without LoadAnnotations, the instances have no boxes.
    present = name in sample and "bboxes" in sample.get(name)
    boxes = sample.get(name).bboxes if present else torch.zeros(0, 4)
    return getattr(boxes, "tensor", boxes).cpu().numpy().reshape(-1, 4)


def _detections(image: _Seen, ids: Sequence[int]) -> list[dict]:
    finite = np.isfinite(image.boxes).all(1) & np.isfinite(image.scores)
    found = []
    for row in np.flatnonzero(finite):
        left, top, right, bottom = image.boxes[row].tolist()
        found.append(
            {
                "image_id": image.image_id,
                "category_id": ids[int(image.labels[row])],
                "bbox": [left, top, right - left, bottom - top],
                "score": float(image.scores[row]),
            }
        )
    return found


def loss_of_image(model: BaseModel, image: torch.Tensor, sample) -> dict[str, float]:
    """The training loss of one image and its parts; weights and statistics stay unchanged.

    The image is a batch of its own. The model stays in evaluation mode, so running statistics
    normalize and nothing is dropped. Random sampling in heads is seeded. ``loss`` comes first.

    Args:
        model: A detector of mmdet.
        image: ``(3, H, W)`` as packed by the test pipeline.
        sample: Its data sample, with boxes in pixels of the original image, as test pipelines load
            them; ``scale_factor`` leads to ``image``.
    """
    fresh = type(sample)(metainfo=sample.metainfo)
    for name in ("gt_instances", "ignored_instances"):
        if name in sample:
            fresh.set_field(_resized(sample.get(name), sample.metainfo), name)
    with torch.no_grad(), seeded(0):
        data = model.data_preprocessor({"inputs": [image], "data_samples": [fresh]}, False)
        total, parts = model.parse_losses(model(**data, mode="loss"))
    return {"loss": float(total), **{k: float(v) for k, v in parts.items() if k != "loss"}}


def why_no_loss(model: nn.Module, sample) -> str:
    """Why :func:`loss_of_image` cannot handle this sample; "" if it can."""
    if not hasattr(model, "loss"):
        return f"{type(model).__name__} cannot be trained"
    if "gt_instances" not in sample or "bboxes" not in sample.gt_instances:
        return "the test pipeline loads no annotations (LoadAnnotations after Resize)"
    absent = [name for name in ("scale_factor", "img_shape") if name not in sample.metainfo]
    if absent:
        return f"meta_keys of PackDetInputs in the test pipeline lack {' and '.join(absent)}"
    if getattr(model, "with_mask", False) and "masks" not in sample.gt_instances:
        return "the test pipeline loads no masks (LoadAnnotations with_mask=True)"
    return ""


def _resized(instances: InstanceData, meta: Mapping) -> InstanceData:
    """A copy at the size of the network's image."""
    resized = instances.clone()
    boxes = getattr(instances.bboxes, "tensor", instances.bboxes)
    resized.bboxes = boxes * boxes.new_tensor(meta["scale_factor"]).repeat(2)
    if "masks" in instances:
        resized.masks = instances.masks.resize(meta["img_shape"][:2])
    return resized
