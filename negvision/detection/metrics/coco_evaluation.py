"""COCO average precision and recall by either of two evaluators, unrounded, and their table."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

BACKENDS = ("ultrafast", "pycocotools")
AREAS = ("all", "small", "medium", "large")
_PRECISIONS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def metric_names(max_dets: Sequence[int]) -> list[str]:
    """The keys of :meth:`CocoResult.metrics`.

    Example:
        >>> metric_names((1, 100))[5:]
        ['mAP_l', 'AR@1', 'AR@100', 'AR_s@100', 'AR_m@100', 'AR_l@100']
    """
    return [
        *("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"),
        *(f"AR@{limit}" for limit in max_dets),
        *(f"AR_{size}@{max_dets[-1]}" for size in "sml"),
    ]


@dataclass(frozen=True)
class CocoResult:
    """Precision and recall of one evaluation, -1 without ground truth."""

    precision: np.ndarray  # (T, R, K, A, M): IoU, recall, category, area (AREAS), detection limit
    recall: np.ndarray  # (T, K, A, M), the highest recall reached
    iou_thresholds: np.ndarray  # (T,)
    category_ids: tuple[int, ...]  # (K,), ascending
    max_dets: tuple[int, ...]  # (M,), limits of detections per image, ascending

    @classmethod
    def of(cls, evaluation: Any) -> CocoResult:
        """What an evaluator of :func:`run_evaluator` found."""
        return cls(
            precision=np.asarray(evaluation.eval["precision"]),
            recall=np.asarray(evaluation.eval["recall"]),
            iou_thresholds=np.asarray(evaluation.params.iouThrs),
            category_ids=tuple(evaluation.params.catIds),
            max_dets=tuple(evaluation.params.maxDets),
        )

    def average_precision(
        self, iou: float | None = None, area: str = "all", category_id: int | None = None
    ) -> float:
        """Mean precision at the largest detection limit; NaN without ground truth.

        By default over all IoU thresholds and all categories with ground truth; ``area`` is one of
        :data:`AREAS`, by the area of the ground truth.
        """
        thresholds = slice(None) if iou is None else np.isclose(self.iou_thresholds, iou)
        precision = self.precision[thresholds, :, :, AREAS.index(area), -1]
        return _mean_of_valid(precision[:, :, self._categories(category_id)])

    def average_recall(
        self, max_dets: int | None = None, area: str = "all", category_id: int | None = None
    ) -> float:
        """Mean recall over the IoU thresholds at a detection limit, by default the largest.

        NaN without ground truth; the rest is as in :meth:`average_precision`.
        """
        limit = -1 if max_dets is None else self.max_dets.index(max_dets)
        recall = self.recall[:, :, AREAS.index(area), limit]
        return _mean_of_valid(recall[:, self._categories(category_id)])

    def metrics(self) -> dict[str, float]:
        """COCO's summary: six APs, the AR at each detection limit, three ARs by size."""
        values = [
            *self.precisions(),
            *(self.average_recall(limit) for limit in self.max_dets),
            *(self.average_recall(area=area) for area in AREAS[1:]),
        ]
        return dict(zip(metric_names(self.max_dets), values, strict=True))

    def precisions(self, category_id: int | None = None) -> list[float]:
        """AP, AP50, AP75, APs, APm and APl of one category or the mean over all."""
        return [
            *(self.average_precision(iou, category_id=category_id) for iou in (None, 0.5, 0.75)),
            *(self.average_precision(None, area, category_id) for area in AREAS[1:]),
        ]

    def table(
        self,
        classes: Sequence[str],
        category_ids: Sequence[int],
        instances: Mapping[int, int],
        classwise: bool = True,
        limits: Sequence[Sequence[float]] = (),
    ) -> str:
        """The metrics, then with ``classwise`` one line per class; "-" without ground truth.

        ``instances`` has the number of objects of each category without crowds, ``limits`` the
        lower and the upper limits of the metrics, if any.
        """
        recalls = [f"AR@{limit}" for limit in self.max_dets] + ["ARs", "ARm", "ARl"]
        lines = [
            "".join(f"{name:>8}" for name in (*_PRECISIONS, *recalls)),
            _cells(self.metrics().values()),
            *(
                f"{_cells(values)}   {end} of the 95 % interval"
                for values, end in zip(limits, ("lower end", "upper end"), strict=False)
            ),
        ]
        if not classwise:
            return "\n".join(lines)
        width = max(map(len, ("class", *classes)))
        heads = "".join(f"{name:>8}" for name in _PRECISIONS)
        lines += ["", f"{'class':<{width}} {'objects':>8}{heads}"]
        for name, category_id in zip(classes, category_ids, strict=True):
            cells = _cells(self.precisions(category_id))
            lines.append(f"{name:<{width}} {instances.get(category_id, 0):>8}{cells}")
        return "\n".join(lines)

    def _categories(self, category_id: int | None) -> slice | list[int]:
        return slice(None) if category_id is None else [self.category_ids.index(category_id)]


