"""OOD scores of boxes by the protocol of VOS, with the COCO AP of the known classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from negvision.detection.metrics.box_matching import f1_threshold
from negvision.detection.metrics.coco_evaluation import CocoDetections, evaluate_coco, to_numpy
from negvision.detection.metrics.coco_metric import CocoTruthMetric
from negvision.engine.metrics import OODMetricBase
from negvision.errors import ConfigError, OODDataError
from negvision.ood import ood_metrics, ood_score
from negvision.ood.curve import check_finite
from negvision.ood.records import OODRecords
from negvision.ood.scores import computable
from negvision.registry import METRICS


@METRICS.register_module()
class OODBoxMetric(CocoTruthMetric, OODMetricBase):
    """How well the OOD scores of boxes separate images of unknown classes from known ones.

    The protocol of VOS (Du et al., "VOS: Learning What You Don't Know by Virtual Outlier
    Synthesis", ICLR 2022): every detection on an ID image counts as ID and every detection on an
    OOD image as OOD, without any matching, and only detections with a class score of at least a
    threshold count. By default the threshold is the mean over classes of the score with the best
    F1 at IoU 0.5 on the ID images; ``score_thr=0.0`` counts all detections, as in AbeT's paper.
    Values at different thresholds are not comparable. The COCO AP of the known classes on the ID
    images is reported as well.

    The dataset is, for example, a ``ConcatDataset`` of :class:`negvision.CocoDataset` and
    :class:`negvision.OODCocoDataset`. Images are told apart by ``is_ood`` and identified by
    ``img_path``: ``PackDetInputs`` needs ``meta_keys`` with both and ``img_id``. Predictions need
    ``ood_score`` and ``logits``, as the heads of this package give them.

    Strata: the size of the predicted box, in COCO's ranges, and the predicted class.

    Args:
        ann_file: COCO ground truth of the ID images. Read at construction.
        score_thr: "f1", or the threshold itself, in [0, 1].
        area_limits: Pixels² that separate small boxes from medium and medium from large, on the
            original image.
        **kwargs: As in :class:`negvision.engine.metrics.OODMetricBase`.

    Returned keys: those of :class:`negvision.engine.metrics.OODMetricBase`, and
    ``class_score_threshold``, ``id_ap`` and ``id_ap50`` (COCO's AP and AP50, from all detections
    on ID images), ``id_boxes_kept``, ``id_boxes_found``, ``ood_boxes_kept`` and
    ``ood_boxes_found`` (at the threshold and in total), and ``image_auroc``: of images instead of
    boxes, by the most OOD box of each at the threshold, without images that have none.

    Raises:
        ConfigError: Predictions have no OOD score, data samples have no path, the data sets
            differ in their classes, or an ID image is not in ``ann_file``.
        DatasetError: A class is not a category of ``ann_file``.
        OODDataError: No image is OOD or none is ID, no box of one kind reaches the threshold, or a
            score is not finite.

    Example, in a config::

        val_evaluator = dict(type="negvision.OODBoxMetric", ann_file="data/voc/test.json")
    """

    added = ("class_score_threshold", "id_ap", "id_ap50", "*_boxes_*", "image_auroc")

    def __init__(
        self,
        ann_file: str,
        score_thr: float | str = "f1",
        area_limits: tuple[float, float] = (32.0**2, 96.0**2),
        **kwargs,
    ) -> None:
        super().__init__(ann_file, area_limits, **kwargs)
        numeric = isinstance(score_thr, int | float)
        if score_thr != "f1" and not (numeric and 0 <= score_thr <= 1):
            raise ValueError(f'score_thr must be "f1" or a number from 0 to 1, got {score_thr!r}')
        self.score_thr = score_thr

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Store the boxes of a batch with their scores; see :meth:`ImageBoxes.of_sample`."""
        num_classes = len(self._classes)
        for sample in data_samples:
            kept = ImageBoxes.of_sample(sample, self.scores, num_classes)
            self.results.append((kept.path, kept))

    def records(self, results: Sequence[ImageBoxes]) -> OODRecords:
        """The boxes that reach the threshold, by path of the image."""
        # Sorted, so that the bootstrap does not depend on the order in which ranks finish.
        images = sorted(results, key=lambda image: image.path)
        known = [image for image in images if not image.is_ood]
        if len(known) in (0, len(images)):
            raise OODDataError(
                f"none of the {len(images):,} images predicted is {'OOD' if known else 'ID'}. The "
                "test set must be a ConcatDataset of negvision.CocoDataset (ID) and "
                "negvision.OODCocoDataset (OOD), and PackDetInputs needs 'is_ood' among its "
                "meta_keys"
            )
        self._check_predicted((image.image_id, image.path) for image in known)
        found = CocoDetections.of_images(
            [
                {
                    "image_id": image.image_id,
                    "bboxes": image.boxes,
                    "scores": image.class_scores,
                    "labels": image.labels,
                }
                for image in known
            ],
            self._category_ids,
        )
        average = evaluate_coco(
            self.ground_truth, found, self._category_ids, area_limits=self.area_limits
        )
        threshold = (
            f1_threshold(self.ground_truth, found.results(), self._category_ids)
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
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        return OODRecords(
            task="boxes",
            scores=scores,
            is_ood=is_ood,
            image=index,
            paths=[image.path for image in kept],
            classes=self._classes,
            boxes=boxes.astype(np.float32),
            labels=labels,
            strata={
                "box size": (("small", "medium", "large"), np.digitize(areas, self.area_limits)),
                "class": (self._classes, labels),
            },
            notes={**notes, "image_auroc": _image_auroc(own, is_ood, index)},
        )


@dataclass(frozen=True)
class ImageBoxes:
    """The N detections of one image."""

    path: str  # identity of the image
    image_id: int  # in its annotation file
    is_ood: bool  # whether it belongs to an OOD data set
    boxes: np.ndarray  # (N, 4), x1 y1 x2 y2 in pixels of the original image
    class_scores: np.ndarray  # (N,) float64
    labels: np.ndarray  # (N,) int64
    scores: dict[str, np.ndarray]  # OOD score to (N,), the model's own first; empty if N is 0

    @classmethod
    def of_sample(cls, sample: dict, score_names: Sequence[str], num_classes: int) -> ImageBoxes:
        """Read the detections of a data sample; ``num_classes`` is K, the ID classes.

        ``pred_instances`` has ``bboxes``, ``scores``, ``labels``, ``ood_score`` and, for
        ``score_names``, ``logits`` (N, K) or (N, K + 1) with the background last, and
        ``temperature`` (N,) if any.

        Raises:
            ConfigError: A field is missing.
        """
        missing = [key for key in ("img_path", "img_id") if key not in sample]
        if missing:
            raise ConfigError(
                f"the data samples have no {' and no '.join(missing)}; negvision.OODBoxMetric "
                "needs PackDetInputs with meta_keys that name img_id, img_path and is_ood"
            )
        found = sample["pred_instances"]
        boxes = to_numpy(found["bboxes"]).reshape(-1, 4)
        return cls(
            path=str(sample["img_path"]),
            image_id=sample["img_id"],
            is_ood=bool(sample.get("is_ood", False)),
            boxes=boxes,
            class_scores=to_numpy(found["scores"]).astype(np.float64).reshape(-1),
            labels=to_numpy(found["labels"]).astype(np.int64).reshape(-1),
            # Without proposals mmdet skips its box heads, which then add no fields.
            scores=_scores_of(found, score_names, num_classes) if len(boxes) else {},
        )

    def at_least(self, threshold: float) -> ImageBoxes:
        """The detections with a class score of at least ``threshold``."""
        kept = self.class_scores >= threshold
        arrays = {name: getattr(self, name)[kept] for name in ("boxes", "class_scores", "labels")}
        scores = {name: values[kept] for name, values in self.scores.items()}
        return replace(self, scores=scores, **arrays)


def _scores_of(found: Any, names: Sequence[str], num_classes: int) -> dict[str, np.ndarray]:
    own = found.get("ood_score_name", "ood_score")
    others = [name for name in names if name != own and computable(name, own)]
    if "ood_score" not in found or (others and "logits" not in found):
        raise ConfigError(
            "the predictions have no ood_score and logits, so the head has no OOD score. Set the "
            "type of bbox_head to negvision.AbeTBBoxHead (Faster, Mask and Cascade R-CNN), "
            "negvision.OODBBoxHead (the same without AbeT) or negvision.AbeTATSSHead (ATSS)"
        )
    scores = {own: found["ood_score"]}
    for name in others:
        logits = found["logits"][:, :num_classes]
        scores[name] = ood_score(name, logits, found.get("temperature"))
    return {name: to_numpy(values) for name, values in scores.items()}


def _box_counts(
    images: Sequence[ImageBoxes], kept: Sequence[ImageBoxes], threshold: float
) -> dict[str, int]:
    counts = {
        f"{kind}_boxes_{what}": sum(len(i.boxes) for i in those if i.is_ood == (kind == "ood"))
        for kind in ("id", "ood")
        for what, those in (("kept", kept), ("found", images))
    }
    if not counts["id_boxes_kept"] or not counts["ood_boxes_kept"]:
        raise OODDataError(
            f"{counts['id_boxes_kept']:,} of {counts['id_boxes_found']:,} detections on ID images "
            f"and {counts['ood_boxes_kept']:,} of {counts['ood_boxes_found']:,} on OOD images have "
            f"a class score of at least {threshold:.4g}, but both kinds are needed. Is the "
            "checkpoint trained? Otherwise lower score_thr of negvision.OODBoxMetric or of the "
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
