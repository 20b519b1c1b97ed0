"""False positives per image: on images without objects, and against recall (FROC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from negvision.bootstrap import bootstrap, interval, share
from negvision.detection.metrics.error_kinds import ErrorKinds

RECALLS = (0.5, 0.8, 0.9)
RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)


@dataclass(frozen=True)
class FROC:
    """Recall and false positives at every score, over all classes, at IoU 0.5.

    Attributes:
        score: (N,), falling, of the detections that count.
        hit: (N,) bool, those on an object.
        image: (N,), index of their image.
        objects: (I,), the number of objects of each image.
        background: (I,) bool, images on which nothing is annotated, not even to be ignored.

    Source: Bunch, Hamilton, Sanderson and Simmons, "A Free Response Approach to the Measurement and
    Characterization of Radiographic Observer Performance", SPIE 127, 1977, for the curve.

    Example:
        >>> box = {"bbox": [0, 0, 50, 50]}
        >>> truth = {"images": [{"id": 1}, {"id": 2}], "categories": [{"id": 7}], "annotations": [
        ...     {**box, "id": 1, "image_id": 1, "category_id": 7, "area": 2500, "iscrowd": 0}]}
        >>> found = [{**box, "image_id": n, "category_id": 7, "score": n / 4} for n in (1, 2)]
        >>> from negvision.detection.metrics.error_kinds import error_kinds
        >>> curve = FROC.of(error_kinds(truth, found, [7]))
        >>> curve.figures(np.ones((1, 2)), recalls=[0.8], rates=[0.25, 0.5]).tolist()
        [[1.0, 0.0, 1.0]]
    """

    score: np.ndarray
    hit: np.ndarray
    image: np.ndarray
    objects: np.ndarray
    background: np.ndarray

    @classmethod
    def of(cls, errors: ErrorKinds) -> FROC:
        """From the matches of a whole set."""
        order = np.argsort(-errors.scores, kind="stable")
        columns = (column[order] for column in (errors.scores, errors.hits, errors.images))
        return cls(*columns, errors.objects, errors.background)

    def figures(
        self,
        weights: np.ndarray,
        recalls: Sequence[float] = RECALLS,
        rates: Sequence[float] = RATES,
    ) -> np.ndarray:
        """False positives at recalls, then recalls at false positives.

        Args:
            weights: (R, I), how often each image counts.
            recalls: At the highest score that reaches each, the false positives per image without
                objects; NaN if none does, or there is no such image.
            rates: The recall at the lowest score with at most so many false positives per image,
                of all images; NaN without objects.

        Returns:
            (R, len(recalls) + len(rates)).
        """
        return np.array([self._of_one(weight, recalls, rates) for weight in weights])

    def _of_one(
        self, weight: np.ndarray, recalls: Sequence[float], rates: Sequence[float]
    ) -> np.ndarray:
        recall, overall, alone = self._curves(weight)
        if np.isnan(recall[0]):
            return np.full(len(recalls) + len(rates), np.nan)
        at = np.searchsorted(recall, np.asarray(recalls) - 1e-9)
        below = np.searchsorted(overall, np.asarray(rates) + 1e-9, side="right") - 1
        return np.concatenate([np.append(alone, np.nan)[at], recall[below]])

    def _curves(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Recall, false positives per image, and per image without objects, by falling score."""
        own = weight[self.image].astype(np.float64)
        # Detections of equal score are there together or not at all.
        ends = np.flatnonzero(np.append(np.diff(self.score) != 0, True)) if len(own) else []
        wrong = own * ~self.hit
        sums = [
            np.append(0.0, np.cumsum(values)[ends])
            for values in (own * self.hit, wrong, wrong * self.background[self.image])
        ]
        totals = (weight @ self.objects, weight.sum(), weight @ self.background)
        recall, overall, alone = (
            share(column, np.full(len(column), total, dtype=np.float64))
            for column, total in zip(sums, totals, strict=True)
        )
        return recall, overall, alone

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Recall and false positives per image at each score, falling; both begin at 0."""
        return self._curves(np.ones(len(self.objects)))[:2]

    def measured(
        self,
        units: np.ndarray,
        resamples: int = 0,
        recalls: Sequence[float] = RECALLS,
        rates: Sequence[float] = RATES,
    ) -> tuple[dict[str, float], str]:
        """The figures by name, and two lines about them for the log.

        Args:
            units: (I,), what a bootstrap draws, as in :func:`negvision.bootstrap.bootstrap`.
            resamples: For 95 % intervals, ``NAME_low`` and ``NAME_high``; 0 for none.
            recalls, rates: As in :meth:`figures`.
        """
        names = fppi_names(recalls, rates)
        values = self.figures(np.ones((1, len(self.objects))), recalls, rates)[0]
        figures = dict(zip(names, values.tolist(), strict=True))
        shown = [f"{value:.3f}" for value in values]
        if resamples:
            draws = bootstrap(lambda one: self.figures(one, recalls, rates), units, resamples)
            highest = np.repeat([np.inf, 1.0], [len(recalls), len(rates)])
            limits = interval(values, draws, highest=highest).T.tolist()
            for place, (name, (low, high)) in enumerate(zip(names, limits, strict=True)):
                figures |= {f"{name}_low": low, f"{name}_high": high}
                shown[place] += f" ({low:.3f} to {high:.3f})"
        shown = ["-" if one.startswith("nan") else one for one in shown]
        alone = zip(shown, recalls, strict=False)
        found = zip(shown[len(recalls) :], rates, strict=True)
        count = int(self.background.sum())
        first = f"false positives per image without an object ({count:,} images): "
        first += ", ".join(f"{value} at recall {level:g}" for value, level in alone)
        if not count:
            first = "false positives per image without an object: there is no such image"
        second = ", ".join(f"{value} at {rate:g}" for value, rate in found)
        return figures, f"{first}\nrecall by false positives per image (FROC): {second}"


def fppi_names(recalls: Sequence[float] = RECALLS, rates: Sequence[float] = RATES) -> list[str]:
    """The names of :meth:`FROC.figures`.

    Example:
        >>> fppi_names([0.8], [0.5])
        ['fppi@0.8', 'froc@0.5']
    """
    return [*(f"fppi@{value:g}" for value in recalls), *(f"froc@{value:g}" for value in rates)]
