"""The figures of a set of scored pairs, as a mapping and as a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from negvision.face.metrics.roc import OperatingPoint, RocCurve, roc_curve
from negvision.face.metrics.verification import FoldAccuracy


class PairReport:
    """What the scores of positive and negative pairs tell.

    Args:
        scores: Shape (P,).
        same: Shape (P,), bool, with pairs of both kinds.
        fars: The limits of FAR to give TAR at.

    Attributes:
        curve: The ROC.
        points: An :class:`OperatingPoint` for each of ``fars``.
        moments: Mean and standard deviation of the scores of positive and of negative pairs.
    """

    def __init__(self, scores: np.ndarray, same: np.ndarray, fars: Sequence[float]) -> None:
        self.curve: RocCurve = roc_curve(scores, same)
        self.points = [self.curve.at_far(far) for far in fars]
        self.moments = {}
        for name, kind in (("positive", True), ("negative", False)):
            chosen = scores[same == kind]
            self.moments[name] = (
                float(chosen.mean(dtype=np.float64)),
                float(chosen.std(dtype=np.float64)),
            )

    def figures(self) -> dict[str, float]:
        """Scalars by name; no entry for a FAR that the pairs cannot support."""
        figures: dict[str, float] = {
            "auc": self.curve.auc(),
            "eer": self.curve.equal_error_rate(),
            "overlap": self.curve.overlap(),
        }
        for name, (mean, std) in self.moments.items():
            figures[f"{name}_mean"], figures[f"{name}_std"] = mean, std
        figures.update(point_figures("tar@far", self.points))
        figures["positive_pairs"] = self.curve.positives
        figures["negative_pairs"] = self.curve.negatives
        return figures

    def table(self) -> str:
        """Lines without a trailing newline."""
        lines = [
            f"AUC {self.curve.auc():.6f}   EER {self.curve.equal_error_rate():.4f}   "
            f"overlap {self.curve.overlap():.4f}",
            "",
            f"{'scores':<10}{'pairs':>12}{'mean':>10}{'std':>10}",
        ]
        counts = {"positive": self.curve.positives, "negative": self.curve.negatives}
        for name, (mean, std) in self.moments.items():
            lines.append(f"{name:<10}{counts[name]:>12,}{mean:>10.4f}{std:>10.4f}")
        lines += ["", *point_lines("FAR", "TAR", "negative pairs", self.points)]
        return "\n".join(lines)


def accuracy_figures(accuracy: FoldAccuracy | None) -> dict[str, float]:
    """Scalars by name; none without folds, no threshold where one of a fold is infinite."""
    if accuracy is None:
        return {}
    figures = {
        "accuracy": accuracy.mean,
        "accuracy_std": accuracy.std,
        "accuracy_stderr": accuracy.standard_error,
    }
    if np.isfinite(accuracy.thresholds).all():
        figures["threshold"] = float(accuracy.thresholds.mean())
    return figures


def accuracy_line(accuracy: FoldAccuracy | None, obstacle: str) -> str:
    """One line; a dash with the reason where there are no folds."""
    if accuracy is None:
        return f"accuracy -  ({obstacle})"
    low, high = accuracy.thresholds.min(), accuracy.thresholds.max()
    return (
        f"accuracy {accuracy.mean:.4f}   std {accuracy.std:.4f}   standard error "
        f"{accuracy.standard_error:.4f}   ({len(accuracy.accuracies)} folds, thresholds "
        f"{low:.4f} to {high:.4f})"
    )


def point_figures(name: str, points: Sequence[OperatingPoint]) -> dict[str, float]:
    """``name=1e-2`` and so on, of the points that have a rate."""
    return {
        f"{name}={power(point.limit)}": point.rate for point in points if point.rate is not None
    }


def point_lines(
    limit: str, rate: str, negatives: str, points: Sequence[OperatingPoint]
) -> list[str]:
    """A line a point, under a head; a dash with the reason where there is no rate."""
    lines = [f"{limit:<8}{rate:>8}{'threshold':>12}  accepted {negatives}"]
    for point in points:
        head = f"{power(point.limit):<8}"
        if point.rate is None:
            # The least integer that 1 / n <= limit holds for.
            needed = round(1 / point.limit)
            needed += 1 / needed > point.limit
            reason = f"{point.negatives:,}; needs {needed:,}"
            lines.append(f"{head}{'-':>8}{'-':>12}  - of {reason}")
        else:
            lines.append(
                f"{head}{point.rate:>8.4f}{point.threshold:>12.4f}  "
                f"{point.accepted:,} of {point.negatives:,}"
            )
    return lines


def power(limit: float) -> str:
    """A limit as it is written in keys.

    Example:
        >>> power(0.01), power(2.5e-4)
        ('1e-2', '2.5e-4')
    """
    digits, exponent = f"{limit:e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"
