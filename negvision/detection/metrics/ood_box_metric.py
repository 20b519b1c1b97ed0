"""OOD scores of boxes by the protocol of VOS, with the COCO AP of the known classes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log

from negvision.detection.metrics.coco_annotations import category_ids_of, load_coco_annotations
from negvision.detection.metrics.coco_evaluation import evaluate_coco
from negvision.detection.metrics.f1_threshold import f1_threshold
from negvision.detection.metrics.image_boxes import ImageBoxes
from negvision.engine.metrics import OODMetricBase
from negvision.errors import ConfigError, OODDataError
from negvision.ood import ood_metrics
from negvision.ood.curve import check_finite
from negvision.ood.records import OODRecords
from negvision.registry import METRICS

_SIZES = ("small", "medium", "large")


@METRICS.register_module()
class OODBoxMetric(OODMetricBase):
    """How well the OOD scores of boxes tell images of unknown classes from known ones.

    The protocol of VOS (Du et al., "VOS: Learning What You Don't Know by Virtual Outlier
    Synthesis", ICLR 2022): every detection on an ID image counts as ID and every detection on an
    OOD image as OOD, without any matching, and only those of a class score of at least a threshold
    count. The threshold is by default the mean over classes of the score that is best by F1 at IoU
    0.5 on the ID images; ``score_thr=0.0`` counts all that the detector puts out, as AbeT's paper
    does. Figures at other thresholds are not comparable. The COCO AP of the known classes on the
    ID images stands beside them.

    Images are those of the dataset, e.g. a ``ConcatDataset`` of :class:`negvision.CocoDataset` and
    :class:`negvision.OODCocoDataset`, told apart by ``is_ood`` and identified by ``img_path``:
    ``PackDetInputs`` needs ``meta_keys`` with both and ``img_id``. Predictions need ``ood_score``
    and ``logits``, as the heads of this package give them.

    Strata: the size of the predicted box, as COCO parts areas, and the predicted class.

    Args:
        ann_file: COCO ground truth of the ID images. Read at construction.
        score_thr: "f1", or the threshold itself, in [0, 1].
        area_limits: Pixels² that part small boxes from medium and medium from large, on the
            original image.
        **kwargs: As of :class:`negvision.engine.metrics.OODMetricBase`.

    Returned keys: those of :class:`negvision.engine.metrics.OODMetricBase`, and
    ``class_score_threshold``, ``id_ap`` and ``id_ap50`` (COCO's AP and AP50, from all detections
    on ID images), ``id_boxes_kept``, ``id_boxes_found``, ``ood_boxes_kept`` and
    ``ood_boxes_found`` (at the threshold and in all), and ``image_auroc``: images in the place of
    boxes, each with the score of its most OOD box that is kept; those without any are left out.

    Raises:
        ConfigError: Predictions carry no OOD score, data samples lack their path, a class is no
            category of ``ann_file``, or an ID image is not in it.
        OODDataError: No image is OOD or none is ID, no box of one kind reaches the threshold, or a
            score is not finite.

    Example, in a config::

        val_evaluator = dict(type="negvision.OODBoxMetric", ann_file="data/voc/test.json")
    """

    def __init__(
        self,
        ann_file: str,
        score_thr: float | str = "f1",
        area_limits: tuple[float, float] = (32.0**2, 96.0**2),
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        numeric = isinstance(score_thr, int | float)
        if score_thr != "f1" and not (numeric and 0 <= score_thr <= 1):
            raise ValueError(f'score_thr must be "f1" or a number from 0 to 1, got {score_thr!r}')
        if not 0 < area_limits[0] < area_limits[1]:
            raise ValueError(f"area_limits must be 0 < small < medium, got {area_limits!r}")
        self.ann_file = str(ann_file)
        self.score_thr = score_thr
        self.area_limits = tuple(area_limits)
        self.ground_truth = load_coco_annotations(ann_file)
        self._image_ids = {image["id"] for image in self.ground_truth["images"]}
        self._category_ids: list[int] = []

    @property
    def dataset_meta(self) -> dict | None:
        """Meta information of the dataset; setting it looks each class up in ``ann_file``."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        # mmdet's ConcatDataset makes a list of what differs between its parts.
        if not isinstance(dataset_meta, dict) or "classes" not in dataset_meta:
            raise ConfigError(
                "negvision.OODBoxMetric needs the same classes, in the same order, in all data "
                f"sets that are concatenated; their metainfo is {dataset_meta!r}"
            )
        try:
            self._category_ids = category_ids_of(
                dataset_meta["classes"], self.ground_truth["categories"], self.ann_file
            )
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self._dataset_meta = dataset_meta

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the boxes of a batch with their scores; see :meth:`ImageBoxes.of_sample`."""
        num_classes = len(self.dataset_meta["classes"])
        for sample in data_samples:
            kept = ImageBoxes.of_sample(sample, self.scores, num_classes)
            self.results.append((kept.path, kept))

    def records(self, results: Sequence[ImageBoxes]) -> OODRecords:
        """The boxes that reach the threshold, image by image in the order of their paths."""
        # In whatever order ranks finished, a bootstrap draws the same.
        images = sorted(results, key=lambda image: image.path)
        known, unknown = ([i for i in images if i.is_ood is kind] for kind in (False, True))
        _require_both_kinds(known, unknown)
        self._check_ids(known)
        detections = [found for image in known for found in image.detections(self._category_ids)]
        average = evaluate_coco(
            self.ground_truth, detections, self._category_ids, area_limits=self.area_limits
        )
        threshold = (
            f1_threshold(self.ground_truth, detections, self._category_ids)
            if self.score_thr == "f1"
            else float(self.score_thr)
        )
        kept = [image.at_least(threshold) for image in images]
        notes = {
            "class_score_threshold": threshold,
            "id_ap": average.average_precision(),
            "id_ap50": average.average_precision(iou=0.5),
            **_box_counts(images, kept, threshold),
        }
        counts = [len(image.boxes) for image in kept]
        is_ood = np.repeat([image.is_ood for image in kept], counts)
        index = np.repeat(np.arange(len(kept)), counts)
        boxes = np.concatenate([image.boxes for image in kept])
        labels = np.concatenate([image.labels for image in kept])
        scored = [image.scores for image in kept if image.scores]
        scores = {name: np.concatenate([of[name] for of in scored]) for name in scored[0]}
        own = next(iter(scores.values()))
        classes = list(self.dataset_meta["classes"])
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        return OODRecords(
            task="boxes",
            scores=scores,
            is_ood=is_ood,
            image=index,
            paths=[image.path for image in kept],
            classes=classes,
            boxes=boxes.astype(np.float32),
            labels=labels,
            strata={
                "box size": (_SIZES, np.digitize(areas, self.area_limits)),
                "class": (classes, labels),
            },
            notes={**notes, "image_auroc": _image_auroc(own, is_ood, index)},
        )

    def _check_ids(self, known: Sequence[ImageBoxes]) -> None:
        """Every ID image is one of ``ann_file``, and those of it that are not here are counted."""
        visited = set()
        for image in known:
            if image.image_id not in self._image_ids:
                raise ConfigError(
                    f"predicted image {image.image_id!r} ({image.path}) is not in "
                    f"{self.ann_file!r}: the metric's ann_file and that of the in-distribution "
                    "data set must be the same, and OOD images need 'is_ood' in meta_keys"
                )
            visited.add(image.image_id)
        unvisited = len(self._image_ids - visited)
        if unvisited:
            print_log(
                f"{unvisited:,} of {len(self._image_ids):,} images of {self.ann_file!r} were not "
                "predicted; their objects count as missed in the ID AP",
                logger="current",
                level=logging.WARNING,
            )


def _require_both_kinds(known: Sequence[ImageBoxes], unknown: Sequence[ImageBoxes]) -> None:
    if known and unknown:
        return
    raise OODDataError(
        f"none of the {len(known) + len(unknown):,} images predicted is "
        f"{'OOD' if known else 'ID'}. The test set is to be a ConcatDataset of "
        "negvision.CocoDataset (ID) and negvision.OODCocoDataset (OOD), and PackDetInputs needs "
        "'is_ood' among its meta_keys"
    )


def _box_counts(
    images: Sequence[ImageBoxes], kept: Sequence[ImageBoxes], threshold: float
) -> dict[str, int]:
    counts = dict.fromkeys(
        ("id_boxes_kept", "id_boxes_found", "ood_boxes_kept", "ood_boxes_found"), 0
    )
    for what, those in (("kept", kept), ("found", images)):
        for image in those:
            counts[f"{'ood' if image.is_ood else 'id'}_boxes_{what}"] += len(image.boxes)
    if not counts["id_boxes_kept"] or not counts["ood_boxes_kept"]:
        raise OODDataError(
            f"{counts['id_boxes_kept']:,} of {counts['id_boxes_found']:,} detections on ID images "
            f"and {counts['ood_boxes_kept']:,} of {counts['ood_boxes_found']:,} on OOD images have "
            f"a class score of at least {threshold:.4g}, and some of both are needed. Is the "
            "checkpoint trained? Else lower score_thr of negvision.OODBoxMetric, or that in the "
            "detector's test_cfg"
        )
    return counts


def _image_auroc(scores: np.ndarray, is_ood: np.ndarray, index: np.ndarray) -> float:
    """AUROC of images by their highest score."""
    check_finite(torch.from_numpy(scores))
    _, first, rows = np.unique(index, return_index=True, return_inverse=True)
    highest = np.full(len(first), -np.inf)
    np.maximum.at(highest, rows, scores)
    return ood_metrics(torch.from_numpy(highest), torch.from_numpy(is_ood[first])).auroc
