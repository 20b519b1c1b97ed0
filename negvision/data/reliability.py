"""Whether a score of 0.7 means 70 %: expected calibration error, reliability, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from negvision.data.score_calibration import ScoreCalibration
from negvision.errors import DatasetError

# Detectors give many boxes with scores near 0, which are as rarely right: they would hide the rest.
FROM_SCORE = 0.3
_BINS = 15
# Detections that a scale of its own takes, their lowest score, and ranges of 1 / T and the offset.
_FEWEST, _FIT_FROM = 50, 0.05
_RANGES = ((0.05, 20.0), (-20.0, 20.0))


@dataclass(frozen=True)
class Reliability:
    """Scores against the share of detections that are right, in 15 bins of equal width.

    Attributes:
        count: (15,), detections in each bin.
        confidence: (15,), their mean score; NaN in an empty bin.
        precision: (15,), the share of them that is right; NaN in an empty bin.
    """

    count: np.ndarray
    confidence: np.ndarray
    precision: np.ndarray

    @property
    def total(self) -> int:
        """Detections in all bins."""
        return int(self.count.sum())

    @property
    def error(self) -> float:
        """The expected calibration error (ECE): the mean gap between both; NaN without detections.

        In [0, 1]; each bin weighs as much as it has detections.
        """
        return self._mean(np.abs(self.confidence - self.precision))

    @property
    def mean_confidence(self) -> float:
        """The mean score; NaN without detections."""
        return self._mean(self.confidence)

    @property
    def mean_precision(self) -> float:
        """The share of detections that is right; NaN without detections."""
        return self._mean(self.precision)

    def _mean(self, values: np.ndarray) -> float:
        if not self.total:
            return float("nan")
        return float(np.where(self.count > 0, self.count * values, 0).sum() / self.total)

    @classmethod
    def of_sums(cls, sums: np.ndarray) -> Reliability:
        """From :func:`bin_sums`, or the sum of several."""
        count = sums[0].astype(np.int64)
        means = [np.where(count > 0, one / np.maximum(count, 1), np.nan) for one in sums[1:]]
        return cls(count, *means)

    def line(self, what: str = f"detections with scores from {FROM_SCORE:g}") -> str:
        """One line for the log, about ``what`` is scored."""
        if not self.total:
            return f"calibration: there are no {what}"
        return (
            f"calibration: ECE {self.error:.3f} of {self.total:,} {what} (mean score "
            f"{self.mean_confidence:.3f}, right {self.mean_precision:.3f})"
        )


def reliability(
    scores: np.ndarray, hits: np.ndarray, from_score: float = FROM_SCORE
) -> Reliability:
    """Compare scores with how often they are right.

    Args:
        scores: (N,); those outside ``from_score`` to 1 do not count.
        hits: (N,), which detections are right.
        from_score: In [0, 1).

    Sources: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017,
    for ECE; Küppers, Kronenberger, Shantia and Haselhoff, "Multivariate Confidence Calibration for
    Object Detection", CVPR Workshops 2020, for detections that are right at IoU 0.5, and for the
    lowest score.

    Example:
        >>> found = reliability(np.array([0.9, 0.9, 0.5, 0.1]), np.array([1, 0, 1, 0]))
        >>> found.total, round(found.error, 3), round(found.mean_precision, 3)
        (3, 0.433, 0.667)
    """
    return Reliability.of_sums(bin_sums(scores, hits, from_score))


def reliability_by_class(
    names: Sequence[str], labels: np.ndarray, scores: np.ndarray, hits: np.ndarray
) -> dict[str, Reliability]:
    """Of all predictions and of those of each class, with any score.

    Args:
        names: Of the K classes.
        labels: (N,), what is predicted.
        scores, hits: (N,), as in :func:`reliability`.
    """
    sums = np.stack(
        [bin_sums(scores[own], hits[own], 0) for own in (labels == k for k in range(len(names)))]
    )
    return reliability_of_sums(names, sums)


def reliability_of_sums(names: Sequence[str], sums: np.ndarray) -> dict[str, Reliability]:
    """Of all predictions and of those of each class, from (K, 3, 15) of :func:`bin_sums`."""
    of_classes = zip(names, map(Reliability.of_sums, sums), strict=True)
    return {"all classes": Reliability.of_sums(sums.sum(0)), **dict(of_classes)}


def bin_sums(scores: np.ndarray, hits: np.ndarray, from_score: float = FROM_SCORE) -> np.ndarray:
    """Number, sum of scores and number of hits of each bin, (3, 15), as in :func:`reliability`."""
    chosen = (scores >= from_score) & (scores <= 1)
    scores, hits = np.asarray(scores, np.float64)[chosen], np.asarray(hits)[chosen]
    width = (1 - from_score) / _BINS
    bins = np.minimum(((scores - from_score) / width).astype(np.int64), _BINS - 1)
    values = (np.ones(len(scores)), scores, hits)
    return np.stack([np.bincount(bins, one, _BINS) for one in values])


def fit_temperatures(log_probabilities: np.ndarray, labels: np.ndarray) -> ScoreCalibration:
    """The temperature of each class at which predictions are most likely.

    It divides the logits of the samples of which the class is predicted, so that the most probable
    class stays. Classes that are predicted fewer than 50 times, or always right or wrong, take the
    temperature of all.

    Args:
        log_probabilities: (N, K), or logits.
        labels: (N,), the true classes.

    Raises:
        DatasetError: All predictions are right, or wrong, or there are fewer than 50.

    Sources: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017;
    Frenkel and Goldberger, "Network Calibration by Class-based Temperature Scaling", EUSIPCO 2021.
    """
    predicted = log_probabilities.argmax(1)
    hits = predicted == labels
    _require_both(hits, "predictions")
    of_all = _fitted_temperature(log_probabilities, labels)
    temperatures = []
    for label in range(log_probabilities.shape[1]):
        own = predicted == label
        enough = own.sum() >= _FEWEST and hits[own].any() and not hits[own].all()
        temperatures.append(
            _fitted_temperature(log_probabilities[own], labels[own]) if enough else of_all
        )
    return ScoreCalibration(tuple(temperatures), (0.0,) * len(temperatures))


def _fitted_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the least cross-entropy."""
    logits = logits.astype(np.float64) - logits.max(1, keepdims=True)
    true = logits[np.arange(len(labels)), labels]

    def loss(logarithm: float) -> float:
        power = np.exp(-logarithm)
        return float((np.log(np.exp(power * logits).sum(1)) - power * true).mean())

    limits = np.log(_RANGES[0])
    return float(np.exp(minimize_scalar(loss, bounds=limits, method="bounded").x))