@dataclass(frozen=True)
class CocoDetections:
    """N detections as columns; those of an image keep their order, which decides between ties."""

    image_ids: np.ndarray  # (N,), numbers or text
    category_ids: np.ndarray  # (N,) int64
    boxes: np.ndarray  # (N, 4) float64, x y width height in pixels
    scores: np.ndarray  # (N,) float64
    masks: Sequence[dict[str, Any]] | None = None  # N compressed RLE

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def of_results(cls, results: Sequence[Mapping[str, Any]]) -> CocoDetections:
        """From COCO's results: ``image_id``, ``category_id``, ``bbox``, ``score`` each.

        Masks are kept if the first one has ``segmentation``.
        """
        masked = bool(results) and "segmentation" in results[0]
        return cls(
            image_ids=_ids([one["image_id"] for one in results]),
            category_ids=np.array([one["category_id"] for one in results], dtype=np.int64),
            boxes=np.array([one["bbox"] for one in results], dtype=np.float64).reshape(-1, 4),
            scores=np.array([one["score"] for one in results], dtype=np.float64),
            masks=[one["segmentation"] for one in results] if masked else None,
        )

    @classmethod
    def of_images(
        cls, images: Sequence[Mapping[str, Any]], category_ids: Sequence[int]
    ) -> CocoDetections:
        """From predictions, without detections whose box or score is NaN or infinite.

        Args:
            images: ``image_id``, ``bboxes`` (N, 4) as x1 y1 x2 y2 in pixels, ``scores`` (N,),
                ``labels`` (N,) as indices into ``category_ids``, and ``masks``, N RLE, if any.
            category_ids: Category of each label.
        """
        columns = [
            [np.zeros(shape), *(np.asarray(image[name], dtype=np.float64) for image in images)]
            for name, shape in (("bboxes", (0, 4)), ("scores", 0), ("labels", 0))
        ]
        boxes, scores, labels = (np.concatenate(column) for column in columns)
        boxes[:, 2:] -= boxes[:, :2]
        counts = [len(image["scores"]) for image in images]
        image_ids = np.repeat(_ids([image["image_id"] for image in images]), counts)
        category = np.asarray(category_ids, dtype=np.int64)[labels.astype(np.int64)]
        kept = np.isfinite(boxes).all(1) & np.isfinite(scores)
        masks = None
        if images and "masks" in images[0]:
            every = [mask for image in images for mask in image["masks"]]
            masks = [every[row] for row in np.flatnonzero(kept)]
        return cls(image_ids[kept], category[kept], boxes[kept], scores[kept], masks)

    def results(self) -> list[dict[str, Any]]:
        """COCO's results: a dictionary for each detection."""
        columns = (self.image_ids, self.category_ids, self.boxes, self.scores)
        names = ("image_id", "category_id", "bbox", "score")
        rows = zip(*(column.tolist() for column in columns), strict=True)
        found = [dict(zip(names, row, strict=True)) for row in rows]
        for one, mask in zip(found, self.masks or (), strict=False):
            one["segmentation"] = mask
        return found


