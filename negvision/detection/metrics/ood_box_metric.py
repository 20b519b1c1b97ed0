"""OOD scores of boxes by the protocol of VOS, with the COCO AP of the known classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log

from negvision.detection.metrics.box_matching import f1_threshold, precision_threshold
from negvision.detection.metrics.coco_annotations import load_coco_annotations
from negvision.detection.metrics.coco_evaluation import CocoDetections, evaluate_coco, to_numpy
from negvision.detection.metrics.coco_metric import CocoTruthMetric
from negvision.detection.metrics.open_set import OpenSetImage, open_set_figures
from negvision.engine.metrics import OODMetricBase
from negvision.errors import ConfigError, OODDataError
from negvision.ood import ood_metrics, ood_score
from negvision.ood.curve import check_finite
from negvision.ood.records import OODRecords
from negvision.ood.scores import computable
from negvision.registry import METRICS

# An OOD score that orders boxes as their class score does says nothing new.
_REDUNDANT = 0.9


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
        ood_ann_file: COCO file with the unknown objects of the OOD images, which adds the figures
            of :func:`.open_set.open_set_figures`; or a dict of several by name, such as
            ``dict(near=..., far=...)``, which adds them and the AUROC of each.
        id_precision: Boxes count for these figures from the lowest class score at which so large a
            share of the boxes on ID images is right, in (0, 1].
        **kwargs: As in :class:`negvision.engine.metrics.OODMetricBase`.

    Returned keys: those of :class:`negvision.engine.metrics.OODMetricBase`, and
    ``class_score_threshold``, ``id_ap`` and ``id_ap50`` (COCO's AP and AP50, from all detections
    on ID images), ``id_boxes_kept``, ``id_boxes_found``, ``ood_boxes_kept`` and
    ``ood_boxes_found`` (at the threshold and in total), and ``image_auroc``: of images instead of
    boxes, by the most OOD box of each at the threshold, without images that have none;
    ``class_score_correlation``, the rank correlation of the boxes' OOD and class scores. With
    ``ood_ann_file`` also ``unknown_recall``, ``open_set_error``, ``unknown_objects``,
    ``unknown_ap50`` and ``open_set_class_score``, and under the name of each of several files
    these and ``auroc``.

    Raises:
        ConfigError: Predictions have no OOD score, data samples have no path, the data sets
            differ in their classes, an ID image is not in ``ann_file``, or an OOD image in none of
            ``ood_ann_file``.
        DatasetError: A class is not a category of ``ann_file``.
        OODDataError: No image is OOD or none is ID, no box of one kind reaches the threshold, or a
            score is not finite.

    Example, in a config::

        val_evaluator = dict(type="negvision.OODBoxMetric", ann_file="data/voc/test.json")
    """

    added = (
        "class_score_threshold", "id_ap", "id_ap50", "*_boxes_*", "image_auroc",
        "class_score_correlation", "*unknown_recall", "*open_set_*", "*unknown_objects",
        "*unknown_ap50",
    )  # fmt: skip

    def __init__(
        self,
        ann_file: str,
        score_thr: float | str = "f1",
        area_limits: tuple[float, float] = (32.0**2, 96.0**2),
        ood_ann_file: str | Mapping[str, str] | None = None,
        id_precision: float = 0.9,
        **kwargs,
    ) -> None:
        super().__init__(ann_file, area_limits, **kwargs)
        if not 0 < id_precision <= 1:
            raise ValueError(f"id_precision must be above 0 and at most 1, got {id_precision}")
        self.id_precision = id_precision
        files = {"": ood_ann_file} if isinstance(ood_ann_file, str) else dict(ood_ann_file or {})
        self._unknown = {name: UnknownObjects(file) for name, file in files.items()}
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
            notes={
                **notes,
                "image_auroc": _image_auroc(own, is_ood, index),
                **_correlation(own, np.concatenate([image.class_scores for image in kept])),
                **self._open_set(images, found, threshold),
            },
        )

    def _open_set(
        self, images: Sequence[ImageBoxes], found: CocoDetections, threshold: float
    ) -> dict[str, float | str]:
        """The figures of unknown objects over all OOD sets, and of each by name."""
        if not self._unknown:
            return {}
        notes: dict[str, float | str] = {}
        class_score = precision_threshold(self.ground_truth, found.results(), self.id_precision)
        if class_score is None:
            class_score = threshold
            notes["open_set"] = f"no class score gives an ID precision of {self.id_precision:g}"
        notes["open_set_class_score"] = class_score
        known = [_open_set_image(one, np.zeros((0, 4))) for one in images if not one.is_ood]
        sets: dict[str, list[OpenSetImage]] = {name: [] for name in self._unknown}
        for image in (one for one in images if one.is_ood):
            name = next((n for n, these in self._unknown.items() if these.has(image)), None)
            if name is None:
                files = ", ".join(these.file for these in self._unknown.values())
                raise ConfigError(
                    f"the OOD image {image.path} (id {image.image_id}) is not in ood_ann_file of "
                    f"negvision.OODBoxMetric ({files}); name the ann_file of each "
                    "negvision.OODCocoDataset"
                )
            sets[name].append(_open_set_image(image, self._unknown[name].boxes[image.image_id]))
        everything = [one for these in sets.values() for one in these]
        notes |= open_set_figures(known, everything, class_score)
        for name, these in sets.items() if len(sets) > 1 else ():
            figures = open_set_figures(known, these, class_score)
            notes |= {f"{name}/{key}": value for key, value in figures.items()}
            auroc = _box_auroc(known, these, threshold)
            notes |= {} if auroc is None else {f"{name}/auroc": auroc}
        return notes


