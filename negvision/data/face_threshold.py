"""The similarity from which two faces are one person: chosen on known people, kept with a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from negvision.errors import CheckpointError, DatasetError

_KEY = "face_threshold"
# The threshold rests on so many false accepts.
_FALSE_ACCEPTS = 10
_RESAMPLES = 500
_BLOCK = 1024


@dataclass(frozen=True)
class FaceThreshold:
    """A similarity from which two images are taken for one person.

    Attributes:
        value: The cosine.
        far: False accept rate that it was chosen for: share of the pairs of two people.
        low: With ``high``, its 95 % interval, by bootstrap over people.
        high: See ``low``.
        tar: Share of the pairs of one person that it accepts; None without such pairs.
        tar_low: With ``tar_high``, the interval of ``tar``.
        tar_high: See ``tar_low``.
        people: Number of people it was chosen on.
        pairs: Number of pairs of two people it was chosen on.
    """

    value: float
    far: float
    low: float
    high: float
    tar: float | None
    tar_low: float | None
    tar_high: float | None
    people: int
    pairs: int

    def __str__(self) -> str:
        return f"{self.value:.4f}, which {self.far:g} of the pairs of two people reach"

    def attempts(self, count: int) -> float:
        """The share of impostors who are accepted at least once in ``count`` attempts.

        Attempts are taken as independent.

        Example:
            >>> FaceThreshold(0.3, 1e-3, 0.2, 0.4, None, None, None, 9, 99).attempts(10)
            0.009955119790251765
        """
        return 1 - (1 - self.far) ** count

    def as_meta(self) -> dict[str, dict[str, Any]]:
        """What a checkpoint stores in its ``meta``."""
        return {_KEY: asdict(self)}

    @classmethod
    def of_meta(cls, meta: Mapping[str, Any], path: str) -> FaceThreshold | None:
        """The threshold in the ``meta`` of a checkpoint or an exported file, if there is one.

        Raises:
            CheckpointError: It is malformed; ``path`` is named.
        """
        found = meta.get(_KEY)
        if found is None:
            return None
        try:
            threshold = cls(**found)
            usable = math.isfinite(threshold.value) and 0 < threshold.far < 1
        except TypeError:
            usable = False
        if not usable:
            raise CheckpointError(
                f"{path}: its face threshold is malformed: {found!r}. Choose one again with "
                "negvision calibrate-faces"
            )
        return threshold


def choose_threshold(
    embeddings: np.ndarray, people: np.ndarray, far: float, seed: int = 0
) -> FaceThreshold:
    """The lowest threshold that at most the share ``far`` of all pairs of two people reaches.

    The interval comes from resamples of people, since pairs that share a person depend on each
    other. A person drawn n times has its pairs with a person drawn m times n m times.

    Args:
        embeddings: (N, D), of images.
        people: (N,) int64, the person on each.
        far: In (0, 1).
        seed: Of the resamples.

    Raises:
        DatasetError: There are fewer than 10 / ``far`` pairs of two people.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = choose_threshold(rng.normal(size=(200, 64)), np.arange(200) // 2, 0.01)
        >>> found.people, found.pairs, found.low <= found.value <= found.high
        (100, 19800, True)
    """
    people = np.unique(people, return_inverse=True)[1].astype(np.int64)
    counts = np.bincount(people)
    pairs = (int(counts.sum()) ** 2 - int((counts**2).sum())) // 2
    needed = math.ceil(round(_FALSE_ACCEPTS / far, 6))
    if pairs < needed:
        raise DatasetError(
            f"{len(people):,} images of {len(counts):,} people make {pairs:,} pairs of two people; "
            f"a threshold for FAR {far:g} needs {needed:,}, so that {_FALSE_ACCEPTS} are accepted. "
            "Use images of more people, or a higher --far"
        )
    accepted = int(far * pairs)
    # Of a resample, more pairs may lie above its threshold.
    kept = min(pairs, 20 * accepted + 1000)
    scores, first, second, own, owner = _scores(embeddings, people, kept)
    value = _quantile(scores, np.ones(len(scores)), far * pairs)
    rng = np.random.default_rng(seed)
    values, rates = [], []
    for _ in range(_RESAMPLES):
        times = np.bincount(rng.integers(0, len(counts), len(counts)), minlength=len(counts))
        total = ((times * counts).sum() ** 2 - ((times * counts) ** 2).sum()) / 2
        values.append(_quantile(scores, times[first] * times[second], far * total))
        if len(own) and (weight := times[owner].sum()):
            rates.append((times[owner] * (own >= value)).sum() / weight)
    low, high = np.percentile(values, [2.5, 97.5])
    tar = tar_low = tar_high = None
    if rates:
        tar = float((own >= value).mean())
        tar_low, tar_high = map(float, np.percentile(rates, [2.5, 97.5]))
    return FaceThreshold(
        value, far, float(low), float(high), tar, tar_low, tar_high, len(counts), pairs
    )


def _scores(embeddings: np.ndarray, people: np.ndarray, kept: int) -> tuple[np.ndarray, ...]:
    """The highest scores of pairs of two people, descending, with both people; and all others'."""
    vectors = np.asarray(embeddings, np.float32)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    highest = np.zeros(0, np.float32)
    pairs = np.zeros((0, 2), np.int64)
    own, owners = [], []
    for start in range(0, len(vectors), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(vectors)))
        block = vectors[rows] @ vectors[: rows[-1] + 1].T
        below = np.arange(block.shape[1]) < rows[:, None]
        same = people[rows][:, None] == people[: block.shape[1]]
        own.append(block[below & same])
        owners.append(people[rows][np.nonzero(below & same)[0]])
        at = np.nonzero(below & ~same)
        highest = np.concatenate([highest, block[at]])
        pairs = np.concatenate([pairs, np.stack([people[rows[at[0]]], people[at[1]]], axis=1)])
        if len(highest) > kept:
            best = np.argpartition(-highest, kept - 1)[:kept]
            highest, pairs = highest[best], pairs[best]
    order = np.argsort(-highest, kind="stable")
    first, second = pairs[order].T
    return highest[order], first, second, np.concatenate(own), np.concatenate(owners)


def _quantile(scores: np.ndarray, weights: np.ndarray, limit: float) -> float:
    """The lowest threshold that scores of at most the weight ``limit`` reach, between two scores.

    Args:
        scores: Descending.
        weights: Of the scores.
        limit: Weight.
    """
    total = np.cumsum(weights)
    # The first score that is one too many; equal scores are accepted together.
    beyond = int(np.searchsorted(total, limit, side="right"))
    if beyond >= len(scores):
        return float(scores[-1])
    above = scores[:beyond][scores[:beyond] > scores[beyond]]
    lower = float(scores[beyond])
    middle = (lower + float(above[-1])) / 2 if len(above) else lower
    return middle if middle > lower else float(np.nextafter(np.float32(lower), np.float32(2)))
