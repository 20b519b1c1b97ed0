"""The score from which boxes are shown: chosen on the validation set, stored with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from negvision.errors import CheckpointError

_KEY = "score_threshold"


@dataclass(frozen=True)
class ScoreThreshold:
    """A score from which boxes are shown.

    Attributes:
        value: In [0, 1].
        f1: F1 on the validation set at this threshold, the best of all; None if it was not chosen
            that way.
        given: Whether the user gave it.

    Example:
        >>> print(ScoreThreshold(0.375, 0.8125))
        0.375 (best F1 on the validation set: 0.812)
    """

    value: float
    f1: float | None = None
    given: bool = False

    @property
    def source(self) -> str:
        """Where the value comes from."""
        if self.given:
            return "as given"
        if self.f1 is None:
            return "fixed, since the model has none of its own"
        return f"best F1 on the validation set: {self.f1:.3f}"

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.source})"

    def as_meta(self) -> dict[str, dict[str, float | None]]:
        """What a checkpoint stores in its ``meta``."""
        return {_KEY: {"value": self.value, "f1": self.f1}}

    @classmethod
    def of_meta(cls, meta: Mapping[str, Any], path: str) -> ScoreThreshold | None:
        """The threshold in the ``meta`` of a checkpoint, if there is one.

        Raises:
            CheckpointError: It is malformed; ``path`` is named.
        """
        found = meta.get(_KEY)
        if found is None:
            return None
        try:
            value, f1 = float(found["value"]), float(found["f1"])
        except (TypeError, KeyError, ValueError):
            value = f1 = -1.0
        if not (0 <= value <= 1 and 0 <= f1 <= 1):
            raise CheckpointError(
                f"{path}: its score threshold is malformed: {found!r}. Evaluate the model in a "
                "training again, or take another checkpoint"
            )
        return cls(value, f1)


# For models that have none of their own.
FIXED = ScoreThreshold(0.3)


def shown_from(given: float | None, stored: ScoreThreshold | None) -> ScoreThreshold:
    """The threshold in use: what the user gave, what the model stores, or 0.3."""
    if given is not None:
        return ScoreThreshold(given, given=True)
    return stored or FIXED