def _require_both(hits: np.ndarray, what: str) -> None:
    if len(hits) < _FEWEST or hits.all() or not hits.any():
        raise DatasetError(
            f"a calibration needs at least {_FEWEST} {what}, right and wrong ones; there are "
            f"{int(hits.sum()):,} right and {int((~hits).sum()):,} wrong. Train longer, or "
            "calibrate on more images"
        )


def fit_calibration(
    scores: np.ndarray, hits: np.ndarray, labels: np.ndarray, classes: int
) -> ScoreCalibration:
    """The scale of each class at which its detections are most likely.

    Detections with scores from 0.05 are used. Classes with fewer than 50 of them, or with right or
    wrong ones alone, take the scale of all.

    Args:
        scores: (N,).
        hits: (N,) bool, which detections are right.
        labels: (N,), from 0.
        classes: Number of classes.

    Raises:
        DatasetError: All detections are right, or wrong, or there are fewer than 50.
    """
    used = (scores >= _FIT_FROM) & (scores <= 1)
    scores, hits, labels = scores[used], hits[used].astype(bool), labels[used]
    _require_both(hits, f"detections with scores from {_FIT_FROM:g}")
    # Not at 0 and 1, where logits are infinite.
    inside = np.clip(scores, 1e-6, 1 - 1e-6)
    logits = np.log(inside / (1 - inside))
    of_all = _fitted(logits, hits)
    pairs = []
    for label in range(classes):
        own = labels == label
        enough = own.sum() >= _FEWEST and hits[own].any() and not hits[own].all()
        pairs.append(_fitted(logits[own], hits[own]) if enough else of_all)
    temperatures, offsets = zip(*pairs, strict=True)
    return ScoreCalibration(temperatures, offsets)


def _fitted(logits: np.ndarray, hits: np.ndarray) -> tuple[float, float]:
    """Temperature and offset with the least cross-entropy."""
    sign = np.where(hits, -1.0, 1.0)

    def loss(parameters: np.ndarray) -> float:
        return float(np.logaddexp(0, sign * (parameters[0] * logits + parameters[1])).mean())

    best = minimize(loss, np.array([1.0, 0.0]), bounds=_RANGES)
    return float(1 / best.x[0]), float(best.x[1])
