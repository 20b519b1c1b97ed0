"""OOD metrics of a stream of pixels: in bounded memory with guaranteed bounds, or exact."""

from __future__ import annotations

import torch
from torch import Tensor

from negvision.ood.curve import ScoreCurve, check_finite, check_kinds, score_curve
from negvision.ood.metrics import OODValues, values_of

# Sign, exponent and 13 mantissa bits of float32.
_BITS = 22


class StreamingOODMetrics:
    """Accumulates scores over thousands of images and several processes.

    Scores are counted in bins: float32 numbers cut to 22 bits. The bins cover all of float32 and
    are at most 1 / 8192 of their value wide, so nothing is clipped and no range must be known.
    Two counts per bin take 64 MiB, whatever the number of pixels. Samples of one bin count as
    ties. The ``bounds`` of the result are the lowest and highest value that any order within the
    bins can give, so they enclose the exact value of the float32 scores.

    Args:
        exact: Keep every score instead, five bytes per pixel; values are exact, without bounds.

    Example:
        >>> stream = StreamingOODMetrics()
        >>> for image in range(3):
        ...     stream.update(torch.randn(64, 64), torch.rand(64, 64) < 0.1)
        >>> values = stream.compute()
        >>> low, high = values.bounds["auroc"]
        >>> low <= values.auroc <= high
        True
    """

    def __init__(self, exact: bool = False) -> None:
        self.exact = exact
        self._scores: list[Tensor] = []
        self._is_ood: list[Tensor] = []
        self._counts: Tensor | None = None

    def update(self, scores: Tensor, is_ood: Tensor) -> None:
        """Add scores of any shape, converted to float32, and ``is_ood`` (bool) of the same shape.

        Raises:
            OODDataError: A score is not finite; the message counts them.
            ValueError: Shapes differ, or ``is_ood`` is not bool.
        """
        if scores.shape != is_ood.shape or is_ood.dtype != torch.bool:
            raise ValueError(
                f"scores and is_ood (bool) must have the same shape, got {tuple(scores.shape)} and "
                f"{tuple(is_ood.shape)} {is_ood.dtype}"
            )
        scores = scores.detach().reshape(-1).to("cpu", torch.float32)
        is_ood = is_ood.detach().reshape(-1).cpu()
        check_finite(scores)
        if self.exact:
            self._scores.append(scores.clone())
            self._is_ood.append(is_ood.clone())
            return
        # Adding 0.0 puts -0.0 into the bin of 0.0.
        bits = (scores + 0.0).view(torch.int32)
        # Bits order positive numbers upward and negative numbers downward.
        ordered = torch.where(bits < 0, ~bits, bits | torch.iinfo(torch.int32).min)
        bins = (ordered >> (32 - _BITS)) & (2**_BITS - 1)
        places = bins.long().mul_(2).add_(is_ood)
        self._bin_counts().scatter_add_(
            0, places, torch.ones(1, dtype=torch.int64).expand_as(places)
        )

    def merge(self, other: StreamingOODMetrics) -> None:
        """Add the samples of ``other``, such as those of another process; both are exact or not."""
        if self.exact != other.exact:
            raise ValueError("an exact and a binned stream cannot be merged")
        self._scores += other._scores
        self._is_ood += other._is_ood
        if other._counts is not None:
            self._bin_counts().add_(other._counts)

    def compute(self) -> OODValues:
        """Metrics of all samples so far; OODDataError without OOD or without ID samples."""
        if self.exact:
            if not self._scores:
                check_kinds(0, 0)
            return values_of(score_curve(torch.cat(self._scores), torch.cat(self._is_ood)))
        counts = self._bin_counts().view(-1, 2)
        # Descending, without empty bins.
        bins = counts.sum(1).nonzero()[:, 0].flip(0)
        in_id, in_ood = counts[bins].double().unbind(1)
        check_kinds(int(in_ood.sum()), int(in_id.sum()))
        curve = ScoreCurve(_lower_edges(bins), in_ood.cumsum(0), in_id.cumsum(0))
        return values_of(curve, bounds=_bounds(curve, in_ood, in_id))

    def __getstate__(self) -> dict:
        # Most bins are empty: only the others are sent between processes.
        state = dict(self.__dict__)
        if self._counts is not None:
            places = self._counts.nonzero()[:, 0]
            state["_counts"] = (places, self._counts[places])
        return state

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if self._counts is not None:
            places, values = self._counts
            self._counts = None
            self._bin_counts()[places] = values

    def _bin_counts(self) -> Tensor:
        if self._counts is None:
            self._counts = torch.zeros(2 * 2**_BITS, dtype=torch.int64)
        return self._counts


def _lower_edges(bins: Tensor) -> Tensor:
    """The lowest float32 number of each bin, as float64."""
    ordered = bins << (32 - _BITS)
    negative = ordered < 2**31
    # The inverse of the order in `update`; the lowest negative number of a bin ends in ones.
    bits = torch.where(negative, 2**32 - 1 - ordered, ordered - 2**31)
    bits = torch.where(bits >= 2**31, bits - 2**32, bits)
    return bits.to(torch.int32).view(torch.float32).double()


def _bounds(curve: ScoreCurve, in_ood: Tensor, in_id: Tensor) -> dict[str, tuple[float, float]]:
    ood, num_id = curve.total_positives, curve.total_negatives
    half = float(torch.dot(in_ood, in_id)) / 2 / (ood * num_id)
    auroc = curve.auroc()
    backwards = curve.reversed()
    flipped = (in_ood.flip(0), in_id.flip(0))
    return {
        "auroc": (auroc - half, auroc + half),
        "ap_out": _ap_bounds(curve, in_ood, in_id),
        "ap_in": _ap_bounds(backwards, flipped[1], flipped[0]),
        "fpr95_ood": _fpr_bounds(curve, in_id),
        "fpr95_id": _fpr_bounds(backwards, flipped[0]),
    }


def _ap_bounds(curve: ScoreCurve, positives: Tensor, negatives: Tensor) -> tuple[float, float]:
    """AP with the negatives of each bin first, and with its positives first and tied."""
    found, alarms = curve.positives - positives, curve.negatives
    # Sum over i = 1 ... positives of (found + i) / (found + i + alarms).
    start = found + alarms + 1
    low = positives - alarms * (torch.digamma(start + positives) - torch.digamma(start))
    # All positives of a tie get the precision behind the last of them.
    high = positives * curve.positives / (curve.positives + alarms - negatives)
    total = curve.total_positives
    return float(low.sum()) / total, float(high.nan_to_num(0).sum()) / total


def _fpr_bounds(curve: ScoreCurve, negatives: Tensor) -> tuple[float, float]:
    """The threshold lies in the bin that reaches the TPR."""
    first = curve._first(0.95)
    high = float(curve.negatives[first])
    return (high - float(negatives[first])) / curve.total_negatives, high / curve.total_negatives
