"""The figures of an OOD evaluation, with intervals. OOD is the positive class, higher is OOD."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from negvision.ood.curve import ScoreCurve, score_curve, tie_ends

# Of OODMetrics, in the order of its tables.
FIGURES = ("auroc", "ap_out", "ap_in", "fpr95_ood", "fpr95_id")


@dataclass(frozen=True)
class OODMetrics:
    """Figures in [0, 1] of OOD scores.

    Attributes:
        auroc: Area under the ROC; ties count one half. The same in both directions.
        ap_out: Average precision (step-wise) with OOD positive; chance level ``prevalence``.
        ap_in: Average precision with ID positive; chance level ``1 - prevalence``.
        fpr95_ood: FPR at the first threshold whose TPR is at least 0.95, OOD positive: the share
            of ID that is called OOD while 95 % of OOD is found.
        fpr95_id: The same with ID positive: the share of OOD that passes as ID while 95 % of ID
            is kept.
        prevalence: Share of OOD among all samples.
        num_ood, num_id: Numbers of samples; sums of weights where there are weights.
        curve: All thresholds, for plots and other figures.
        intervals: Figure to (low, high) of a bootstrap over groups; empty without groups.
        bounds: Figure to (low, high) between which the exact figure lies for certain; empty where
            the figures are exact.
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
        """``ap_out`` as it would be at another prevalence; see :meth:`ScoreCurve.ap_at`."""
        return self.curve.ap_at(prevalence)

    def figures(self) -> dict[str, float]:
        """The figures of ``FIGURES`` by name."""
        return {name: getattr(self, name) for name in FIGURES}


def ood_metrics(
    scores: Tensor,
    is_ood: Tensor,
    groups: Tensor | None = None,
    weights: Tensor | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> OODMetrics:
    """Evaluate OOD scores exactly.

    Args:
        scores: Shape (N,), finite, any range; higher is more OOD.
        is_ood: Shape (N,), bool.
        groups: Shape (N,), integers: the image of each box or pixel. With it there are intervals
            by bootstrap over groups, not over samples: those of one image go together.
        weights: Shape (N,), at least 0.
        confidence: Of the intervals, in (0, 1): percentiles of the resamples.
        resamples: How many times groups are drawn. Draws without any OOD or any ID are left out;
            with fewer than two groups of OOD or of ID there are no intervals.
        seed: Of the draws.

    Raises:
        OODDataError: A score is not finite, or there is no OOD or no ID sample.
        ValueError: Shapes or arguments do not fit.

    Source of the definitions: Hendrycks and Gimpel, ICLR 2017 (AUROC, AP in both directions);
    Liang et al., "Enhancing the Reliability of Out-of-distribution Image Detection in Neural
    Networks", ICLR 2018 (FPR at 95 % TPR).

    Example:
        >>> figures = ood_metrics(torch.tensor([3.0, 2.0, 1.0, 0.0]),
        ...                       torch.tensor([True, False, True, False]))
        >>> figures.auroc, round(figures.ap_out, 4), figures.prevalence
        (0.75, 0.8333, 0.5)
    """
    scores, is_ood = torch.as_tensor(scores), torch.as_tensor(is_ood)
    curve = score_curve(scores, is_ood, weights)
    intervals = {}
    if groups is not None:
        intervals = _intervals(
            scores, is_ood, torch.as_tensor(groups), weights, confidence, resamples, seed
        )
    return metrics_of(curve, intervals=intervals)


def metrics_of(curve: ScoreCurve, **extras) -> OODMetrics:
    """The figures that follow from a curve."""
    return OODMetrics(
        **_figures(curve),
        prevalence=curve.prevalence,
        num_ood=curve.total_positives,
        num_id=curve.total_negatives,
        curve=curve,
        **extras,
    )


def _figures(curve: ScoreCurve) -> dict[str, float]:
    backwards = curve.reversed()
    return {
        "auroc": curve.auroc(),
        "ap_out": curve.ap_out(),
        "ap_in": backwards.ap_out(),
        "fpr95_ood": curve.fpr_ood(),
        "fpr95_id": backwards.fpr_ood(),
    }


def _intervals(
    scores: Tensor,
    is_ood: Tensor,
    groups: Tensor,
    weights: Tensor | None,
    confidence: float,
    resamples: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    if groups.shape != scores.shape:
        raise ValueError(f"groups must be {tuple(scores.shape)}, got {tuple(groups.shape)}")
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(
            f"confidence must be between 0 and 1 and resamples at least 1, got {confidence} and "
            f"{resamples}"
        )
    if min(len(groups[is_ood].unique()), len(groups[~is_ood].unique())) < 2:
        return {}
    drawn = [_figures(c) for c in _resampled(scores, is_ood, groups, weights, resamples, seed)]
    tail = (1 - confidence) / 2
    ends = torch.tensor([tail, 1 - tail], dtype=torch.float64)
    intervals = {}
    for name in FIGURES:
        values = torch.tensor([figures[name] for figures in drawn], dtype=torch.float64)
        low, high = values.quantile(ends).tolist()
        intervals[name] = (low, high)
    return intervals


def _resampled(
    scores: Tensor,
    is_ood: Tensor,
    groups: Tensor,
    weights: Tensor | None,
    resamples: int,
    seed: int,
) -> Iterator[ScoreCurve]:
    """Curves of draws of as many groups, with replacement, as there are."""
    # Sorted once: a draw only changes how often each sample counts.
    order = scores.argsort(descending=True)
    ends = tie_ends(scores[order])
    thresholds, ood = scores[order][ends].double(), is_ood[order]
    names, group = groups[order].unique(return_inverse=True)
    own = torch.ones_like(thresholds.new_empty(len(order)))
    if weights is not None:
        own = weights.double()[order]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(resamples):
        draws = torch.randint(len(names), (len(names),), generator=generator)
        times = torch.bincount(draws, minlength=len(names)).to(own)
        weight = own * times[group]
        found = (weight * ood).cumsum(0)[ends]
        alarms = (weight * ~ood).cumsum(0)[ends]
        # Thresholds at which nothing new comes in would be points without a sample.
        new = torch.diff(found + alarms, prepend=found.new_zeros(1)) > 0
        if found[-1] > 0 and alarms[-1] > 0:
            yield ScoreCurve(thresholds[new], found[new], alarms[new])
