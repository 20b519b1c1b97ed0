"""COCO detection metrics for MMEngine's evaluation loops."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log

from negvision.detection.metrics.coco_annotations import category_ids_of, load_coco_annotations
from negvision.detection.metrics.coco_evaluation import BACKENDS, evaluate_coco
from negvision.detection.metrics.coco_table import class_figures, coco_table
from negvision.engine.metrics import CollectedMetric
from negvision.registry import METRICS


@METRICS.register_module()
class CocoMetric(CollectedMetric):
    """COCO AP and AR of boxes or masks: overall, by object size and by class.

    Differs from mmdet's metric of the same name: figures are not rounded, detections are limited
    to 100 an image as in COCO (mmdet: 1000), a class's figures are right also where the model's
    classes stand in another order than the file's category ids, and a model without a single
    detection gets zeros.

    Every image of ``ann_file`` counts; those the loop did not visit are reported and count as
    missed. An image that comes twice counts once: samplers repeat some to fill up the last batch
    over all ranks. The table goes to the current MMEngine logger.

    Args:
        ann_file: COCO ground truth. Read at construction.
        metric: ``"bbox"``, ``"segm"`` or both. Masks need ``masks`` in the predictions.
        backend: ``"faster"`` (faster-coco-eval) or ``"pycocotools"``: the same figures.
        classwise: Add each class to the table and to the returned figures.
        max_dets: Limits of detections an image and class; AP is taken at the largest.
        area_limits: Area in pixels² up to which an object is small, and up to which medium. In
            COCO 32² and 96² on images of about 640 pixels; areas are those of ``ann_file``,
            not of the resized image.
        collect_device: As in MMEngine.
        prefix: In front of each key, by default ``coco``.

    Returned keys: ``bbox_mAP``, ``bbox_mAP_50``, ``bbox_mAP_75``, ``bbox_mAP_s``, ``bbox_mAP_m``,
    ``bbox_mAP_l``, ``bbox_AR@1``, ``bbox_AR@10``, ``bbox_AR@100``, ``bbox_AR_s@100``,
    ``bbox_AR_m@100``, ``bbox_AR_l@100`` and ``bbox_mAP/<class>``, in [0, 1], NaN where there is
    nothing to find; the same with ``segm``.

    Raises:
        FileNotFoundError: ``ann_file`` does not exist.
        ValueError: An argument out of its choices, a file that is no COCO file, or a class of
            the dataset that is no category of the file.

    Example, in a config::

        val_evaluator = dict(type="negvision.CocoMetric", ann_file="data/coco/annotations/x.json")
    """

    default_prefix = "coco"

    def __init__(
        self,
        ann_file: str,
        metric: str | Sequence[str] = "bbox",
        backend: str = "faster",
        classwise: bool = True,
        max_dets: Sequence[int] = (1, 10, 100),
        area_limits: tuple[float, float] = (32.0**2, 96.0**2),
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.iou_types = [metric] if isinstance(metric, str) else list(metric)
        unknown = [name for name in self.iou_types if name not in ("bbox", "segm")]
        if unknown or not self.iou_types:
            raise ValueError(f"metric must be 'bbox', 'segm' or a list of them, got {metric!r}")
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
        if not max_dets or min(max_dets) < 1:
            raise ValueError(f"max_dets must be positive numbers, got {max_dets!r}")
        if not 0 < area_limits[0] < area_limits[1]:
            raise ValueError(f"area_limits must be 0 < small < medium, got {area_limits!r}")
        self.ann_file = str(ann_file)
        self.backend = backend
        self.classwise = classwise
        self.max_dets = tuple(sorted(max_dets))
        self.area_limits = tuple(area_limits)
        self.ground_truth = load_coco_annotations(ann_file)
        self._image_ids = {image["id"] for image in self.ground_truth["images"]}
        self._category_ids: list[int] = []
        if "segm" in self.iou_types:
            self._require_masks()

    @property
    def dataset_meta(self) -> dict | None:
        """Meta information of the dataset; setting it looks each class up in ``ann_file``."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        if "classes" not in dataset_meta:
            raise ValueError(f"the dataset's metainfo has no 'classes', only {list(dataset_meta)}")
        self._category_ids = category_ids_of(
            dataset_meta["classes"], self.ground_truth["categories"], self.ann_file
        )
        self._dataset_meta = dataset_meta

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the predictions of a batch.

        Args:
            data_batch: Not used.
            data_samples: ``img_id`` and ``pred_instances`` (``bboxes`` ``(N, 4)`` xyxy in pixels
                of the original image, ``scores`` and ``labels`` ``(N,)``) each, and ``masks``
                (``(N, H, W)`` tensor or a list of RLE) for ``segm``.
        """
        for sample in data_samples:
            predicted = sample["pred_instances"]
            if "segm" in self.iou_types and "masks" not in predicted:
                raise ValueError("metric 'segm' needs masks, and the predictions have none")
            kept = {
                "image_id": sample["img_id"],
                "bboxes": _array(predicted["bboxes"]).astype(np.float64).reshape(-1, 4),
                "scores": _array(predicted["scores"]).astype(np.float64).reshape(-1),
                "labels": _array(predicted["labels"]).reshape(-1),
            }
            if "segm" in self.iou_types:
                kept["masks"] = _run_lengths(predicted["masks"])
            self.results.append(kept)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Evaluate what all ranks collected; see the class for the keys."""
        if self.dataset_meta is None:
            raise ValueError("dataset_meta is not set: assign the dataset's metainfo first")
        results = list({result["image_id"]: result for result in results}.values())
        detections = self._detections(results)
        self._report_unvisited(results)
        figures: dict[str, float] = {}
        for iou_type in self.iou_types:
            figures.update(self._evaluate(detections, iou_type))
        return figures

    def _evaluate(self, detections: list[dict], iou_type: str) -> dict[str, float]:
        start = time.perf_counter()
        result = evaluate_coco(
            self.ground_truth,
            detections,
            self._category_ids,
            iou_type=iou_type,
            backend=self.backend,
            max_dets=self.max_dets,
            area_limits=self.area_limits,
        )
        elapsed = time.perf_counter() - start
        classes = self.dataset_meta["classes"]
        instances = Counter(
            annotation["category_id"]
            for annotation in self.ground_truth["annotations"]
            if not annotation["iscrowd"]
        )
        objects = sum(instances[category_id] for category_id in self._category_ids)
        table = coco_table(result, classes, self._category_ids, instances, self.classwise)
        evaluator = "faster-coco-eval" if self.backend == "faster" else "pycocotools"
        print_log(
            f"COCO {iou_type}, {Path(self.ann_file).name}: {len(self._image_ids):,} images, "
            f"{objects:,} objects, {len(detections):,} detections "
            f"({evaluator}, {elapsed:.1f} s)\n{table}",
            logger="current",
        )
        figures = {f"{iou_type}_{name}": value for name, value in result.figures().items()}
        if self.classwise:
            for name, category_id in zip(classes, self._category_ids, strict=True):
                figures[f"{iou_type}_mAP/{name}"] = class_figures(result, category_id)[0]
        return figures

    def _detections(self, results: list[dict]) -> list[dict]:
        detections = []
        dropped = 0
        for result in results:
            image_id = result["image_id"]
            if image_id not in self._image_ids:
                raise ValueError(
                    f"predicted image {image_id!r} is not in {self.ann_file!r}: the metric's "
                    f"ann_file and the dataloader's must be the same"
                )
            # A diverged model predicts NaN, which has no rank among scores and no overlap.
            finite = np.isfinite(result["bboxes"]).all(1) & np.isfinite(result["scores"])
            dropped += int((~finite).sum())
            for index in np.flatnonzero(finite):
                left, top, right, bottom = result["bboxes"][index].tolist()
                detection = {
                    "image_id": image_id,
                    "category_id": self._category_ids[int(result["labels"][index])],
                    "bbox": [left, top, right - left, bottom - top],
                    "score": float(result["scores"][index]),
                }
                if "masks" in result:
                    detection["segmentation"] = result["masks"][index]
                detections.append(detection)
        if dropped:
            print_log(
                f"{dropped:,} detections with a NaN or infinite box or score were left out",
                logger="current",
                level=logging.WARNING,
            )
        return detections

    def _report_unvisited(self, results: list[dict]) -> None:
        unvisited = self._image_ids - {result["image_id"] for result in results}
        if unvisited:
            print_log(
                f"{len(unvisited):,} of {len(self._image_ids):,} images of {self.ann_file!r} were "
                f"not predicted; their objects count as missed",
                logger="current",
                level=logging.WARNING,
            )

    def _require_masks(self) -> None:
        without = [a for a in self.ground_truth["annotations"] if not a.get("segmentation")]
        if without:
            raise ValueError(
                f"metric 'segm': {len(without):,} annotations of {self.ann_file!r} have no "
                f"segmentation (the first belongs to image {without[0]['image_id']!r})"
            )


def _array(values: torch.Tensor | np.ndarray) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _run_lengths(masks: torch.Tensor | np.ndarray | list[dict]) -> list[dict]:
    from pycocotools import mask as mask_api

    if isinstance(masks, list):
        return masks
    encoded = []
    for mask in _array(masks):
        encoded.append(mask_api.encode(np.asfortranarray(mask.astype(np.uint8))))
    return encoded
