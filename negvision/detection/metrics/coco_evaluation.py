"""COCO average precision and recall by either of two evaluators, in full precision."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BACKENDS = ("faster", "pycocotools")
AREAS = ("all", "small", "medium", "large")


@dataclass(frozen=True)
class CocoResult:
    """Precision and recall of one evaluation, -1 where there is no ground truth.

    Attributes:
        precision: ``(T, R, K, A, M)`` over IoU thresholds, recall points, categories, area
            ranges (:data:`AREAS`) and limits of detections an image.
        recall: ``(T, K, A, M)``, the highest recall reached.
        iou_thresholds: ``(T,)``.
        category_ids: ``(K,)``, ascending.
        max_dets: ``(M,)``, ascending.
    """

    precision: np.ndarray
    recall: np.ndarray
    iou_thresholds: np.ndarray
    category_ids: tuple[int, ...]
    max_dets: tuple[int, ...]

    def average_precision(
        self, iou: float | None = None, area: str = "all", category_id: int | None = None
    ) -> float:
        """Mean precision at the largest detection limit; NaN without ground truth.

        Args:
            iou: One threshold; by default the mean over all of them.
            area: One of :data:`AREAS`, by the area of the ground truth.
            category_id: One category; by default the mean over all that have ground truth.
        """
        precision = self.precision[self._thresholds(iou), :, :, AREAS.index(area), -1]
        return _mean_of_valid(precision[:, :, self._categories(category_id)])

    def average_recall(
        self, max_dets: int | None = None, area: str = "all", category_id: int | None = None
    ) -> float:
        """Mean recall over the IoU thresholds; NaN without ground truth.

        Args:
            max_dets: One of the limits evaluated; by default the largest.
            area: As in :meth:`average_precision`.
            category_id: As in :meth:`average_precision`.
        """
        limit = -1 if max_dets is None else self.max_dets.index(max_dets)
        recall = self.recall[:, :, AREAS.index(area), limit]
        return _mean_of_valid(recall[:, self._categories(category_id)])

    def figures(self) -> dict[str, float]:
        """COCO's summary: six APs, the AR at each detection limit, three ARs by size."""
        top = self.max_dets[-1]
        return {
            "mAP": self.average_precision(),
            "mAP_50": self.average_precision(iou=0.5),
            "mAP_75": self.average_precision(iou=0.75),
            "mAP_s": self.average_precision(area="small"),
            "mAP_m": self.average_precision(area="medium"),
            "mAP_l": self.average_precision(area="large"),
            **{f"AR@{limit}": self.average_recall(limit) for limit in self.max_dets},
            f"AR_s@{top}": self.average_recall(area="small"),
            f"AR_m@{top}": self.average_recall(area="medium"),
            f"AR_l@{top}": self.average_recall(area="large"),
        }

    def _thresholds(self, iou: float | None) -> np.ndarray:
        if iou is None:
            return np.arange(len(self.iou_thresholds))
        return np.flatnonzero(np.isclose(self.iou_thresholds, iou))

    def _categories(self, category_id: int | None) -> slice | list[int]:
        return slice(None) if category_id is None else [self.category_ids.index(category_id)]


def evaluate_coco(
    ground_truth: dict[str, Any],
    detections: Sequence[dict[str, Any]],
    category_ids: Sequence[int],
    iou_type: str = "bbox",
    backend: str = "faster",
    max_dets: Sequence[int] = (1, 10, 100),
    area_limits: tuple[float, float] = (32.0**2, 96.0**2),
) -> CocoResult:
    """Match detections with ground truth as COCO does.

    Both evaluators implement the same matching and give the same figures. As in COCO, an
    annotation is set aside (neither a hit nor a miss) where ``iscrowd`` is 1 or its area is out of
    range; a key ``ignore`` has no effect.

    Args:
        ground_truth: As :func:`load_coco_annotations` returns it. For ``segm``, each annotation
            has polygons or RLE and each image ``width`` and ``height``.
        detections: ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in pixels) and
            ``score`` each; for ``segm`` also ``segmentation`` as compressed RLE. None at all is
            fine, and gives 0 where there is ground truth.
        category_ids: Categories to evaluate.
        iou_type: ``bbox`` or ``segm``.
        backend: ``faster`` (faster-coco-eval, C++) or ``pycocotools`` (the reference).
        max_dets: Limits of detections an image and category; precision is taken at the largest.
        area_limits: Pixels² that part small from medium and medium from large.

    Raises:
        ValueError: Unknown backend or IoU type.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    if iou_type not in ("bbox", "segm"):
        raise ValueError(f"iou_type must be 'bbox' or 'segm', got {iou_type!r}")
    if backend == "faster":
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    else:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

    # pycocotools prints its progress; a table of ours follows instead.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            _indexed(COCO, ground_truth, _copies(ground_truth["annotations"])),
            _indexed(COCO, ground_truth, _numbered(detections, iou_type)),
            iou_type,
        )
        parameters = evaluation.params
        parameters.catIds = sorted(category_ids)
        parameters.maxDets = sorted(max_dets)
        parameters.areaRng = [
            [0.0, 1e10],
            [0.0, area_limits[0]],
            [area_limits[0], area_limits[1]],
            [area_limits[1], 1e10],
        ]
        parameters.areaRngLbl = list(AREAS)
        evaluation.evaluate()
        evaluation.accumulate()
    return CocoResult(
        precision=np.asarray(evaluation.eval["precision"]),
        recall=np.asarray(evaluation.eval["recall"]),
        iou_thresholds=np.asarray(parameters.iouThrs),
        category_ids=tuple(parameters.catIds),
        max_dets=tuple(parameters.maxDets),
    )


def _indexed(api: type, ground_truth: dict[str, Any], annotations: list[dict[str, Any]]) -> Any:
    # Not `loadRes`: it fails on an empty list, and builds a polygon for every box.
    coco = api()
    coco.dataset = {
        "info": {},
        "images": ground_truth["images"],
        "categories": ground_truth["categories"],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _copies(annotations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    # The evaluators write their marks into the annotations.
    return [dict(annotation) for annotation in annotations]


def _numbered(detections: Sequence[dict[str, Any]], iou_type: str) -> list[dict[str, Any]]:
    if iou_type == "segm":
        from pycocotools import mask as mask_api

        areas = [float(mask_api.area(detection["segmentation"])) for detection in detections]
    else:
        areas = [detection["bbox"][2] * detection["bbox"][3] for detection in detections]
    return [
        {**detection, "id": number, "iscrowd": 0, "area": area}
        for number, (detection, area) in enumerate(zip(detections, areas, strict=True), start=1)
    ]


def _mean_of_valid(values: np.ndarray) -> float:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else float("nan")
