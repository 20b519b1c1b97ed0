"""A threshold above which samples are unknown: chosen on ID scores, stored in checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from negvision.errors import CheckpointError, OODDataError
from negvision.ood.curve import check_finite


@dataclass(frozen=True)
class OODThreshold:
    """A calibrated threshold: samples that score above ``value`` are unknown.

    Attributes:
        value: The threshold.
        score: Name of the score, one of :data:`negvision.ood.SCORE_NAMES`.
        tpr: Share of ID samples that it keeps, in (0, 1].
        num_samples: Number of ID samples it was chosen on.
        min_score: Boxes below this class score were left out; 0 for pixels and images.
        quantiles: Scores of these samples at evenly spaced ranks from the lowest to the highest, so
            that other scores can be shown as percentiles; empty if unknown.
    """

    value: float
    score: str
    tpr: float
    num_samples: int
    min_score: float = 0.0
    quantiles: tuple[float, ...] = ()

    def as_meta(self) -> dict:
        """Plain values, stored in checkpoints under ``meta["ood"]``."""
        return asdict(self)

    @classmethod
    def of_checkpoint(cls, checkpoint: Mapping, path: str = "the checkpoint") -> OODThreshold:
        """Read the threshold of a loaded checkpoint.

        Raises:
            CheckpointError: It has none, or a malformed one.
        """
        meta = (checkpoint.get("meta") or {}).get("ood")
        if meta is None:
            raise CheckpointError(
                f"{path} has no OOD threshold. Calibrate one with\n"
                "  negvision calibrate-ood CONFIG CHECKPOINT --tpr 0.95\n"
                "and use the checkpoint it writes"
            )
        try:
            threshold = cls(**meta)
            # Safetensors files and JSON hold a list.
            threshold = replace(threshold, quantiles=tuple(threshold.quantiles))
            finite = all(map(math.isfinite, (threshold.value, *threshold.quantiles)))
        except TypeError:
            finite = False
        if not finite:
            raise CheckpointError(
                f"{path}: its OOD threshold is malformed: {meta!r}. Recalibrate with negvision "
                "calibrate-ood"
            )
        return threshold


def quantiles_of(scores: Tensor, count: int = 101) -> tuple[float, ...]:
    """Scores at ``count`` evenly spaced ranks, interpolated linearly.

    Args:
        scores: Shape (N,), at least one, finite.
        count: At least 2: the lowest and the highest.

    Example:
        >>> import torch
        >>> quantiles_of(torch.tensor([3.0, 1.0, 2.0]), 5)
        (1.0, 1.5, 2.0, 2.5, 3.0)
    """
    # torch.quantile takes no more than 16 million.
    ordered = scores.flatten().double().sort().values
    places = torch.linspace(0, len(ordered) - 1, count, dtype=torch.float64)
    low = places.floor().long()
    step = ordered[(low + 1).clamp(max=len(ordered) - 1)] - ordered[low]
    return tuple((ordered[low] + (places - low) * step).tolist())


def threshold_at_tpr(id_scores: Tensor, tpr: float = 0.95) -> float:
    """A threshold that keeps at least ``tpr`` of the ID samples, and few more.

    It lies midway between the score that is just kept and the next higher one. On the score
    itself, the rounding of another batch size could flip that sample.

    Args:
        id_scores: Shape (N,), scores of in-distribution samples; higher is more OOD.
        tpr: Share to keep, in (0, 1].

    Raises:
        OODDataError: There are no scores, or one is not finite.
        ValueError: ``tpr`` is out of its range.

    Example:
        >>> import torch
        >>> threshold_at_tpr(torch.arange(1.0, 101.0), 0.95)
        95.5
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must be above 0 and at most 1, got {tpr}")
    if not id_scores.numel():
        raise OODDataError(
            "a threshold needs in-distribution scores, but nothing was predicted on the "
            "in-distribution images. Is the checkpoint trained?"
        )
    check_finite(id_scores)
    ordered = id_scores.flatten().sort().values
    # Rounded before ceil: 0.95 * 100 is slightly above 95.
    place = max(math.ceil(round(tpr * len(ordered), 9)), 1) - 1
    higher = ordered[ordered > ordered[place]].double()
    return float(ordered[place] if not len(higher) else (ordered[place].double() + higher[0]) / 2)


def set_threshold(model: nn.Module, threshold: OODThreshold) -> int:
    """Set ``threshold`` on every OOD head of ``model`` and return the number of heads.

    OOD heads have the attributes ``ood_threshold`` (None or a float) and ``score`` (a score name).

    Raises:
        CheckpointError: A head computes another score than the calibrated one.
    """
    heads: list[Any] = [m for m in model.modules() if hasattr(m, "ood_threshold")]
    for head in heads:
        if head.score != threshold.score:
            raise CheckpointError(
                f"the threshold was calibrated for the score {threshold.score!r}, but the model of "
                f"the config computes {head.score!r}. Recalibrate with negvision calibrate-ood, or "
                "use the checkpoint without a config"
            )
        head.ood_threshold = threshold.value
    return len(heads)
