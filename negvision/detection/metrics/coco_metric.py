"""COCO detection metrics for MMEngine's evaluation loops."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log

from negvision.bootstrap import bootstrap, interval
from negvision.data.formats.coco_file import find_classes, find_mask_problem, usable_polygons
from negvision.data.reliability import reliability
from negvision.detection.metrics.coco_annotations import load_coco_annotations
from negvision.detection.metrics.coco_evaluation import (
    BACKENDS,
    CocoDetections,
    evaluate_coco,
    metric_names,
    to_numpy,
)
from negvision.detection.metrics.coco_statistics import CocoStatistics
from negvision.detection.metrics.error_kinds import KINDS, error_kinds
from negvision.detection.metrics.froc import FROC, fppi_names
from negvision.detection.metrics.groups import GroupFigures, Groups, image_values
from negvision.engine.image_check import compare_images
from negvision.engine.metrics import CollectedMetric
from negvision.errors import ConfigError, DatasetError, Problems
from negvision.registry import METRICS


class CocoTruthMetric(CollectedMetric):
    """A metric with COCO ground truth, whose categories are matched with the classes by name.

    Args:
        ann_file: COCO ground truth. Read at construction.
        area_limits: Pixels² up to which an object is small, and up to which medium.
        **kwargs: Of :class:`negvision.engine.metrics.CollectedMetric`.
    """

    needs_annotations = True

    def __init__(self, ann_file: str, area_limits: tuple[float, float], **kwargs) -> None:
        super().__init__(**kwargs)
        if not 0 < area_limits[0] < area_limits[1]:
            raise ValueError(f"area_limits must be 0 < small < medium, got {area_limits!r}")
        self.ann_file = str(ann_file)
        self.area_limits = (area_limits[0], area_limits[1])
        self.ground_truth = load_coco_annotations(ann_file, self.needs_annotations)
        self.has_truth = bool(self.ground_truth["annotations"])
        self._image_ids = {image["id"] for image in self.ground_truth["images"]}
        self._classes: list[str] = []
        self._category_ids: list[int] = []

    @property
    def dataset_meta(self) -> dict:
        """Meta information of the dataset; setting it looks up each class in ``ann_file``."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        # mmdet's ConcatDataset makes a list of metainfo that differs between its parts.
        if not isinstance(dataset_meta, dict) or "classes" not in dataset_meta:
            raise ConfigError(
                f"negvision.{type(self).__name__} needs the same classes, in the same order, in "
                f"all concatenated data sets; their metainfo is {dataset_meta!r}"
            )
        self._classes = list(dataset_meta["classes"])
        self._category_ids = find_classes(self.ann_file, self.ground_truth, self._classes)[1]
        self._dataset_meta = dataset_meta

    def _check_predicted(self, images: Iterable[tuple[Any, str]]) -> None:
        """Check that images (id and path) are those of ``ann_file``; warn if some are missing.

        Raises:
            ConfigError: An image is not in ``ann_file``, or another one there.
        """
        images = list(images)
        names = {image["id"]: image.get("file_name") for image in self.ground_truth["images"]}
        problems = compare_images(images, names)
        if problems:
            raise ConfigError(
                f"the predicted images are not those of {self.ann_file!r}:\n{problems.report()}\n"
                "The metric and the in-distribution data set must use the same ann_file, and OOD "
                "images need 'is_ood' in meta_keys"
            )
        missing = len(self._image_ids - dict(images).keys())
        if missing:
            print_log(
                f"{missing:,} of {len(self._image_ids):,} images of {self.ann_file!r} were not "
                "predicted; their objects count as missed in the AP",
                logger="current",
                level=30,
            )


