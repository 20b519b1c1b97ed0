"""What an audit needs of a task: scores of labels, and scores of errors planted among them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from negvision.audit.calibration import Calibration
from negvision.audit.history import mine_bad_pairs
from negvision.data.sample_history import SampleHistory
from negvision.data.suspects import Suspect

# Labels are suspects from this probability or, where there is none, from this score.
LIKELY, SUSPICIOUS = 0.3, 0.5
# The share of labels that errors are planted in, again and again until there are so many; the
# same few labels again and again would tell nothing.
SHARE, _ENOUGH, _MOST_ROUNDS, _FEWEST = 0.1, 200, 10, 50


@dataclass(frozen=True)
class Findings:
    """The scores of one kind of error.

    Attributes:
        kind: One of :data:`negvision.data.suspects.KINDS`.
        scores: (N,), higher is more suspicious, of all labels; or of all objects without a label.
        suspect: From a row to the suspect, without its score.
        planted: (P,) scores of errors planted among the labels.
        probability: (N,) that they are errors, where the method says so itself; else None.
        losses: (N,) of the model, where they compare with those of its training; else None.
    """

    kind: str
    scores: np.ndarray
    suspect: Callable[[int], Suspect]
    planted: np.ndarray = field(default_factory=lambda: np.zeros(0))
    probability: np.ndarray | None = None
    losses: np.ndarray | None = None


def planting(count: int, seed: int) -> Iterator[np.random.Generator]:
    """A random generator for each round that plants errors among ``count`` labels.

    None for fewer than 50 labels.
    """
    rounds = min(math.ceil(_ENOUGH / max(SHARE * count, 1)), _MOST_ROUNDS)
    for one in range(rounds if count >= _FEWEST else 0):
        yield np.random.default_rng([seed, one])


def chosen(rows: np.ndarray, random: np.random.Generator, share: float = SHARE) -> np.ndarray:
    """A share of the rows, at least one if there are any, ascending."""
    count = min(len(rows), max(round(share * len(rows)), 1))
    return np.sort(random.choice(rows, count, replace=False))


@dataclass
class Audit:
    """The suspects of some findings, and how their probabilities were found."""

    suspects: list[Suspect] = field(default_factory=list)
    calibration: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, findings: Sequence[Findings], likely: float = LIKELY) -> Audit:
        """Keep what is wrong with a probability of ``likely`` or more.

        Without enough planted errors for a probability, those with a score of 0.5 or more stay.
        """
        audit = cls()
        for found in findings:
            known, fit = found.probability, None
            if known is None and (fit := Calibration.fit(found.planted, found.scores)) is not None:
                audit.calibration[found.kind] = fit.as_dict()
                known = np.where(found.scores > 0, fit.apply(found.scores), 0)
            keeps = found.scores >= SUSPICIOUS if known is None else known >= likely
            for row in np.flatnonzero(keeps).tolist():
                probability = None if known is None else round(float(known[row]), 4)
                score = round(float(found.scores[row]), 4)
                audit.suspects.append(
                    replace(found.suspect(row), score=score, probability=probability)
                )
        return audit


def by_history(found: Findings, history: SampleHistory, classes: Sequence[str]) -> Findings:
    """The same labels, scored by their losses in a training instead.

    The score is the distance from the mean loss in standard deviations, the probability one minus
    the weight that Dynamic Bad Pair Mining gives: 0 up to two deviations, and below the mean.
    Losses of the model itself, after the training, count as much as all those before.
    """
    ids, _, losses = history.table("loss")
    place = {one: row for row, one in enumerate(ids.tolist())}
    own = [found.suspect(row) for row in range(len(found.scores))]
    rows = np.array([place.get(one.annotation, -1) for one in own], np.int64)
    if found.losses is not None and len(losses):
        last = np.full_like(losses, np.nan)
        known = np.isfinite(losses)
        last[rows[rows >= 0]] = found.losses[rows >= 0, None]
        losses = np.concatenate([losses, np.where(known, last, np.nan)], 1)
    pairs = mine_bad_pairs(losses)
    # Of an annotation that the training never saw, nothing is known.
    deviation, weight = (np.append(one, last) for one, last in zip(pairs[::2], (0, 1), strict=True))
    scores = np.nan_to_num(deviation[rows])
    order = np.argsort(history.epoch, kind="stable")
    rivals = dict(zip(history.annotation[order].tolist(), history.other_class[order], strict=True))

    def suspect(row: int) -> Suspect:
        one, rival = own[row], rivals.get(own[row].annotation, -1)
        known = 0 <= rival < len(classes)
        reason = f"its loss in training is {scores[row]:.1f} standard deviations above the mean"
        return replace(one, proposed=classes[rival] if known else one.proposed, reason=reason)

    wrong = np.where(scores > 0, 1 - weight[rows], 0)
    return Findings(found.kind, scores, suspect, probability=wrong)
