"""The receiver operating characteristic of similarity scores, exact also where scores tie."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class OperatingPoint(NamedTuple):
    """The best that a verifier does while it accepts few negatives.

    Attributes:
        limit: The share of negatives that may be accepted: FAR of pairs, FPIR of probes.
        rate: The share of positives accepted then (TAR, DIR), in [0, 1]; None where the negatives
            are too few for the limit.
        threshold: Scores of at least this are accepted; infinite where nothing is. None with
            ``rate``.
        accepted: Negatives accepted at the threshold. None with ``rate``.
        negatives: All negatives.
    """

    limit: float
    rate: float | None
    threshold: float | None
    accepted: int | None
    negatives: int


@dataclass(frozen=True)
class RocCurve:
    """How many pairs of each kind are accepted at every threshold that makes a difference.

    Attributes:
        thresholds: Shape (V,), float64: infinity, then the distinct scores, descending. A pair is
            accepted if its score is at least the threshold, so that pairs of equal score enter
            together.
        true_accepts: Shape (V,), int64, positive pairs accepted, from 0 to all.
        false_accepts: Shape (V,), int64, negative pairs accepted, from 0 to all.
    """

    thresholds: np.ndarray
    true_accepts: np.ndarray
    false_accepts: np.ndarray

    @property
    def positives(self) -> int:
        """Positive pairs in all."""
        return int(self.true_accepts[-1])

    @property
    def negatives(self) -> int:
        """Negative pairs in all."""
        return int(self.false_accepts[-1])

    @property
    def tar(self) -> np.ndarray:
        """Shape (V,): true accept rate (TPR) at each threshold."""
        return self.true_accepts / self.positives

    @property
    def far(self) -> np.ndarray:
        """Shape (V,): false accept rate (FPR) at each threshold."""
        return self.false_accepts / self.negatives

    def auc(self) -> float:
        """Area under the curve: P(positive > negative) + P(equal) / 2."""
        steps = np.diff(self.false_accepts)
        # In integers: exact up to 9e18 / 2 pairs of pairs.
        doubled = int(np.dot(steps, self.true_accepts[1:] + self.true_accepts[:-1]))
        return doubled / 2 / (self.positives * self.negatives)

    def equal_error_rate(self) -> float:
        """The error rate where FAR = 1 - TAR, on the straight line between neighbouring points.

        A line between points stands for a random choice among pairs of equal score.
        """
        gap = 1 - self.tar - self.far
        # From 1 down to -1, strictly: each step accepts at least one more pair.
        after = int(np.argmax(gap <= 0))
        before = after - 1
        share = gap[before] / (gap[before] - gap[after])
        far = self.far
        return float(far[before] + share * (far[after] - far[before]))

    def overlap(self) -> float:
        """Overlap of the scores of positive and negative pairs, in [0, 1], without bins.

        One minus Youden's J, 1 - max over thresholds of (TAR - FAR): the least sum of the two
        error rates that a threshold can have. 0 where a threshold tells all pairs apart, 1 where
        none is better than chance. TAR - FAR at its maximum is the (one-sided)
        Kolmogorov-Smirnov distance of the two empirical distributions.

        Source: Youden, "Index for rating diagnostic tests", Cancer 3, 1950.
        """
        # Of integers, so that equal distributions overlap by exactly 1.
        ahead = self.true_accepts * self.negatives - self.false_accepts * self.positives
        return 1 - int(ahead.max()) / (self.positives * self.negatives)

    def at_far(self, far: float) -> OperatingPoint:
        """The largest TAR of a threshold whose FAR is at most ``far``.

        Negative pairs must be 1 / ``far`` at least, so that one false accept is allowed; with
        fewer there is no figure (``rate`` is None): FAR would be 0 or above the limit, and the
        figure that of another limit.

        Args:
            far: In (0, 1).
        """
        if not 0 < far < 1:
            raise ValueError(f"far must be between 0 and 1, got {far!r}")
        if 1 / self.negatives > far:
            return OperatingPoint(far, None, None, None, self.negatives)
        at = int(np.searchsorted(self.far, far, side="right")) - 1
        return OperatingPoint(
            far,
            int(self.true_accepts[at]) / self.positives,
            float(self.thresholds[at]),
            int(self.false_accepts[at]),
            self.negatives,
        )

    def corners(self) -> RocCurve:
        """The same curve without the points that lie on a straight line between others."""
        right, up = np.diff(self.false_accepts), np.diff(self.true_accepts)
        bends = right[1:] * up[:-1] != right[:-1] * up[1:]
        keep = np.concatenate([[True], bends, [True]])
        return RocCurve(self.thresholds[keep], self.true_accepts[keep], self.false_accepts[keep])


def roc_curve(scores: np.ndarray, same: np.ndarray) -> RocCurve:
    """Count the pairs accepted at every distinct score.

    Args:
        scores: Shape (P,), any finite values and -inf; higher is more alike.
        same: Shape (P,), bool: which pairs are positive.

    Raises:
        ValueError: Shapes differ, a score is NaN, or there is no pair of one of the two kinds.

    Example:
        >>> curve = roc_curve(np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False]))
        >>> curve.thresholds.tolist(), curve.true_accepts.tolist(), curve.false_accepts.tolist()
        ([inf, 0.9, 0.4, 0.1], [0, 1, 2, 2], [0, 0, 1, 2])
        >>> curve.auc(), curve.equal_error_rate(), curve.overlap(), curve.at_far(0.5).rate
        (0.875, 0.25, 0.5, 1.0)
    """
    scores, same = np.asarray(scores), np.asarray(same, dtype=bool)
    if scores.ndim != 1 or scores.shape != same.shape:
        raise ValueError(f"scores {scores.shape} and same {same.shape} must be (P,) both")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum()):,} of {len(scores):,} scores are NaN")
    if same.all() or not same.any():
        raise ValueError(
            f"needs pairs of both kinds, got {int(same.sum()):,} positive and "
            f"{int((~same).sum()):,} negative"
        )
    order = np.argsort(scores)[::-1]
    ordered = scores[order]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    true_accepts = np.cumsum(same[order], dtype=np.int64)[ends]
    return RocCurve(
        thresholds=np.concatenate([[np.inf], ordered[ends].astype(np.float64)]),
        true_accepts=np.concatenate([[0], true_accepts]),
        false_accepts=np.concatenate([[0], ends + 1 - true_accepts]),
    )


def checked_limits(name: str, limits: float | Iterable[float]) -> tuple[float, ...]:
    """The limits of an argument, each in (0, 1), from the largest to the smallest, once each."""
    values = [limits] if isinstance(limits, (int, float)) else list(limits)
    if not all(isinstance(value, (int, float)) and 0 < value < 1 for value in values):
        raise ValueError(f"{name} must be numbers between 0 and 1, got {limits!r}")
    return tuple(sorted(set(map(float, values)), reverse=True))