@METRICS.register_module()
class CocoMetric(CocoTruthMetric):
    """COCO AP and AR of boxes or masks: overall, by object size and by class.

    Differs from mmdet's metric of the same name: values are not rounded, detections are limited
    to 100 per image as in COCO (mmdet: 1000), the values of a class are right even if the model's
    classes and the file's category ids are in different orders, and a model without any detection
    gets zeros.

    Without annotations, as in the files of COCO's test images, there are no figures: a test writes
    its detections, and a validation is refused.

    Objects are those of :class:`negvision.CocoDataset`: ``ignore: 1`` means ``iscrowd: 1``, boxes
    are clipped to their image, and boxes narrower than a pixel are left out. Every image of
    ``ann_file`` counts; images that were not predicted are reported and their objects count as
    missed. Images that samplers repeat to fill the last batch count once. The
    table goes to the current MMEngine logger.

    Args:
        ann_file: COCO ground truth. Read at construction.
        metric: ``"bbox"``, ``"segm"`` or both. Masks need ``masks`` in the predictions.
        backend: ``"ultrafast"`` (ultrafast-pycocotools) or ``"pycocotools"``: the same values.
        classwise: Add each class to the table and to the returned values.
        max_dets: Limits of detections per image and class; AP uses the largest.
        area_limits: Area in pixels² up to which an object is small, and up to which medium. In
            COCO 32² and 96² on images of about 640 pixels; areas are those of ``ann_file``,
            not of the resized image.
        resamples: For intervals: how often the images are drawn anew with replacement. 0: none.
            None: 1,000 in ``negvision test``, none in a validation.
        group_by: Key of the images of ``ann_file``, such as ``"video_id"``, whose images are drawn
            together, because they show the same scene. None: images are drawn one by one.
        groups: Tell groups apart: ``"size"`` of objects, or a key of the images of ``ann_file``,
            such as ``"weather"``; see :class:`negvision.detection.metrics.groups.GroupFigures`.
            Only where ``errors`` are told.
        errors: Tell the kinds of errors apart and what each costs, see
            :func:`negvision.detection.metrics.error_kinds.error_kinds`, whether scores are
            probabilities, and false positives per image. None: in ``negvision test``, not in a
            validation.
        collect_device: As in MMEngine.
        prefix: In front of each key, by default ``coco``.

    Returned keys: ``bbox_mAP``, ``bbox_mAP_50``, ``bbox_mAP_75``, ``bbox_mAP_s``, ``bbox_mAP_m``,
    ``bbox_mAP_l``, ``bbox_AR@1``, ``bbox_AR@10``, ``bbox_AR@100``, ``bbox_AR_s@100``,
    ``bbox_AR_m@100``, ``bbox_AR_l@100`` and ``bbox_mAP/<class>``, in [0, 1], NaN without ground
    truth; the same with ``segm``. With ``resamples`` also ``bbox_mAP_low``, ``bbox_mAP_high`` and
    so on: the limits of the 95 % interval of each figure but those of single classes. With
    ``errors`` also ``bbox_cost/classification`` and so on, the AP50 that each kind of error costs,
    ``bbox_ece``, the expected calibration error of detections with scores from 0.3, and the figures
    of :class:`negvision.FPPIMetric`, such as ``bbox_fppi@0.8`` and ``bbox_froc@1``. With ``groups``
    also ``bbox_group/<group>/AP``, ``AUROC``, ``AUPRC`` and ``AUPRC at 0.1``, and ``bbox_gap/AP``
    and so on, the difference of the highest and the lowest group.

    Raises:
        FileNotFoundError: ``ann_file`` does not exist.
        ValueError: An invalid argument, a file that is not a COCO file, or a class of the dataset
            that is not a category of the file.
        ConfigError: The dataset has no classes, or a predicted image is not in ``ann_file``.

    Example, in a config::

        val_evaluator = dict(type="negvision.CocoMetric", ann_file="data/coco/annotations/x.json")
    """

    default_prefix = "coco"
    needs_annotations = False

    def __init__(
        self,
        ann_file: str,
        metric: str | Sequence[str] = "bbox",
        backend: str = "ultrafast",
        classwise: bool = True,
        max_dets: Sequence[int] = (1, 10, 100),
        area_limits: tuple[float, float] = (32.0**2, 96.0**2),
        resamples: int | None = None,
        group_by: str | None = None,
        errors: bool | None = None,
        groups: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(ann_file, area_limits, collect_device=collect_device, prefix=prefix)
        self.iou_types = [metric] if isinstance(metric, str) else list(metric)
        unknown = [name for name in self.iou_types if name not in ("bbox", "segm")]
        if unknown or not self.iou_types:
            raise ValueError(f"metric must be 'bbox', 'segm' or a list of them, got {metric!r}")
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
        if not max_dets or min(max_dets) < 1:
            raise ValueError(f"max_dets must be positive numbers, got {max_dets!r}")
        if resamples is not None and resamples < 0:
            raise ValueError(f"resamples must be at least 0, got {resamples!r}")
        self.resamples = resamples
        self.errors = errors
        self.groups = groups
        if groups is not None:
            ids = [one["id"] for one in self.ground_truth["categories"]]
            Groups.of(self.ground_truth, ids, groups, self.ann_file)
        self._drawn = "images" if group_by is None else f"values of {group_by}"
        self._units = units_of(self.ground_truth["images"], group_by, self.ann_file)
        self.backend = backend
        self.classwise = classwise
        self.max_dets = tuple(sorted(max_dets))
        if "segm" in self.iou_types:
            self._check_masks()

    def _check_masks(self) -> None:
        """Raise DatasetError for missing and unusable masks; drop polygons without an area."""
        images = {image["id"]: image for image in self.ground_truth["images"]}
        problems = Problems()
        for annotation in self.ground_truth["annotations"]:
            image_id = annotation["image_id"]
            if problem := find_mask_problem(annotation, images[image_id]):
                problems.add(problem[0], f"image id {image_id!r}", problem[1])
            elif isinstance(annotation["segmentation"], list):
                annotation["segmentation"] = usable_polygons(annotation["segmentation"])
        if problems:
            raise DatasetError(
                f"{self.ann_file}: metric 'segm' needs a mask of every object:\n"
                f"{problems.report()}\nCorrect the file, or evaluate boxes: metric='bbox'."
            )

    def names(self) -> list[str]:
        """See the base class."""
        of_classes = [f"mAP/{escape(name)}" for name in self._classes] if self.classwise else []
        figures = metric_names(self.max_dets)
        ends = ("_low", "_high") if self.resamples else ()
        costs = [*(f"cost/{name}" for name in KINDS), "ece"] if self.errors else []
        figures += fppi_names() if self.errors else []
        costs += ["group/*", "gap/*"] if self.errors and self.groups else []
        keys = [*figures, *of_classes, *costs, *(name + end for name in figures for end in ends)]
        return [f"{iou_type}_{key}" for iou_type in self.iou_types for key in keys]

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Store the predictions of a batch.

        Args:
            data_batch: Not used.
            data_samples: ``img_id`` and ``pred_instances`` (``bboxes`` ``(N, 4)`` xyxy in pixels
                of the original image, ``scores`` and ``labels`` ``(N,)``) each, and ``masks``
                (``(N, H, W)`` tensor or a list of RLE) for ``segm``.
        """
        for sample in data_samples:
            predicted = sample["pred_instances"]
            kept = {
                "image_id": sample["img_id"],
                "path": str(sample.get("img_path", "")),
                "bboxes": to_numpy(predicted["bboxes"]).astype(np.float64).reshape(-1, 4),
                "scores": to_numpy(predicted["scores"]).astype(np.float64).reshape(-1),
                "labels": to_numpy(predicted["labels"]).reshape(-1),
            }
            if "segm" in self.iou_types:
                if "masks" not in predicted:
                    raise ConfigError(
                        "metric 'segm' needs masks, and the predictions have none: use a model "
                        "with a mask head, or metric='bbox'"
                    )
                kept["masks"] = _run_lengths(predicted["masks"])
            self.results.append(kept)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Evaluate the predictions of all ranks; see the class for the keys."""
        self._check_predicted((result["image_id"], result["path"]) for result in results)
        results = list({result["image_id"]: result for result in results}.values())
        if not self.has_truth:
            print_log(f"{self.ann_file}: no annotations, so no figures", logger="current")
            return {}
        detections = self._detections(results)
        metrics: dict[str, float] = {}
        for iou_type in self.iou_types:
            metrics |= self._evaluate(detections, iou_type)
        return metrics

    def _evaluate(self, detections: CocoDetections, iou_type: str) -> dict[str, float]:
        start = time.perf_counter()
        options = {"iou_type": iou_type, "max_dets": self.max_dets, "area_limits": self.area_limits}
        inputs = self.ground_truth, detections, self._category_ids
        result = evaluate_coco(*inputs, backend=self.backend, **options)
        elapsed = time.perf_counter() - start
        limits, how = np.empty((2, 0)), ""
        figures = metric_names(self.max_dets)
        if self.resamples:
            statistics = CocoStatistics(*inputs, **options)
            draws = bootstrap(statistics.figures, self._units, self.resamples)
            values = np.array(list(result.metrics().values()))
            of_id = dict(zip(self._category_ids, self._classes, strict=True))
            keys = [*figures, *(f"mAP/{of_id[one]}" for one in statistics.category_ids)]
            own = {f"{iou_type}_{key}": one for key, one in zip(keys, draws.T, strict=True)}
            self.draws = {**self.draws, **own}
            limits = interval(values, draws[:, : len(figures)])
            count = self.units = len(np.unique(self._units))
            how = f", {self.resamples:,} resamples of {count:,} {self._drawn}"
        costs, line = {}, ""
        if self.errors:
            kinds = error_kinds(*inputs, **options)
            calibration = reliability(kinds.scores, kinds.hits)
            rates, lines = FROC.of(kinds).measured(self._units, self.resamples or 0)
            line = f"\n\n{kinds.line()}\n{calibration.line()}\n{lines}"
            costs = {f"cost/{name}": kinds.mean_costs()[name] for name in KINDS}
            costs["ece"] = calibration.error
            costs |= rates
            if self.groups is not None:
                known = Groups.of(
                    self.ground_truth, inputs[2], self.groups, self.ann_file, self.area_limits
                )
                statistics = CocoStatistics(*inputs, **options)
                found = GroupFigures(known, statistics, *inputs, **options)
                of_groups, table = found.measured(self._units, self.resamples or 0)
                costs |= of_groups
                line += f"\n\n{table}"
        ids = set(self._category_ids)
        chosen = [a for a in self.ground_truth["annotations"] if a["category_id"] in ids]
        instances = Counter(a["category_id"] for a in chosen if not a["iscrowd"])
        objects = instances.total()
        ignored = f"{len(chosen) - objects:,} ignored, " if len(chosen) > objects else ""
        print_log(
            f"COCO {iou_type}, {Path(self.ann_file).name}: {len(self._image_ids):,} images, "
            f"{objects:,} objects, {ignored}{len(detections):,} detections ({self.backend}, "
            f"{elapsed:.1f} s{how})\n"
            + result.table(
                self._classes,
                self._category_ids,
                instances,
                self.classwise,
                limits.tolist() if limits.size else (),
            )
            + line,
            logger="current",
        )
        metrics = {f"{iou_type}_{name}": value for name, value in result.metrics().items()}
        metrics |= {f"{iou_type}_{name}": value for name, value in costs.items()}
        for end, values in zip(("low", "high"), limits.tolist(), strict=True):
            metrics |= {
                f"{iou_type}_{name}_{end}": value
                for name, value in zip(figures, values, strict=False)
            }
        if self.classwise:
            for name, category_id in zip(self._classes, self._category_ids, strict=True):
                value = result.average_precision(category_id=category_id)
                metrics[f"{iou_type}_mAP/{name}"] = value
        return metrics

    def _detections(self, results: list[dict]) -> CocoDetections:
        detections = CocoDetections.of_images(results, self._category_ids)
        # A diverged model predicts NaN, which has no rank among scores and no overlap.
        dropped = sum(len(result["scores"]) for result in results) - len(detections)
        if dropped:
            print_log(
                f"{dropped:,} detections with a NaN or infinite box or score were left out",
                logger="current",
                level=30,
            )
        return detections


def units_of(
    images: Sequence[Mapping[str, Any]], group_by: str | None, ann_file: str
) -> np.ndarray:
    """What a bootstrap draws: (I,) numbers, in the order of the sorted image ids.

    Raises:
        ConfigError: An image has no ``group_by``.
    """
    if group_by is None:
        return np.arange(len(images))
    return np.unique(image_values(images, group_by, ann_file), return_inverse=True)[1]


def _run_lengths(masks: torch.Tensor | np.ndarray | list[dict]) -> list[dict]:
    from pycocotools import mask as mask_api

    if isinstance(masks, list):
        return masks
    return [mask_api.encode(np.asfortranarray(m.astype(np.uint8))) for m in to_numpy(masks)]
