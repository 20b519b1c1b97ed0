"""OOD and ID samples above each threshold, and the metrics that follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from negvision.errors import OODDataError


@dataclass(frozen=True)
class ScoreCurve:
    """Weights of the positives and negatives that reach each distinct score.

    Positives are OOD samples here, and genuine pairs in :mod:`negvision.face`. A sample is called
    positive if its score is at least the threshold; samples of equal score enter together. Counts
    are exact up to 2^53.

    Attributes:
        thresholds: Shape (V,), float64: the distinct scores, descending.
        positives, negatives: Shape (V,), float64: weight of those that reach the threshold.
    """

    thresholds: Tensor
    positives: Tensor
    negatives: Tensor

    @property
    def total_positives(self) -> float:
        """Weight of all positives; without weights, their number."""
        return float(self.positives[-1])

    @property
    def total_negatives(self) -> float:
        """Weight of all negatives."""
        return float(self.negatives[-1])

    @property
    def prevalence(self) -> float:
        """Share of positives, the chance level of ``ap_out``."""
        return self.total_positives / (self.total_positives + self.total_negatives)

    def auroc(self) -> float:
        """P(a positive scores higher than a negative) + P(equal) / 2."""
        steps = _steps(self.negatives)
        before = self.positives - _steps(self.positives)
        area = torch.dot(steps, self.positives + before) / 2
        return float(area / (self.positives[-1] * self.negatives[-1]))

    def ap_out(self) -> float:
        """Average precision, step-wise, with OOD as the positive class."""
        return float(
            torch.dot(_steps(self.positives), self.positives / (self.positives + self.negatives))
            / self.positives[-1]
        )

    def fpr_ood(self, tpr: float = 0.95) -> float:
        """Share of ID called OOD at the first threshold that finds ``tpr`` of the OOD."""
        return float(self.negatives[self._first(tpr)] / self.negatives[-1])

    def ap_at(self, prevalence: float) -> float:
        """Average precision at another prevalence, OOD positive.

        The mean over OOD samples of ``pi TPR / (pi TPR + (1 - pi) FPR)`` at their thresholds.

        Args:
            prevalence: pi, in (0, 1).
        """
        if not 0 < prevalence < 1:
            raise ValueError(f"prevalence must be between 0 and 1, got {prevalence}")
        found = prevalence * self.positives / self.positives[-1]
        alarms = (1 - prevalence) * self.negatives / self.negatives[-1]
        return float(
            torch.dot(_steps(self.positives), found / (found + alarms)) / self.positives[-1]
        )

    def reversed(self) -> ScoreCurve:
        """The curve of the negated score, with positives and negatives swapped."""
        # Samples below a threshold: all minus those that reach the next higher threshold.
        return ScoreCurve(
            -self.thresholds.flip(0),
            (self.negatives[-1] - self.negatives + _steps(self.negatives)).flip(0),
            (self.positives[-1] - self.positives + _steps(self.positives)).flip(0),
        )

    def corners(self) -> Self:
        """The points at which the ROC bends: fewer points, the same line."""
        right, up = _steps(self.negatives), _steps(self.positives)
        bends = right[1:] * up[:-1] != right[:-1] * up[1:]
        keep = torch.cat([bends, bends.new_ones(1)])
        return type(self)(self.thresholds[keep], self.positives[keep], self.negatives[keep])

    def _first(self, tpr: float) -> int:
        if not 0 < tpr <= 1:
            raise ValueError(f"tpr must be above 0 and at most 1, got {tpr}")
        # Divided as in the definition: tpr * total could round to another count.
        return int(torch.nonzero(self.positives / self.positives[-1] >= tpr)[0, 0])


def score_curve(scores: Tensor, is_ood: Tensor, weights: Tensor | None = None) -> ScoreCurve:
    """Count the OOD and ID samples that reach each distinct score.

    Args:
        scores: Shape (N,), finite; higher is more OOD.
        is_ood: Shape (N,), bool.
        weights: Shape (N,), at least 0; 1 by default.

    Raises:
        OODDataError: A score is not finite, or there is no OOD or no ID sample.
        ValueError: Shapes differ, or ``is_ood`` is not bool.

    Example:
        >>> curve = score_curve(torch.tensor([0.75, 0.5, 0.5, 0.25]),
        ...                     torch.tensor([True, True, False, False]))
        >>> curve.thresholds.tolist(), curve.positives.tolist(), curve.negatives.tolist()
        ([0.75, 0.5, 0.25], [1.0, 2.0, 2.0], [0.0, 1.0, 2.0])
        >>> curve.auroc(), curve.fpr_ood()
        (0.875, 0.5)
    """
    if scores.dim() != 1 or scores.shape != is_ood.shape:
        raise ValueError(
            f"scores and is_ood must be (N,) both, got {tuple(scores.shape)} and "
            f"{tuple(is_ood.shape)}"
        )
    if is_ood.dtype != torch.bool:
        raise ValueError(f"is_ood must be bool, got {is_ood.dtype}")
    check_finite(scores)
    count = int(is_ood.sum())
    check_kinds(count, len(is_ood) - count)
    return ScoreCurve(*cumulative_weights(scores, is_ood, weights))


def cumulative_weights(
    scores: Tensor, positive: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The three arrays of a :class:`ScoreCurve`, without any check of the arguments."""
    order = scores.argsort(descending=True)
    ordered, positive = scores[order], positive[order]
    ends = tie_ends(ordered)
    if weights is None:
        found = positive.cumsum(0)[ends].double()
        return ordered[ends].double(), found, ends.double() + 1 - found
    weights = weights.double()[order]
    return (
        ordered[ends].double(),
        (weights * positive).cumsum(0)[ends],
        (weights * ~positive).cumsum(0)[ends],
    )


def tie_ends(ordered: Tensor) -> Tensor:
    """Index of the last element of each run of equal values in a sorted tensor (N,)."""
    last = torch.ones(len(ordered), dtype=torch.bool, device=ordered.device)
    last[:-1] = ordered[1:] != ordered[:-1]
    return last.nonzero()[:, 0]


def check_finite(scores: Tensor) -> None:
    """Raise OODDataError with the counts if a score is NaN or infinite."""
    count = scores.numel() - int(scores.isfinite().sum())
    if count:
        nan = int(scores.isnan().sum())
        raise OODDataError(
            f"{count:,} of {scores.numel():,} OOD scores are not finite ({nan:,} NaN, "
            f"{count - nan:,} infinite), so the network's output is not either. Check the training "
            "loss, or lower the learning rate"
        )


def check_kinds(num_ood: float, num_id: float) -> None:
    """Raise OODDataError if there is no OOD or no ID sample."""
    if num_ood and num_id:
        return
    missing = "OOD" if not num_ood else "ID"
    raise OODDataError(
        f"the evaluation needs OOD and ID samples, but there is no {missing} sample "
        f"({num_ood:,} OOD, {num_id:,} ID). Does the data set hold {missing} images, and were they "
        "predicted?"
    )


def _steps(cumulative: Tensor) -> Tensor:
    return torch.diff(cumulative, prepend=cumulative.new_zeros(1))
