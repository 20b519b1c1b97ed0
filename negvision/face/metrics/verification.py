"""Cross-validated accuracy of verification, as on LFW."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from negvision.face.metrics.roc import roc_curve


class FoldAccuracy(NamedTuple):
    """Accuracy on each fold at the threshold that the other folds chose.

    Attributes:
        accuracies: Shape (F,), in [0, 1].
        thresholds: Shape (F,); infinite where it is best to accept no pair, or all.
    """

    accuracies: np.ndarray
    thresholds: np.ndarray

    @property
    def mean(self) -> float:
        """Mean over the folds, each of the same weight."""
        return float(self.accuracies.mean())

    @property
    def std(self) -> float:
        """Standard deviation over the folds, with F - 1 in the denominator."""
        return float(self.accuracies.std(ddof=1))

    @property
    def standard_error(self) -> float:
        """Standard error of the mean, std / sqrt(F)."""
        return self.std / len(self.accuracies) ** 0.5


def tenths(same: np.ndarray, num_folds: int = 10) -> np.ndarray:
    """Folds of equal parts: fold i has the i-th tenth of the positive and of the negative pairs.

    Args:
        same: Shape (P,), bool, in the order of the file.
        num_folds: The number of parts.

    Returns:
        Shape (P,), int64, in [0, num_folds).

    Example:
        >>> tenths(np.array([True, True, True, True, False, False]), num_folds=2).tolist()
        [0, 0, 1, 1, 0, 1]
    """
    folds = np.empty(len(same), dtype=np.int64)
    for kind in (True, False):
        where = np.flatnonzero(same == kind)
        folds[where] = np.arange(len(where)) * num_folds // max(len(where), 1)
    return folds


def best_threshold(scores: np.ndarray, same: np.ndarray) -> float:
    """The threshold of the highest accuracy, among all that there are.

    Thresholds lie midway between neighbouring distinct scores, and beyond both ends (infinity:
    no pair is accepted, -infinity: all are). Of equally good ones the highest is taken, which
    accepts the fewest pairs.

    Args:
        scores: Shape (P,).
        same: Shape (P,), bool, with pairs of both kinds.

    Returns:
        A pair is accepted if its score is at least this.

    Example:
        >>> best_threshold(np.array([0.875, 0.5, 0.25]), np.array([True, True, False]))
        0.375
    """
    curve = roc_curve(scores, same)
    best = int(np.argmax(curve.true_accepts - curve.false_accepts))
    if best == 0:
        return np.inf
    if best == len(curve.thresholds) - 1:
        return -np.inf
    accepted, rejected = curve.thresholds[best], curve.thresholds[best + 1]
    middle = rejected + (accepted - rejected) / 2
    # Between neighbouring floats there is no third one.
    return float(middle if middle > rejected else accepted)


def cross_validated_accuracy(
    scores: np.ndarray, same: np.ndarray, folds: np.ndarray
) -> FoldAccuracy:
    """Accuracy on each fold at the best threshold of all pairs outside it.

    Scripts that print the deviation with F in the denominator show sqrt((F - 1) / F) of this.

    Args:
        scores: Shape (P,).
        same: Shape (P,), bool.
        folds: Shape (P,), the fold of each pair, any integers.

    Raises:
        ValueError: See :func:`obstacle_to_folds`.

    Source: Huang, Ramesh, Berg and Learned-Miller, "Labeled Faces in the Wild", technical report
    07-49, University of Massachusetts, 2007: the protocol of View 2.
    """
    obstacle = obstacle_to_folds(same, folds)
    if obstacle:
        raise ValueError(obstacle)
    # In float32 a threshold midway between neighbouring scores would be rounded to one of them.
    scores = np.asarray(scores, dtype=np.float64)
    accuracies, thresholds = [], []
    for fold in np.unique(folds):
        held_out = folds == fold
        threshold = best_threshold(scores[~held_out], same[~held_out])
        accuracies.append(np.mean((scores[held_out] >= threshold) == same[held_out]))
        thresholds.append(threshold)
    return FoldAccuracy(np.array(accuracies), np.array(thresholds))


def obstacle_to_folds(same: np.ndarray, folds: np.ndarray) -> str | None:
    """Why the folds allow no cross-validation; None where they do.

    At least two folds must hold pairs of each kind: otherwise the pairs outside some fold are of
    one kind, and no threshold can be chosen on them.
    """
    for kind, name in ((True, "positive"), (False, "negative")):
        number = len(np.unique(folds[same == kind]))
        if number < 2:
            return f"needs {name} pairs in at least 2 folds, they are in {number}"
    return None
