"""Similarities of the positive and negative pairs of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from negvision.ops import pair_logsumexp

# Bins of a histogram, from cosine -1 to 1.
BINS = 100
# Of larger batches, the first samples are measured; of more classes, evenly spread ones.
MAX_SAMPLES = MAX_CENTERS = 2048


@dataclass
class PairScores:
    """Cosine similarities of a batch by kind of pair, each ascending, and the whiskers."""

    own_center: Tensor  # samples with the center of their own class
    positive: Tensor  # pairs of samples of the same class, each once
    center_negative: Tensor  # samples with the centers of other classes
    metric_negative: Tensor  # pairs of samples of different classes, each once
    bounds: tuple[float, ...] | None  # ends of the whiskers of metric_negative; None without a pair
    filtered_share: float | None  # of metric_negative beyond them, in [0, 1]

    KINDS = ("own_center", "positive", "center_negative", "metric_negative")

    def scalars(self) -> dict[str, float]:
        """Metrics by name; those that need a kind of pair that the batch lacks are left out.

        ``gap`` is the 5th percentile of the cosines with the own center minus the higher of the
        95th percentiles of both kinds of negatives: what the loss acts on. ``metric_gap`` is the
        5th percentile of the positive pairs minus the 95th of the metric negatives: what
        verification will see. A percentile p is the smallest value that at least p percent do not
        exceed.
        """
        found: dict[str, float] = {}
        for kind in self.KINDS:
            values = getattr(self, kind)
            if len(values):
                found[f"{kind}_mean"] = values.mean(dtype=torch.float64).item()
                if kind.endswith("negative"):
                    found[f"{kind}_max"] = values[-1].item()
        if self.bounds is not None and self.filtered_share is not None:
            found["whisker_low"], found["whisker_high"] = self.bounds
            found["filtered_share"] = self.filtered_share
        negatives = [kind for kind in (self.center_negative, self.metric_negative) if len(kind)]
        if len(self.own_center) and negatives:
            highest = max(_percentile(values, 95) for values in negatives)
            found["gap"] = _percentile(self.own_center, 5) - highest
        if len(self.positive) and len(self.metric_negative):
            highest = _percentile(self.metric_negative, 95)
            found["metric_gap"] = _percentile(self.positive, 5) - highest
        return found

    def histograms(self) -> dict[str, list[int]]:
        """Counts of each kind in :data:`BINS` bins of equal width from -1 to 1."""
        return {kind: _histogram(getattr(self, kind)) for kind in self.KINDS}


@torch.no_grad()
def pair_scores(
    embeddings: Tensor,
    labels: Tensor,
    centers: Tensor,
    first_class: int = 0,
    whisker: float = 1.5,
) -> PairScores:
    """Measure a batch. No random number is drawn, no gradient kept.

    Args:
        embeddings: Shape (N, D), of any norm and floating dtype. Rows that are not finite are
            left out.
        labels: Shape (N,), integer.
        centers: Shape (C, D), of any norm.
        first_class: The class of the first center, if they are a shard.
        whisker: Length of the whiskers in interquartile ranges.

    Returns:
        The similarities, float32, or float64 if the embeddings are.

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
        >>> scores = pair_scores(embeddings, torch.tensor([0, 0, 1]), torch.eye(2))
        >>> scores.positive, scores.metric_negative
        (tensor([1.]), tensor([0., 0.]))
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        embeddings = embeddings[:MAX_SAMPLES].detach()
        labels = labels[:MAX_SAMPLES].to(embeddings.device).long()
        finite = embeddings.isfinite().all(1)
        units, labels = _normalized(embeddings[finite]), labels[finite]
        own, negative = _with_centers(units, labels, centers.detach(), first_class)
        similarity = units @ units.T
        same = labels[:, None] == labels
        once = torch.ones_like(same).triu(1)
        pairs = pair_logsumexp(units, labels, 1.0, whisker)
        total = int(pairs.total)
        return PairScores(
            own_center=_ascending(own),
            positive=_ascending(similarity[same & once]),
            center_negative=_ascending(negative),
            metric_negative=_ascending(similarity[~same & once]),
            bounds=tuple(pairs.bounds.tolist()) if total else None,
            filtered_share=1 - int(pairs.kept) / total if total else None,
        )


def _with_centers(
    units: Tensor, labels: Tensor, centers: Tensor, first_class: int
) -> tuple[Tensor, Tensor]:
    rows = labels - first_class
    here = (rows >= 0) & (rows < len(centers))
    own = torch.linalg.vecdot(units[here], _normalized(centers[rows[here]]).to(units.dtype))
    count = min(len(centers), MAX_CENTERS)
    # Evenly spread, not drawn at random, which would change the training's random numbers.
    chosen = torch.arange(count, device=units.device) * len(centers) // max(1, count)
    cosines = units @ _normalized(centers[chosen]).to(units.dtype).T
    return own, cosines[rows[:, None] != chosen]


def _normalized(values: Tensor) -> Tensor:
    values = values if values.dtype == torch.float64 else values.float()
    return torch.nn.functional.normalize(values, dim=1)


def _ascending(values: Tensor) -> Tensor:
    return values[values.isfinite()].sort().values


def _percentile(ascending: Tensor, percent: int) -> float:
    # In integers, so that rounding cannot move the rank.
    return ascending[max(0, -(-len(ascending) * percent // 100) - 1)].item()


def _histogram(values: Tensor) -> list[int]:
    places = ((values + 1) * (BINS / 2)).long().clamp(0, BINS - 1)
    return torch.bincount(places, minlength=BINS).tolist()
