"""Embeddings by sample index, and their cosine similarities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from negvision.errors import UserError

# Values of one temporary float64 array: 32 MiB.
_CHUNK_VALUES = 1 << 22


class EmbeddingError(UserError, ValueError):
    """Embeddings are missing or cannot be compared."""


class EmbeddingBatch(NamedTuple):
    """The embeddings of one batch of predictions.

    Attributes:
        sample_idx: Shape (B,), int64.
        labels: Shape (B,), int64.
        embeddings: Shape (B, D), float32.
        invalid: Sample index to image path, of the embeddings that cannot be compared.
    """

    sample_idx: np.ndarray
    labels: np.ndarray
    embeddings: np.ndarray
    invalid: dict[int, str]


class EmbeddingTable:
    """The embeddings of a data set, one per sample, in the order of the sample indices.

    A duplicate, with which samplers pad the last batch of distributed runs, is dropped: the first
    batch that has a sample counts.

    Args:
        batches: Of all ranks. Not modified.

    Raises:
        EmbeddingError: There is none, or one is NaN, infinite or zero.

    Example:
        >>> batch = EmbeddingBatch(np.array([1, 0, 1]), np.array([7, 5, 7]),
        ...                        np.array([[3, 4], [2, 0], [3, 4]], np.float32), {})
        >>> table = EmbeddingTable([batch])
        >>> table.sample_idx.tolist(), table.labels.tolist(), table.norms.tolist()
        ([0, 1], [5, 7], [2.0, 5.0])
    """

    def __init__(self, batches: Iterable[EmbeddingBatch]) -> None:
        batches = [batch for batch in batches if len(batch.sample_idx)]
        if not batches:
            raise EmbeddingError("no embedding was predicted. Is the dataset empty?")
        self.sample_idx = np.unique(np.concatenate([batch.sample_idx for batch in batches]))
        self.labels = np.empty(len(self.sample_idx), dtype=np.int64)
        self.embeddings = np.empty(
            (len(self.sample_idx), batches[0].embeddings.shape[1]), dtype=np.float32
        )
        invalid: dict[int, str] = {}
        for batch in reversed(batches):
            rows = np.searchsorted(self.sample_idx, batch.sample_idx)
            self.labels[rows] = batch.labels
            self.embeddings[rows] = batch.embeddings
            invalid.update(batch.invalid)
        self.norms = row_norms(self.embeddings)
        diverged = "Did the training diverge, or does the checkpoint not fit the model?"
        zeros = "Do the model's last layers output zeros, or were its weights not loaded?"
        for wrong, what, remedy in (
            (~np.isfinite(self.norms), "are NaN or infinite", diverged),
            (self.norms == 0, "are zero and have no direction", zeros),
        ):
            if wrong.any():
                first = int(self.sample_idx[np.argmax(wrong)])
                path = f", {invalid[first]}" if invalid.get(first) else ""
                raise EmbeddingError(
                    f"{int(wrong.sum()):,} of {len(wrong):,} embeddings {what} (the first: sample "
                    f"{first}{path}). {remedy}"
                )

    def rows_of(self, sample_idx: np.ndarray) -> np.ndarray:
        """The rows of samples; raises ``EmbeddingError`` if one has no embedding."""
        sample_idx = np.asarray(sample_idx)
        rows = np.searchsorted(self.sample_idx, sample_idx)
        rows = np.minimum(rows, len(self.sample_idx) - 1)
        missing = np.unique(sample_idx[self.sample_idx[rows] != sample_idx])
        if len(missing):
            raise EmbeddingError(
                f"{len(missing):,} of the {len(np.unique(sample_idx)):,} samples to compare were "
                f"not predicted (the first: sample {missing[0]}). The dataloader must visit every "
                "sample of the dataset whose metainfo the metric has."
            )
        return rows


def row_norms(embeddings: np.ndarray) -> np.ndarray:
    """Euclidean length of each row, (N,) float64; NaN or infinite if the row is."""
    norms = np.empty(len(embeddings))
    for part in chunks(len(embeddings), embeddings.shape[1]):
        norms[part] = np.sqrt(np.square(embeddings[part], dtype=np.float64).sum(axis=1))
    return norms


def cosine_similarities(
    embeddings: np.ndarray, pairs: np.ndarray, norms: np.ndarray | None = None
) -> np.ndarray:
    """Cosine similarity of pairs (P, 2) of rows: (P,), float32, computed in float64.

    Rounding ties scores that differ only by the order of the arithmetic. A pair's score depends
    only on its two rows, not on the other pairs or on which row comes first. ``embeddings`` (N, D)
    are finite, without zero rows; ``norms`` (N,) are those of :func:`row_norms`, if known.

    Example:
        >>> vectors = np.array([[1.0, 0.0], [3.0, 4.0], [-2.0, 0.0]])
        >>> cosine_similarities(vectors, np.array([[0, 1], [1, 0], [0, 2]])).tolist()
        [0.6000000238418579, 0.6000000238418579, -1.0]
    """
    norms = row_norms(embeddings) if norms is None else norms
    scores = np.empty(len(pairs), dtype=np.float32)
    for part in chunks(len(pairs), embeddings.shape[1]):
        first, second = pairs[part].T
        products = np.multiply(embeddings[first], embeddings[second], dtype=np.float64)
        scores[part] = products.sum(axis=1) / (norms[first] * norms[second])
    return scores


def chunks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of ``rows`` rows that take at most about 32 MiB each as float64."""
    step = max(1, _CHUNK_VALUES // max(columns, 1))
    for start in range(0, rows, step):
        yield slice(start, start + step)
