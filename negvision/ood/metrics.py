"""Metrics of OOD scores, with intervals. OOD is the positive class; higher scores are more OOD."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from negvision.bootstrap import draw_counts
from negvision.ood.curve import ScoreCurve, score_curve, tie_ends

# Attributes of OODValues and their headings, in the order of the tables.
METRIC_TITLES = {
    "auroc": "AUROC",
    "ap_out": "AP out",
    "ap_in": "AP in",
    "fpr95_ood": "FPR95 ood+",
    "fpr95_id": "FPR95 id+",
}
METRIC_NAMES = tuple(METRIC_TITLES)


@dataclass(frozen=True)
class OODValues:
    """Values of the OOD metrics, in [0, 1].

    Attributes:
        auroc: Area under the ROC curve; ties count one half. The same in both directions.
        ap_out: Average precision (step-wise) with OOD positive; chance level ``prevalence``.
        ap_in: Average precision with ID positive; chance level ``1 - prevalence``.
        fpr95_ood: FPR at the first threshold with a TPR of at least 0.95, OOD positive: the share
            of ID samples called OOD while 95 % of the OOD samples are found.
        fpr95_id: The same with ID positive: the share of OOD samples that pass as ID while 95 % of
            the ID samples are kept.
        prevalence: Share of OOD among all samples.
        num_ood, num_id: Numbers of samples; sums of weights for weighted samples.
        curve: All thresholds, for plots and other metrics.
        intervals: Metric to (low, high) of a bootstrap over groups; empty without groups.
        bounds: Metric to (low, high) that enclose the exact value; empty for exact values.
    """

    auroc: float
    ap_out: float
    ap_in: float
    fpr95_ood: float
    fpr95_id: float
    prevalence: float
    num_ood: float
    num_id: float
    curve: ScoreCurve = field(repr=False)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def ap_at(self, prevalence: float) -> float:
        """``ap_out`` at another prevalence; see :meth:`ScoreCurve.ap_at`."""
        return self.curve.ap_at(prevalence)

    def as_dict(self) -> dict[str, float]:
        """The metrics in ``METRIC_NAMES`` by name."""
        return {name: getattr(self, name) for name in METRIC_NAMES}


def ood_metrics(
    scores: Tensor,
    is_ood: Tensor,
    groups: Tensor | None = None,
    weights: Tensor | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> OODValues:
    """Evaluate OOD scores exactly.

    Args:
        scores: Shape (N,), finite, any range; higher is more OOD.
        is_ood: Shape (N,), bool.
        groups: Shape (N,), integers: the image of each box or pixel. Adds intervals from a
            bootstrap over groups rather than samples: samples of one image stay together.
        weights: Shape (N,), at least 0.
        confidence: Of the intervals, in (0, 1); the ends are percentiles of the resamples.
        resamples: Number of bootstrap draws. Draws without OOD or ID samples are dropped; there
            are no intervals with fewer than two groups of OOD or of ID.
        seed: Of the draws.

    Raises:
        OODDataError: A score is not finite, or there is no OOD or no ID sample.
        ValueError: Shapes or arguments do not fit.

    Source of the definitions: Hendrycks and Gimpel, ICLR 2017 (AUROC, AP in both directions);
    Liang et al., "Enhancing the Reliability of Out-of-distribution Image Detection in Neural
    Networks", ICLR 2018 (FPR at 95 % TPR).

    Example:
        >>> values = ood_metrics(torch.tensor([3.0, 2.0, 1.0, 0.0]),
        ...                      torch.tensor([True, False, True, False]))
        >>> values.auroc, round(values.ap_out, 4), values.prevalence
        (0.75, 0.8333, 0.5)
    """
    scores, is_ood = torch.as_tensor(scores), torch.as_tensor(is_ood)
    curve = score_curve(scores, is_ood, weights)
    if groups is None:
        return values_of(curve)
    groups = torch.as_tensor(groups)
    if groups.shape != scores.shape:
        raise ValueError(f"groups must be {tuple(scores.shape)}, got {tuple(groups.shape)}")
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(
            f"confidence must be between 0 and 1 and resamples at least 1, got {confidence} and "
            f"{resamples}"
        )
    intervals = {}
    if min(len(groups[is_ood].unique()), len(groups[~is_ood].unique())) >= 2:
        curves = _resampled(scores, is_ood, groups, weights, resamples, seed)
        drawn = torch.tensor([_values(c) for c in curves], dtype=torch.float64)
        tail = (1 - confidence) / 2
        ends = torch.tensor([tail, 1 - tail], dtype=torch.float64)
        low, high = drawn.quantile(ends, dim=0).tolist()
        intervals = {name: (low[i], high[i]) for i, name in enumerate(METRIC_NAMES)}
    return values_of(curve, intervals=intervals)


def values_of(
    curve: ScoreCurve,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> OODValues:
    """The metrics of a curve."""
    return OODValues(
        *_values(curve),
        prevalence=curve.prevalence,
        num_ood=curve.total_positives,
        num_id=curve.total_negatives,
        curve=curve,
        intervals=intervals or {},
        bounds=bounds or {},
    )


def _values(curve: ScoreCurve) -> tuple[float, float, float, float, float]:
    """The metrics in the order of ``METRIC_NAMES``."""
    back = curve.reversed()
    return curve.auroc(), curve.ap_out(), back.ap_out(), curve.fpr_ood(), back.fpr_ood()


def _resampled(
    scores: Tensor,
    is_ood: Tensor,
    groups: Tensor,
    weights: Tensor | None,
    resamples: int,
    seed: int,
) -> Iterator[ScoreCurve]:
    """Curves of draws with replacement, each of as many groups as there are."""
    # Sorted once: a draw changes only how often each sample counts.
    order = scores.argsort(descending=True)
    ends = tie_ends(scores[order])
    thresholds, ood = scores[order][ends].double(), is_ood[order]
    names, group = groups[order].unique(return_inverse=True)
    own = torch.ones_like(thresholds.new_empty(len(order)))
    if weights is not None:
        own = weights.double()[order]
    for counts in draw_counts(len(names), resamples, seed):
        times = counts.to(own)
        weight = own * times[group]
        found = (weight * ood).cumsum(0)[ends]
        alarms = (weight * ~ood).cumsum(0)[ends]
        # Drop thresholds that no drawn sample has.
        new = torch.diff(found + alarms, prepend=found.new_zeros(1)) > 0
        if found[-1] > 0 and alarms[-1] > 0:
            yield ScoreCurve(thresholds[new], found[new], alarms[new])
