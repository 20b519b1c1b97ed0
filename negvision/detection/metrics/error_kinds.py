"""The six kinds of errors of a detector, and the AP that each costs (TIDE)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from negvision.detection.metrics.coco_evaluation import (
    CocoDetections,
    number_images,
    run_evaluator,
)

KINDS = {
    "classification": "on an object of another class",
    "localization": "on an object of the class, but with too small an overlap",
    "both": "on an object of another class, with too small an overlap",
    "duplicate": "on an object that a better detection has found",
    "background": "on no object",
    "missed": "objects that nothing has found, not even with an error above",
}
# What removing all errors of one side costs, whatever their kind.
SIDES = {
    "false positives": "all detections without an object",
    "false negatives": "all objects that were not found",
}
_POSITIVE, _BACKGROUND = 0.5, 0.1
_CLS, _LOC, _BOTH, _DUPLICATE, _BKG = range(5)


@dataclass(frozen=True)
class ErrorKinds:
    """Errors at IoU 0.5 by kind, and by how much AP50 rises if they are corrected.

    Attributes:
        category_ids: The K categories, ascending.
        average_precision: (K,), AP50; NaN without objects.
        costs: Name in :data:`KINDS` and :data:`SIDES` to the rise of AP50 (K,).
        counts: Name in :data:`KINDS` to the number of errors (K,): detections by their own class,
            objects by theirs.
        labels: (N,), index into ``category_ids`` of each detection that is right or wrong.
        scores: (N,).
        hits: (N,), whether it is right.
        images: (N,), its image, as numbered by :func:`.coco_evaluation.number_images`.
        objects: (I,), the number of objects of each image.
        background: (I,) bool, images on which nothing is annotated, not even to be ignored.
    """

    category_ids: Sequence[int]
    average_precision: np.ndarray
    costs: Mapping[str, np.ndarray]
    counts: Mapping[str, np.ndarray]
    labels: np.ndarray
    scores: np.ndarray
    hits: np.ndarray
    images: np.ndarray
    objects: np.ndarray
    background: np.ndarray

    def mean_costs(self) -> dict[str, float]:
        """The rise of the mean AP50 over all categories with objects; NaN without objects."""
        known = ~np.isnan(self.average_precision)
        return {
            name: float(cost[known].mean()) if known.any() else float("nan")
            for name, cost in self.costs.items()
        }

    def line(self) -> str:
        """One line for the log."""
        costs = self.mean_costs()
        shown = ", ".join(f"{name} {costs[name]:.3f}" for name in KINDS)
        return f"AP50 lost by kind of error: {shown}"


def error_kinds(
    ground_truth: Mapping[str, Any],
    detections: CocoDetections | Sequence[Mapping[str, Any]],
    category_ids: Sequence[int],
    iou_type: str = "bbox",
    max_dets: Sequence[int] = (1, 10, 100),
    area_limits: tuple[float, float] = (32.0**2, 96.0**2),
    area: str = "all",
) -> ErrorKinds:
    """Tell the kinds of errors apart, and what each costs.

    A false positive has the first of these kinds that applies, by its largest overlap with an
    object of its class or of others: localization (own class, IoU 0.1 to 0.5), classification
    (other class, from 0.5), duplicate (own class, from 0.5, found by another), background (no
    object from 0.1), both. An object that is not found is missed, unless a classification or
    localization error is on it. Detections on crowds are no errors.

    To correct an error means: of those classification or localization errors whose best object is
    not found, the detection with the highest score finds it, others are removed; duplicates,
    background and both are removed; missed objects are taken out of the ground truth. The cost is
    the rise of AP50. Costs do not add up to 1 - AP50: one error may hide another.

    Args:
        ground_truth, detections, category_ids, iou_type, max_dets, area_limits: As in
            :func:`.coco_evaluation.evaluate_coco`.
        area: One of ``AREAS``: errors on objects and by detections of this size.

    Source: Bolya, Foley, Hays and Hoffman, "TIDE: A General Toolbox for Identifying Object
    Detection Errors", ECCV 2020, section 2 and its code for the order of the kinds.

    Example:
        >>> box = {"image_id": 1, "bbox": [0, 0, 50, 50]}
        >>> truth = {"images": [{"id": 1}], "categories": [{"id": 3}, {"id": 7}], "annotations": [
        ...     {**box, "id": 1, "category_id": 7, "area": 2500, "iscrowd": 0}]}
        >>> found = error_kinds(truth, [{**box, "category_id": 3, "score": 0.8}], [3, 7])
        >>> found.counts["classification"].tolist(), found.mean_costs()["classification"]
        ([1, 0], 1.0)
    """
    if not isinstance(detections, CocoDetections):
        detections = CocoDetections.of_results(detections)
    evaluation = run_evaluator(
        ground_truth, detections, category_ids, iou_type, "ultrafast", max_dets, area_limits
    )
    ids = list(evaluation.params.catIds)
    seen, truth = (
        {name: np.asarray(values) for name, values in columns.items()}
        for columns in evaluation.per_instance(_POSITIVE, area)
    )
    valid = ~truth["ignore"].astype(bool)
    objects = {name: truth[name][valid] for name in ("image_id", "category_id", "gt_id")}
    counted = ~seen["ignore"].astype(bool)
    # Within a category by falling score, then in the order of the images.
    order = np.lexsort((seen["image_id"], -seen["score"], seen["category_id"]))
    rows = order[counted[order]]
    label = np.searchsorted(ids, seen["category_id"][rows])
    score, found_id = seen["score"][rows], seen["gt_id"][rows]
    hit = found_id >= 0
    numbers = number_images(ground_truth["images"])
    shapes = _Shapes(ground_truth, detections, iou_type, numbers)
    used = np.isin(objects["gt_id"], found_id[hit])
    owner = np.searchsorted(ids, objects["category_id"])
    wrong = np.flatnonzero(~hit)
    pairs = Pairs.of(seen["image_id"][rows[wrong]], objects["image_id"])
    overlap = shapes.overlaps(seen["dt_id"][rows[wrong]], objects["gt_id"], pairs)
    own = label[wrong][pairs.first] == owner[pairs.second]
    best_own, at_own = pairs.best(overlap, own)
    best_other, at_other = pairs.best(overlap, ~own)
    best_used, _ = pairs.best(overlap, own & used[pairs.second])
    kind = np.full(len(wrong), _BOTH)
    kind[np.maximum(best_own, best_other) <= _BACKGROUND] = _BKG
    kind[best_used >= _POSITIVE] = _DUPLICATE
    kind[best_other >= _POSITIVE] = _CLS
    kind[(best_own >= _BACKGROUND) & (best_own <= _POSITIVE)] = _LOC

    # The object that a correction would find, if it is not found already.
    target = np.where(kind == _CLS, at_other, np.where(kind == _LOC, at_own, -1))
    target = np.where((target >= 0) & used[target], -1, target) if len(used) else target
    usable = np.zeros(len(used), dtype=bool)
    usable[target[target >= 0]] = True
    missed = ~used & ~usable
    best_rows = np.full(len(used), -1)
    for place in np.lexsort((np.arange(len(wrong))[::-1], score[wrong])):
        if target[place] >= 0:
            best_rows[target[place]] = place
    corrects = np.zeros(len(wrong), dtype=bool)
    corrects[best_rows[best_rows >= 0]] = True

    number = np.bincount(owner, minlength=len(ids))
    base = _average_precision(label, score, hit, number)
    costs = {}
    for index, name in enumerate(KINDS):
        if name == "missed":
            remaining = number - np.bincount(owner[missed], minlength=len(ids))
            fixed = _average_precision(label, score, hit, remaining)
        else:
            chosen = kind == index
            new_label, new_hit = label.copy(), hit.copy()
            turned = chosen & corrects
            new_hit[wrong[turned]] = True
            new_label[wrong[turned]] = owner[target[turned]]
            keep = np.ones(len(label), dtype=bool)
            keep[wrong[chosen & ~corrects]] = False
            fixed = _average_precision(new_label[keep], score[keep], new_hit[keep], number)
        costs[name] = _rise(fixed, base)
    costs["false positives"] = _rise(
        _average_precision(label[hit], score[hit], hit[hit], number), base
    )
    remaining = np.bincount(owner[used], minlength=len(ids))
    costs["false negatives"] = _rise(_average_precision(label, score, hit, remaining), base)
    counts = {
        name: np.bincount(label[wrong[kind == index]], minlength=len(ids))
        for index, name in enumerate(list(KINDS)[:-1])
    }
    counts["missed"] = np.bincount(owner[missed], minlength=len(ids))
    per_image = [np.bincount(one, minlength=len(numbers)) for one in _images_of(truth, objects)]
    return ErrorKinds(
        *(ids, base, costs, counts, label, score, hit),
        seen["image_id"][rows],
        per_image[0],
        per_image[1] == 0,
    )


def _images_of(truth: Mapping, objects: Mapping) -> Iterator[np.ndarray]:
    """The images of the objects, and of all that is annotated."""
    for one in (objects, truth):
        yield one["image_id"].astype(np.int64)


@dataclass(frozen=True)
class Pairs:
    """All pairs of a detection and an object of one image, by detection."""

    first: np.ndarray  # (P,), detection
    second: np.ndarray  # (P,), object
    count: int  # of detections

    @classmethod
    def of(cls, of_detections: np.ndarray, of_objects: np.ndarray) -> Pairs:
        """From the image of each detection and of each object."""
        order = np.argsort(of_objects, kind="stable")
        ordered = of_objects[order]
        start = np.searchsorted(ordered, of_detections, "left")
        many = np.searchsorted(ordered, of_detections, "right") - start
        first = np.repeat(np.arange(len(of_detections)), many)
        before = np.cumsum(many) - many
        place = np.arange(len(first)) - before[first] + start[first]
        return cls(first, order[place] if len(first) else np.zeros(0, int), len(of_detections))

    def best(self, overlap: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The largest overlap of each detection among chosen pairs, and its object; 0 and -1."""
        rows = np.flatnonzero(chosen & (overlap > 0))
        # The last of a detection, by rising overlap; of equal ones the first object.
        rows = rows[np.lexsort((-rows, overlap[rows], self.first[rows]))]
        value, place = np.zeros(self.count), np.full(self.count, -1)
        value[self.first[rows]], place[self.first[rows]] = overlap[rows], self.second[rows]
        return value, place


