"""A scale for the scores of each class, which makes them probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from negvision.errors import CheckpointError

_KEY = "calibration"


@dataclass(frozen=True)
class ScoreCalibration:
    """A temperature and an offset of the logits of scores, for each class.

    A score s becomes ``sigmoid(logit(s) / T + b)``. The order within a class stays, and so does its
    AP. A temperature alone would leave 0.5 where it is, but detectors with a score of 0.5 may be
    right much more often or less.

    Attributes:
        temperatures: (K,), T above 0, by label.
        offsets: (K,), b.

    Sources: Platt, "Probabilistic Outputs for Support Vector Machines", 1999; Guo, Pleiss, Sun and
    Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.

    Example:
        >>> own = ScoreCalibration((1.0, 2.0), (0.0, 1.0))
        >>> own.apply(np.array([0.9, 0.9]), np.array([0, 1])).round(3).tolist()
        [0.9, 0.891]
    """

    temperatures: tuple[float, ...]
    offsets: tuple[float, ...]

    def apply(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The calibrated scores (N,) of detections, in the type of ``scores``.

        Scores outside 0 to 1 stay.
        """
        power = 1 / np.asarray(self.temperatures)[labels]
        inside = np.clip(scores.astype(np.float64), 0, 1)
        yes = inside**power * np.exp(np.asarray(self.offsets)[labels])
        found = yes / (yes + (1 - inside) ** power)
        return np.where((scores < 0) | (scores > 1), scores, found).astype(scores.dtype)

    def of_probabilities(self, probabilities: np.ndarray) -> np.ndarray:
        """The calibrated probabilities (..., K) of classes that exclude each other.

        Their logits are divided by the temperature of the class that is most probable, and stays
        so. Offsets do not count.

        Example:
            >>> ScoreCalibration((2.0, 1.0), (0.0, 0.0)).of_probabilities(np.array([0.8, 0.2]))
            array([0.66666667, 0.33333333])
        """
        power = 1 / np.asarray(self.temperatures)[probabilities.argmax(-1)][..., None]
        highest = probabilities.max(-1, keepdims=True)
        raised = (probabilities.astype(np.float64) / highest) ** power
        return (raised / raised.sum(-1, keepdims=True)).astype(probabilities.dtype)

    def as_meta(self) -> dict[str, dict[str, list[float]]]:
        """What a checkpoint stores in its ``meta``."""
        return {_KEY: {"temperatures": list(self.temperatures), "offsets": list(self.offsets)}}

    @classmethod
    def of_meta(cls, meta: Mapping[str, Any], path: str) -> ScoreCalibration | None:
        """The calibration in the ``meta`` of a checkpoint, if there is one.

        Raises:
            CheckpointError: It is malformed; ``path`` is named.
        """
        found = meta.get(_KEY)
        if found is None:
            return None
        try:
            columns = [tuple(map(float, found[name])) for name in ("temperatures", "offsets")]
        except (TypeError, ValueError, KeyError):
            columns = [(), ()]
        temperatures, offsets = columns
        if not (
            0 < len(temperatures) == len(offsets)
            and all(0 < value < float("inf") for value in temperatures)
            and np.isfinite(offsets).all()
        ):
            raise CheckpointError(
                f"{path}: the calibration of its scores is malformed: {found!r}. Calibrate the "
                "checkpoint again with negvision calibrate"
            )
        return cls(temperatures, offsets)
