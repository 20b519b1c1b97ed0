"""COCO average precision and recall by either of two evaluators, unrounded, and their table."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

BACKENDS = ("faster", "pycocotools")
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
    ) -> str:
        """The metrics, then with ``classwise`` one line per class; "-" without ground truth.

        ``instances`` has the number of objects of each category without crowds.
        """
        recalls = [f"AR@{limit}" for limit in self.max_dets] + ["ARs", "ARm", "ARl"]
        lines = [
            "".join(f"{name:>8}" for name in (*_PRECISIONS, *recalls)),
            _cells(self.metrics().values()),
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

    Both evaluators give the same values. Annotations with ``iscrowd`` 1 or an area out of range
    are ignored (neither hit nor miss). Ids of images may be text.

    Args:
        ground_truth: From :func:`.coco_annotations.load_coco_annotations`.
            ``segm`` needs polygons or RLE in each annotation, and ``width`` and ``height`` in each
            image.
        detections: ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in pixels) and
            ``score`` each; for ``segm`` also ``segmentation`` as compressed RLE. An empty list is
            valid and gives 0 if there is ground truth.
        category_ids: Categories to evaluate.
        iou_type: ``bbox`` or ``segm``.
        backend: ``faster`` (faster-coco-eval, C++) or ``pycocotools`` (the reference).
        max_dets: Limits of detections per image and category; precision uses the largest.
        area_limits: Pixels² that separate small from medium and medium from large.
    """
    if backend == "faster":
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    else:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

    numbers = _numbers_of_images(ground_truth["images"])
    # The evaluators print their progress.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            # Copies, since the evaluators write into the annotations.
            _indexed(COCO, ground_truth, [dict(a) for a in ground_truth["annotations"]], numbers),
            _indexed(COCO, ground_truth, _numbered(detections, iou_type), numbers),
            iou_type,  # ty: ignore[invalid-argument-type]
        )
        parameters = evaluation.params
        parameters.catIds = sorted(category_ids)
        parameters.maxDets = sorted(max_dets)
        small, medium = area_limits
        parameters.areaRng = [[0.0, 1e10], [0.0, small], [small, medium], [medium, 1e10]]
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


def coco_detections(
    image_id: int,
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    category_ids: Sequence[int],
    masks: Sequence[dict] | None = None,
) -> list[dict[str, Any]]:
    """Detections of an image in COCO's format, without those with a NaN or infinite box or score.

    Boxes (N, 4) are x1 y1 x2 y2 in pixels, labels (N,) indices into ``category_ids``, and masks
    RLE.
    """
    found = []
    for row in np.flatnonzero(np.isfinite(boxes).all(1) & np.isfinite(scores)):
        left, top, right, bottom = boxes[row].tolist()
        detection = {
            "image_id": image_id,
            "category_id": category_ids[int(labels[row])],
            "bbox": [left, top, right - left, bottom - top],
            "score": float(scores[row]),
        }
        if masks is not None:
            detection["segmentation"] = masks[row]
        found.append(detection)
    return found


def to_numpy(values: torch.Tensor | np.ndarray) -> np.ndarray:
    """``values`` on the CPU as an array."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _numbers_of_images(images: Sequence[dict[str, Any]]) -> dict[Any, int]:
    """An integer for each image id, as the evaluators need it; integers stay as they are."""
    ids = [image["id"] for image in images]
    if all(isinstance(image_id, int) for image_id in ids):
        return dict(zip(ids, ids, strict=True))
    return {image_id: number for number, image_id in enumerate(sorted(ids, key=str))}


def _indexed(
    api: type,
    ground_truth: dict[str, Any],
    annotations: list[dict[str, Any]],
    numbers: dict[Any, int],
) -> Any:
    # Not `loadRes`, which fails on an empty list and builds a polygon for every box.
    coco = api()
    for annotation in annotations:
        annotation["image_id"] = numbers[annotation["image_id"]]
    images = [{**image, "id": numbers[image["id"]]} for image in ground_truth["images"]]
    coco.dataset = {"info": {}, **ground_truth, "images": images, "annotations": annotations}
    coco.createIndex()
    return coco


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


def _cells(values) -> str:
    return "".join(f"{'-' if math.isnan(value) else format(value, '.3f'):>8}" for value in values)
