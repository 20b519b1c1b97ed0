"""A threshold that says "unknown": chosen on in-distribution scores, kept with the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from torch import Tensor, nn

from negvision.errors import CheckpointError, OODDataError
from negvision.ood.curve import check_finite


@dataclass(frozen=True)
class OODThreshold:
    """A calibrated threshold: unknown is what scores above ``value``.

    Attributes:
        value: The threshold.
        score: Name of the score, of :data:`negvision.ood.scores.SCORE_NAMES`.
        tpr: Share of ID samples that it was chosen to keep, in (0, 1].
        num_samples: ID samples that it was chosen on.
        min_score: Boxes below this class score took no part; 0 for pixels and images.
    """

    value: float
    score: str
    tpr: float
    num_samples: int
    min_score: float = 0.0

    def as_meta(self) -> dict:
        """Plain values, as checkpoints hold them under ``meta["ood"]``."""
        return asdict(self)

    @classmethod
    def of_checkpoint(cls, checkpoint: Mapping, path: str = "the checkpoint") -> OODThreshold:
        """Read the threshold of a loaded checkpoint.

        Raises:
            CheckpointError: It has none, or one that is malformed.
        """
        meta = (checkpoint.get("meta") or {}).get("ood")
        if meta is None:
            raise CheckpointError(
                f"{path} has no OOD threshold. Choose one with\n"
                "  python tools/calibrate_ood.py CONFIG CHECKPOINT --tpr 0.95\n"
                "and use the checkpoint that it writes"
            )
        try:
            threshold = cls(**meta)
            finite = math.isfinite(threshold.value)
        except TypeError:
            finite = False
        if not finite:
            raise CheckpointError(
                f"{path}: its OOD threshold is malformed: {meta!r}. Choose it anew with "
                "tools/calibrate_ood.py"
            )
        return threshold


def threshold_at_tpr(id_scores: Tensor, tpr: float = 0.95) -> float:
    """A threshold that at least ``tpr`` of the ID samples score no higher than, and few more.

    It lies midway between the least score for which that holds and the next higher one: on the
    score itself, the rounding of another batch size would decide about its sample.

    Args:
        id_scores: Shape (N,), of in-distribution samples; higher is more OOD.
        tpr: Share to keep, in (0, 1].

    Raises:
        OODDataError: There is no score, or one is not finite.
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
            "a threshold needs in-distribution scores, and there is none: nothing was predicted on "
            "the in-distribution images. Is the checkpoint trained?"
        )
    check_finite(id_scores)
    ordered = id_scores.flatten().sort().values
    # Rounded before ceil: 0.95 * 100 is a little more than 95.
    place = max(math.ceil(round(tpr * len(ordered), 9)), 1) - 1
    higher = ordered[ordered > ordered[place]].double()
    return float(ordered[place] if not len(higher) else (ordered[place].double() + higher[0]) / 2)


def set_threshold(model: nn.Module, threshold: OODThreshold) -> int:
    """Give ``threshold`` to every head of ``model`` that marks what is unknown; their number.

    Such a module has the attributes ``ood_threshold`` (None or a float) and ``score`` (the name of
    its score).

    Raises:
        CheckpointError: A head computes another score than the one that was calibrated.
    """
    heads = [module for module in model.modules() if hasattr(module, "ood_threshold")]
    for head in heads:
        if head.score != threshold.score:
            raise CheckpointError(
                f"the threshold was calibrated for the score {threshold.score!r}, and the config's "
                f"model computes {head.score!r}: calibrate anew with tools/calibrate_ood.py"
            )
        head.ood_threshold = threshold.value
    return len(heads)