class UnknownObjects:
    """The objects of a COCO file of OOD images, of any class.

    Args:
        file: The annotation file; crowds are left out.
    """

    def __init__(self, file: str) -> None:
        content = load_coco_annotations(file)
        self.file = str(file)
        self._names = {image["id"]: str(image.get("file_name", "")) for image in content["images"]}
        boxes: dict[Any, list] = {key: [] for key in self._names}
        for one in content["annotations"]:
            if not one["iscrowd"]:
                x, y, width, height = one["bbox"]
                boxes[one["image_id"]].append([x, y, x + width, y + height])
        self.boxes = {key: np.array(these).reshape(-1, 4) for key, these in boxes.items()}

    def has(self, image: ImageBoxes) -> bool:
        """Whether the file has an image of this id and file name."""
        name = self._names.get(image.image_id)
        return name is not None and Path(image.path).name == Path(name).name


def _open_set_image(image: ImageBoxes, unknown: np.ndarray) -> OpenSetImage:
    scores = next(iter(image.scores.values())) if image.scores else np.zeros(0)
    return OpenSetImage(image.boxes, image.class_scores, scores, unknown)


def _box_auroc(
    known: Sequence[OpenSetImage], unknown: Sequence[OpenSetImage], threshold: float
) -> float | None:
    """AUROC of boxes at the threshold; None without a box of one kind."""
    parts = [
        np.concatenate([np.zeros(0), *(i.ood_scores[i.class_scores >= threshold] for i in images)])
        for images in (known, unknown)
    ]
    if not all(map(len, parts)):
        return None
    is_ood = torch.from_numpy(np.repeat([False, True], [len(part) for part in parts]))
    return ood_metrics(torch.from_numpy(np.concatenate(parts)), is_ood).auroc


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


def _correlation(scores: np.ndarray, class_scores: np.ndarray) -> dict[str, float]:
    """Spearman's correlation of OOD and class scores, with a warning if one follows the other."""
    if len(scores) < 3 or not (np.ptp(scores) and np.ptp(class_scores)):
        return {}
    from scipy import stats  # loads slowly

    value = float(stats.spearmanr(scores, class_scores).statistic)
    if abs(value) > _REDUNDANT:
        print_log(
            f"the OOD score follows the class score (rank correlation {value:.2f} over "
            f"{len(scores):,} boxes) and says nothing that the class score does not, as in a "
            "detector of one class; a score of features (score='knn', ...) could",
            logger="current",
            level=logging.WARNING,
        )
    return {"class_score_correlation": value}


def _image_auroc(scores: np.ndarray, is_ood: np.ndarray, index: np.ndarray) -> float:
    """AUROC of images by their highest score."""
    check_finite(torch.from_numpy(scores))
    _, first, rows = np.unique(index, return_index=True, return_inverse=True)
    highest = np.full(len(first), -np.inf)
    np.maximum.at(highest, rows, scores)
    return ood_metrics(torch.from_numpy(highest), torch.from_numpy(is_ood[first])).auroc