def evaluate_coco(
    ground_truth: Mapping[str, Any],
    detections: CocoDetections | Sequence[Mapping[str, Any]],
    category_ids: Sequence[int],
    iou_type: str = "bbox",
    backend: str = "ultrafast",
    max_dets: Sequence[int] = (1, 10, 100),
    area_limits: tuple[float, float] = (32.0**2, 96.0**2),
) -> CocoResult:
    """Match detections with ground truth as COCO does.

    Both evaluators give the same values. Annotations with ``iscrowd`` 1 or an area out of range
    are ignored (neither hit nor miss). Ids of images may be text.

    Args:
        ground_truth: From :func:`.coco_annotations.load_coco_annotations`.
            ``segm`` needs polygons or RLE in each annotation, and ``width`` and ``height`` in each
            image.
        detections: Columns, or COCO's results as for :meth:`CocoDetections.of_results`. ``segm``
            needs masks. None at all is valid and gives 0 if there is ground truth.
        category_ids: Categories to evaluate.
        iou_type: ``bbox`` or ``segm``.
        backend: ``ultrafast`` (ultrafast-pycocotools) or ``pycocotools`` (the reference).
        max_dets: Limits of detections per image and category; precision uses the largest.
        area_limits: Pixels² that separate small from medium and medium from large.
    """
    return CocoResult.of(
        run_evaluator(
            ground_truth, detections, category_ids, iou_type, backend, max_dets, area_limits
        )
    )


def run_evaluator(
    ground_truth: Mapping[str, Any],
    detections: CocoDetections | Sequence[Mapping[str, Any]],
    category_ids: Sequence[int],
    iou_type: str,
    backend: str,
    max_dets: Sequence[int],
    area_limits: tuple[float, float],
) -> Any:
    """The evaluator of a backend after its work; arguments are those of :func:`evaluate_coco`."""
    if backend == "ultrafast":
        from ultrafast_pycocotools import COCO, COCOeval
    else:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

    if not isinstance(detections, CocoDetections):
        detections = CocoDetections.of_results(detections)
    numbers = number_images(ground_truth["images"])
    images = [{**image, "id": numbers[image["id"]]} for image in ground_truth["images"]]
    annotations = [
        # Copies, since pycocotools writes into them.
        {**annotation, "image_id": numbers[annotation["image_id"]]}
        for annotation in ground_truth["annotations"]
    ]
    index = np.array([numbers[one] for one in detections.image_ids.tolist()], dtype=np.int64)
    truth = {"info": {}, **ground_truth, "images": images, "annotations": annotations}
    # The evaluators print their progress.
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _indexed(COCO, truth)
        if backend == "ultrafast" and iou_type == "bbox":
            found = truth.loadRes(
                np.column_stack(
                    (index, detections.boxes, detections.scores, detections.category_ids)
                ).astype(np.float64)
            )
        else:
            results = _numbered(replace(detections, image_ids=index), iou_type)
            found = _indexed(COCO, {**truth.dataset, "annotations": results})
        evaluation = COCOeval(truth, found, iou_type)
        parameters = evaluation.params
        parameters.catIds = sorted(category_ids)
        parameters.maxDets = sorted(max_dets)
        small, medium = area_limits
        parameters.areaRng = [[0.0, 1e10], [0.0, small], [small, medium], [medium, 1e10]]
        parameters.areaRngLbl = list(AREAS)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def to_numpy(values: torch.Tensor | np.ndarray) -> np.ndarray:
    """``values`` on the CPU as an array."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def number_images(images: Sequence[Mapping[str, Any]]) -> dict[Any, int]:
    """A number for each image id, in their order: evaluators take integers below 2^53."""
    ids = [image["id"] for image in images]
    numeric = all(isinstance(image_id, int) for image_id in ids)
    ordered = sorted(ids) if numeric else sorted(ids, key=str)
    return {image_id: number for number, image_id in enumerate(ordered)}


def _indexed(api: type, dataset: dict[str, Any]) -> Any:
    # Not by the constructors, which read files, nor `loadRes`, which fails on an empty list.
    coco = api()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _numbered(detections: CocoDetections, iou_type: str) -> list[dict[str, Any]]:
    if iou_type == "segm":
        from pycocotools import mask as mask_api

        areas = mask_api.area(list(detections.masks or ())) if len(detections) else []
    else:
        areas = detections.boxes[:, 2] * detections.boxes[:, 3]
    return [
        {**one, "id": number, "iscrowd": 0, "area": float(area)}
        for number, (one, area) in enumerate(zip(detections.results(), areas, strict=True), start=1)
    ]


def _ids(values: Sequence[Any]) -> np.ndarray:
    # As objects, so that text is not cut and large numbers are not rounded.
    ids = np.empty(len(values), dtype=object)
    ids[:] = values
    return ids


def _mean_of_valid(values: np.ndarray) -> float:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else float("nan")


def _cells(values) -> str:
    return "".join(f"{'-' if math.isnan(value) else format(value, '.3f'):>8}" for value in values)