class _Shapes:
    """Overlaps of detections and objects by their ids."""

    def __init__(
        self,
        ground_truth: Mapping[str, Any],
        detections: CocoDetections,
        iou_type: str,
        numbers: Mapping[Any, int],
    ) -> None:
        self.masks = iou_type == "segm"
        self.detections = detections
        self.objects = {one["id"]: one for one in ground_truth["annotations"]}
        self.sizes = {one["id"]: one for one in ground_truth["images"]} if self.masks else {}

    def overlaps(
        self, detection_ids: np.ndarray, object_ids: np.ndarray, pairs: Pairs
    ) -> np.ndarray:
        """IoU (P,) of pairs."""
        if self.masks:
            return self._of_masks(detection_ids, object_ids, pairs)
        boxes = [self.objects[one]["bbox"] for one in object_ids.tolist()]
        theirs = np.array(boxes, dtype=np.float64).reshape(-1, 4)[pairs.second]
        own = self.detections.boxes[detection_ids - 1][pairs.first]
        low = np.maximum(own[:, :2], theirs[:, :2])
        high = np.minimum(own[:, :2] + own[:, 2:], theirs[:, :2] + theirs[:, 2:])
        shared = np.maximum(high - low, 0).prod(1)
        union = own[:, 2:].prod(1) + theirs[:, 2:].prod(1) - shared
        return np.where(union > 0, shared / np.where(union > 0, union, 1), 0)

    def _of_masks(
        self, detection_ids: np.ndarray, object_ids: np.ndarray, pairs: Pairs
    ) -> np.ndarray:
        from pycocotools import mask as mask_api

        theirs = [self._run_lengths(self.objects[one]) for one in object_ids.tolist()]
        masks = self.detections.masks or ()
        found = np.zeros(len(pairs.first))
        starts = np.flatnonzero(np.diff(pairs.first, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(found)], strict=True):
            own = [masks[detection_ids[pairs.first[start]] - 1]]
            there = [theirs[place] for place in pairs.second[start:end]]
            found[start:end] = mask_api.iou(own, there, [0] * len(there))[0]
        return found

    def _run_lengths(self, annotation: Mapping[str, Any]) -> dict[str, Any]:
        from pycocotools import mask as mask_api

        shape = annotation["segmentation"]
        image = self.sizes[annotation["image_id"]]
        if isinstance(shape, list):
            parts = mask_api.frPyObjects(shape, image["height"], image["width"])
            return mask_api.merge(parts)
        if isinstance(shape["counts"], list):
            return mask_api.frPyObjects(shape, image["height"], image["width"])
        return shape


def _average_precision(
    label: np.ndarray, score: np.ndarray, hit: np.ndarray, objects: np.ndarray
) -> np.ndarray:
    """COCO's AP (K,) at one threshold; NaN without objects."""
    order = np.lexsort((np.arange(len(score)), -score, label))
    label, hit = label[order], hit[order]
    ends = np.searchsorted(label, np.arange(len(objects) + 1))
    values = np.full(len(objects), np.nan)
    for place in np.flatnonzero(objects):
        hits = hit[ends[place] : ends[place + 1]]
        found = hits.cumsum()
        precision = found / np.arange(1, len(hits) + 1)
        highest = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
        reached = np.searchsorted(found / objects[place], np.linspace(0, 1, 101))
        values[place] = highest[np.minimum(reached, len(hits))].mean()
    return values


def _rise(fixed: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Of AP; a class without any object left has none to gain."""
    return np.where(np.isnan(base), np.nan, np.nan_to_num(fixed) - base)
