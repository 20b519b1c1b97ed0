"""The metrics of a set of scored pairs, as a mapping and as a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from negvision.face.metrics.roc import RocCurve, point_lines, point_values, roc_curve


class PairReport:
    """Metrics of the scores of positive and negative pairs.

    Args:
        scores: Shape (P,).
        same: Shape (P,), bool, with pairs of both kinds.
        fars: The limits of FAR to report TAR at.

    Attributes:
        curve: The ROC.
        points: An :class:`negvision.face.metrics.roc.OperatingPoint` for each of ``fars``.
        moments: Mean and standard deviation of the scores of positive and of negative pairs.
    """

    def __init__(self, scores: np.ndarray, same: np.ndarray, fars: Sequence[float]) -> None:
        self.curve: RocCurve = roc_curve(scores, same)
        self.points = [self.curve.at_far(far) for far in fars]
        self.moments = {
            name: (float(chosen.mean(dtype=np.float64)), float(chosen.std(dtype=np.float64)))
            for name, chosen in (("positive", scores[same]), ("negative", scores[~same]))
        }

    def values(self) -> dict[str, float]:
        """Scalars by name; no entry for a FAR with too few pairs."""
        values: dict[str, float] = {
            "auc": self.curve.auroc(),
            "eer": self.curve.equal_error_rate(),
            "overlap": self.curve.overlap(),
        }
        for name, (mean, std) in self.moments.items():
            values[f"{name}_mean"], values[f"{name}_std"] = mean, std
        values.update(point_values("tar@far", self.points))
        values["positive_pairs"] = int(self.curve.total_positives)
        values["negative_pairs"] = int(self.curve.total_negatives)
        return values

    def table(self) -> str:
        """Lines without a trailing newline."""
        values = self.values()
        lines = [
            f"AUC {values['auc']:.6f}   EER {values['eer']:.4f}   overlap {values['overlap']:.4f}",
            "",
            f"{'scores':<10}{'pairs':>12}{'mean':>10}{'std':>10}",
        ]
        for name, (mean, std) in self.moments.items():
            lines.append(f"{name:<10}{values[f'{name}_pairs']:>12,}{mean:>10.4f}{std:>10.4f}")
        return "\n".join([*lines, "", *point_lines("FAR", "TAR", "negative pairs", self.points)])
