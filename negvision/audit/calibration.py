"""Probabilities that labels are wrong, from the scores of errors planted on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

# Fewer planted errors support no probability. The lowest step holds this share of them; a step
# rests on so many of them, and on so many labels on average.
_FEWEST, _LOWEST, _ERRORS, _LABELS, _LEAST_STEPS, _MOST_STEPS = 20, 0.1, 10, 5, 4, 20
# So many right labels look as wrong as errors, in any data set.
_ODD_ONES = 1


@dataclass(frozen=True)
class Calibration:
    """Steps from scores to probabilities.

    Attributes:
        scores: (S,) ascending, at which the steps but the first begin.
        probabilities: (S + 1,) ascending.
        planted: How many errors were planted and scored.
        labels: How many labels of the data set were scored, right and wrong ones.
        wrong: The share of those that is wrong at most, as far as the planted errors tell.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]
    planted: int
    labels: int
    wrong: float

    @classmethod
    def fit(cls, planted: np.ndarray, scores: np.ndarray) -> Calibration | None:
        """Fit to the scores of planted errors and of the data set as it is.

        The data set has errors of its own, so its labels are no examples of right ones: they are
        unlabeled, and the planted errors are labeled positives. Where the planted ones are densest
        among them, at a ratio r of the densities, at most a share 1 / r of the labels is wrong. A
        label whose score has the ratio q is then wrong with probability q / r. It is lowered by
        the share 1 / r, since scores that tell nothing have r = 1, and by one label of those
        that look wrong: a right one does in any data set.

        Args:
            planted: (P,), higher is more suspicious.
            scores: (N,) of all labels.

        Returns:
            None with fewer than 20 planted errors, or no label: too few to tell anything.

        Source: Elkan and Noto, "Learning classifiers from only positive and unlabeled data", KDD
        2008, for the ratio; the reduction, and that the ratio rises with the score, are ours.

        Example:
            >>> errors, right = np.linspace(0.6, 1, 50), np.linspace(0, 0.5, 1000)
            >>> found = Calibration.fit(errors, np.concatenate([right, errors]))
            >>> found.apply(np.array([0.2, 0.99])).round(2).tolist()
            [0.0, 0.93]
        """
        planted, scores = (one[np.isfinite(one)] for one in (planted, scores))
        if len(planted) < _FEWEST or not len(scores):
            return None
        from scipy.optimize import isotonic_regression  # loads slowly

        odd = int((scores >= np.quantile(planted, _LOWEST)).sum())
        steps = int(
            np.clip(min(odd // _LABELS, len(planted) // _ERRORS), _LEAST_STEPS, _MOST_STEPS)
        )
        edges = np.unique(np.quantile(planted, np.linspace(_LOWEST, 1, steps)[:-1]))
        # Equal scores are in one step.
        place = [np.searchsorted(edges, one, "right") for one in (planted, scores)]
        errors, labels = (np.bincount(one, minlength=len(edges) + 1) for one in place)
        # Half a label more in each step, so that an empty one is no certainty.
        ratio = errors / len(planted) / (labels + 0.5) * len(scores)
        ratio = isotonic_regression(ratio, weights=labels + 0.5).x
        # Of the upper half of the planted ones, since a single step is a matter of chance; two
        # more, since where one or two labels are wrong it may have none.
        top = int((scores >= np.median(planted)).sum()) + 2
        highest = max(0.5 * len(scores) / top, 1.0)
        probabilities = np.minimum(ratio / highest, 1) * (1 - 1 / highest) * odd / (odd + _ODD_ONES)
        return cls(
            tuple(edges.tolist()),
            tuple(probabilities.tolist()),
            len(planted),
            len(scores),
            1 / highest,
        )

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities (N,) of scores (N,)."""
        return np.array(self.probabilities)[np.searchsorted(self.scores, scores, "right")]

    def as_dict(self) -> Mapping[str, Any]:
        """For a JSON file."""
        return asdict(self)
