"""The operators on negative pairs in plain PyTorch, for where no compiled kernel is at hand."""

import torch
from torch import Tensor


def negatives_logsumexp(
    similarities: Tensor,
    row_labels: Tensor,
    column_labels: Tensor,
    diagonal: int,
    bounds: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Of each row: the log-sum of its negatives, (n,), and how many they are, (n,) int64."""
    kept = _kept(similarities, row_labels, column_labels, diagonal, bounds)
    return (similarities * scale).masked_fill(~kept, -torch.inf).logsumexp(1), kept.sum(1)


def negatives_softmax_(
    similarities: Tensor,
    row_labels: Tensor,
    column_labels: Tensor,
    diagonal: int,
    bounds: Tensor | None,
    scale: float,
    logsumexp: Tensor,
    grad: Tensor,
) -> None:
    """Put the gradient of the log-sums in the place of the similarities."""
    kept = _kept(similarities, row_labels, column_labels, diagonal, bounds)
    weight = similarities.mul_(scale).sub_(logsumexp[:, None]).clamp_(max=0).exp_()
    weight.mul_(scale * grad[:, None]).masked_fill_(~kept, 0)


def negatives_histogram(
    similarities: Tensor,
    row_labels: Tensor,
    column_labels: Tensor,
    diagonal: int,
    prefixes: Tensor,
    shift: int,
) -> Tensor:
    """How often each byte stands at ``shift`` in the sortable integers that begin with a prefix."""
    kept = _kept(similarities, row_labels, column_labels, diagonal, None)
    keys = _sortable(similarities[kept])
    above = keys >> shift + 8 if shift + 8 < 64 else torch.zeros_like(keys)
    if similarities.dtype == torch.float64 and shift + 8 < 64:
        above &= (1 << (56 - shift)) - 1  # the shift of a signed integer copies its sign
    byte = keys >> shift & 255
    return torch.stack([byte[above == prefix].bincount(minlength=256) for prefix in prefixes])


def _kept(similarities, row_labels, column_labels, diagonal, bounds) -> Tensor:
    kept = row_labels[:, None] != column_labels
    kept = kept & torch.ones_like(kept).triu(diagonal + 1)
    if bounds is not None:
        kept &= ~(similarities < bounds[0]) & ~(similarities > bounds[1])
    return kept


def _sortable(values: Tensor) -> Tensor:
    if values.dtype == torch.float64:
        bits = values.view(torch.int64)
        return torch.where(bits < 0, ~bits, bits | torch.iinfo(torch.int64).min)
    bits = values.view(torch.int32).long()
    return torch.where(bits < 0, -1 - bits, bits + (1 << 31))
