"""AP and AR of any weighting of the images, from one matching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from negvision.bootstrap import mean_known, share
from negvision.detection.metrics.coco_evaluation import (
    CocoDetections,
    CocoResult,
    metric_names,
    number_images,
    run_evaluator,
)

_RECALLS = np.linspace(0, 1, 101)


class CocoStatistics:
    """COCO's figures as functions of how often each image counts.

    Detections are matched once. A resample changes how often each true and false positive counts,
    not which they are, so that AP needs two cumulative sums and AR a matrix product.

    Args:
        ground_truth, detections, category_ids, iou_type, max_dets, area_limits: As in
            :func:`.coco_evaluation.evaluate_coco`.

    Attributes:
        names: The figures, those of :func:`.coco_evaluation.metric_names`, then ``mAP/<id>`` of
            each category in ascending order.
        image_ids: The I images, in the order of the weights.
        result: Of the whole set, as of :func:`.coco_evaluation.evaluate_coco`.

    Example:
        >>> truth = {"images": [{"id": 1}, {"id": 2}], "categories": [{"id": 7}], "annotations": [
        ...     {"id": n, "image_id": n, "category_id": 7, "bbox": [0, 0, 50, 50], "area": 2500,
        ...      "iscrowd": 0} for n in (1, 2)]}
        >>> found = [{"image_id": 1, "category_id": 7, "bbox": [0, 0, 50, 50], "score": 0.8}]
        >>> statistics = CocoStatistics(truth, found, [7])
        >>> statistics.names[0], statistics.figures(np.array([[1, 0], [0, 2]]))[:, 0].tolist()
        ('mAP', [1.0, 0.0])
    """

    def __init__(
        self,
        ground_truth: Mapping[str, Any],
        detections: CocoDetections | Sequence[Mapping[str, Any]],
        category_ids: Sequence[int],
        iou_type: str = "bbox",
        max_dets: Sequence[int] = (1, 10, 100),
        area_limits: tuple[float, float] = (32.0**2, 96.0**2),
    ) -> None:
        from ultrafast_pycocotools import _ufcoco

        numbers = number_images(ground_truth["images"])
        self.image_ids = list(numbers)
        evaluation = run_evaluator(
            ground_truth, detections, category_ids, iou_type, "ultrafast", max_dets, area_limits
        )
        self.result = CocoResult.of(evaluation)
        parameters = evaluation.params
        self.category_ids = list(parameters.catIds)
        self.max_dets = tuple(parameters.maxDets)
        self.names = (
            *metric_names(self.max_dets),
            *(f"mAP/{category}" for category in self.category_ids),
        )
        self._thresholds = np.asarray(parameters.iouThrs)
        columns = {category: column for column, category in enumerate(self.category_ids)}
        objects = [
            (numbers[one["image_id"]], columns[one["category_id"]], one["area"])
            for one in ground_truth["annotations"]
            if one["category_id"] in columns and not one["iscrowd"]
        ]
        image, column, size = np.array(objects, dtype=np.float64).reshape(-1, 3).T
        image, column = image.astype(np.int64), column.astype(np.int64)
        self._areas = []
        for index, (low, high) in enumerate(parameters.areaRng):
            inside = (size >= low) & (size <= high)
            places = image[inside], column[inside]
            counts = csr_array((np.ones(inside.sum()), places), (len(numbers), len(columns)))
            # The public `per_instance` gives the same, one threshold at a time, 30 times slower.
            outcomes = evaluation._engine.outcomes(index, self.max_dets[-1])
            kinds = _ufcoco.OUTCOME_TRUE_POSITIVE, _ufcoco.OUTCOME_IGNORED
            if not index:
                self._outcomes, self._kinds = outcomes, kinds
            limits = self.max_dets if index == 0 else (None,)
            self._areas.append(_Area.of(outcomes, counts, limits, kinds))

    def figures(self, weights: np.ndarray) -> np.ndarray:
        """Figures (R, F) of weights (R, I), how often each image counts; NaN where undefined."""
        weights = np.asarray(weights, dtype=np.float64)
        totals = [weights @ area.objects for area in self._areas]  # (R, K) each
        precisions = [
            np.stack([area.precision(*pair) for pair in zip(weights, total, strict=True)])
            for area, total in zip(self._areas, totals, strict=True)
        ]  # (R, T, K) each
        at = [np.isclose(self._thresholds, iou) for iou in (0.5, 0.75)]
        recalls = [
            mean_known(share(weights @ found, total), 1)
            for area, total in zip(self._areas, totals, strict=True)
            for found in area.found
        ]
        columns = [
            mean_known(precisions[0], (1, 2)),
            *(mean_known(precisions[0][:, chosen], (1, 2)) for chosen in at),
            *(mean_known(values, (1, 2)) for values in precisions[1:]),
            *recalls,
        ]
        return np.column_stack([*columns, precisions[0].mean(1)])

    def errors(self, score: float) -> np.ndarray:
        """Errors (I,) of each image at IoU 0.5: detections without object, objects missed.

        Detections below ``score`` do not count.
        """
        outcome = self._outcomes["outcome"][:, np.flatnonzero(np.isclose(self._thresholds, 0.5))[0]]
        hit, ignored = (outcome == kind for kind in self._kinds)
        counts = self._outcomes["score"] >= score
        images = self._outcomes["image_id"]
        found, wrong = (
            np.bincount(images[counts & chosen], minlength=len(self.image_ids))
            for chosen in (hit, ~hit & ~ignored)
        )
        return self._areas[0].objects.sum(1) - found + wrong


@dataclass(frozen=True)
class _Area:
    """Matches within a range of areas: rows are detections by category, then by falling score.

    Entries are true positives, by IoU threshold, then as the rows. Between them precision only
    falls, so that they alone decide the interpolated precision.
    """

    objects: csr_array  # (I, K), objects that count
    found: list[csr_array]  # (I, K), those found, mean over thresholds, at each limit
    image: np.ndarray  # (N,), image of each row
    row: np.ndarray  # (M,), row of each entry
    first_row: np.ndarray  # (M,), first row of the category of each entry
    category: np.ndarray  # (M,)
    segment: np.ndarray  # (M,), threshold * K + category
    start: np.ndarray  # (M,), first entry of its segment
    starts: np.ndarray  # first entry of each segment
    offset: np.ndarray  # (M,), backwards
    ignored: np.ndarray  # rows that are ignored at a threshold, by threshold
    ignored_before: tuple[np.ndarray, np.ndarray]  # (M,) each, into ``ignored``
    shape: tuple[int, int]  # T, K

    @classmethod
    def of(
        cls,
        outcomes: Mapping[str, np.ndarray],
        objects: csr_array,
        limits: Sequence[int | None],
        outcome_kinds: tuple[int, int],
    ) -> _Area:
        order = np.lexsort((outcomes["image_id"], -outcomes["score"], outcomes["cat_slot"]))
        image = outcomes["image_id"][order]
        category = outcomes["cat_slot"][order].astype(np.int64)
        outcome = outcomes["outcome"][order].T  # (T, N)
        hit, left_out = (outcome == kind for kind in outcome_kinds)
        rank = _ranks(image, category)
        found = []
        for limit in limits:
            early = slice(None) if limit is None else rank < limit
            places = image[early], category[early]
            found.append(csr_array((hit.mean(0)[early], places), shape=objects.shape))

        # Rows after the last hit of a category cannot change its precision.
        categories = objects.shape[1]
        last = np.full(categories, -1)
        last[category[hit.any(0)]] = np.flatnonzero(hit.any(0))
        kept = (np.arange(len(image)) <= last[category]) & ~left_out.all(0)
        hit, left_out = hit[:, kept], left_out[:, kept]
        image, category = image[kept], category[kept]

        threshold, row = np.nonzero(hit)
        first_row = np.searchsorted(category, np.arange(categories))[category[row]]
        of_threshold, ignored = np.nonzero(left_out)
        # Places in a list that is sorted by threshold, then by row.
        keys = of_threshold * (len(image) + 1) + ignored
        before = [
            np.searchsorted(keys, threshold * (len(image) + 1) + rows) for rows in (first_row, row)
        ]
        segment = threshold * categories + category[row]
        return cls(
            objects=objects,
            found=found,
            image=image,
            row=row,
            first_row=first_row,
            category=category[row],
            segment=segment,
            start=np.searchsorted(segment, segment),
            starts=np.flatnonzero(np.diff(segment, prepend=-1)),
            offset=-2.0 * segment[::-1],
            ignored=ignored,
            ignored_before=(before[0], before[1]),
            shape=(len(outcome), categories),
        )

    def precision(self, weights: np.ndarray, objects: np.ndarray) -> np.ndarray:
        """Average precision (T, K), NaN without objects, of weights (I,) and objects (K,)."""
        weight = weights[self.image]
        until = _sums(weight)
        hits = _sums(weight[self.row])
        found = hits[1:] - hits[self.start]
        every = until[self.row + 1] - until[self.first_row]
        if len(self.ignored):
            left_out = _sums(weight[self.ignored])
            every -= left_out[self.ignored_before[1]] - left_out[self.ignored_before[0]]
        # The highest precision from here on: the offset keeps the segments apart.
        highest = (found / (every + np.spacing(1)))[::-1] + self.offset
        np.maximum.accumulate(highest, out=highest)
        highest -= self.offset
        # How many of COCO's 101 recalls are reached by each entry and by none before.
        reached = _reached(found / np.maximum(objects, 1e-300)[self.category])
        steps = np.diff(reached, prepend=0)
        steps[self.starts] = reached[self.starts]
        size = self.shape[0] * self.shape[1]
        area = np.bincount(self.segment, highest[::-1] * steps, size).reshape(self.shape)
        return np.where(objects > 0, area / len(_RECALLS), np.nan)


def _reached(recall: np.ndarray) -> np.ndarray:
    """How many of COCO's 101 recalls are at most each recall."""
    scaled = recall * (len(_RECALLS) - 1)
    floor = np.floor(scaled + 1e-9)
    # The product rounds.
    close = np.flatnonzero(np.abs(scaled - floor) < 1e-9)
    floor[close] -= recall[close] < _RECALLS[floor[close].astype(np.int64)]
    return floor + 1


def _sums(values: np.ndarray) -> np.ndarray:
    """0, then the cumulative sums."""
    sums = np.empty(len(values) + 1)
    sums[0] = 0
    np.cumsum(values, out=sums[1:])
    return sums


def _ranks(image: np.ndarray, category: np.ndarray) -> np.ndarray:
    """The place of each row among those of its image and category, from 0."""
    order = np.lexsort((image, category))
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(image[order]) != 0) | (np.diff(category[order]) != 0)
    places = np.arange(len(order))
    ranks = np.empty_like(places)
    ranks[order] = places - places[new][np.cumsum(new) - 1]
    return ranks
