"""The receiver operating characteristic of similarity scores, exact even if scores tie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.logging import print_log

from negvision.engine.metrics import log_folder
from negvision.ood.curve import ScoreCurve, cumulative_weights

_PLOT_SUFFIXES = (".png", ".pdf", ".svg")


class OperatingPoint(NamedTuple):
    """The best that a verifier achieves while it accepts few negatives.

    With too few negatives for the limit, ``rate``, ``threshold`` and ``accepted`` are None.
    """

    limit: float  # share of negatives that may be accepted: FAR of pairs, FPIR of probes
    rate: float | None  # share of positives accepted then (TAR, DIR)
    threshold: float | None  # scores of at least this are accepted; infinite if nothing is
    accepted: int | None  # negatives accepted at the threshold
    negatives: int  # all of them


class RocCurve(ScoreCurve):
    """How many pairs of each kind are accepted at every threshold that makes a difference.

    Positives are genuine pairs. A pair is accepted if its score is at least the threshold, so that
    pairs of equal score enter together.
    """

    @property
    def tar(self) -> np.ndarray:
        """Shape (1 + V,): true accept rate (TPR), first of no pair, then at each threshold."""
        return np.append(0, (self.positives / self.positives[-1]).numpy())

    @property
    def far(self) -> np.ndarray:
        """Shape (1 + V,): false accept rate (FPR), first of no pair, then at each threshold."""
        return np.append(0, (self.negatives / self.negatives[-1]).numpy())

    def equal_error_rate(self) -> float:
        """The error rate where FAR = 1 - TAR, on the straight line between neighboring points.

        A line between points stands for a random choice among pairs of equal score.
        """
        far = self.far
        gap = 1 - self.tar - far
        # Strictly decreasing from 1 to -1: each step accepts at least one more pair.
        after = int(np.argmax(gap <= 0))
        before = after - 1
        share = gap[before] / (gap[before] - gap[after])
        return float(far[before] + share * (far[after] - far[before]))

    def overlap(self) -> float:
        """Overlap of the scores of positive and negative pairs, in [0, 1], without bins.

        One minus Youden's J, 1 - max over thresholds of (TAR - FAR): the smallest sum of the two
        error rates at any threshold. 0 if a threshold separates all pairs, 1 if none is better
        than chance.

        Source: Youden, "Index for rating diagnostic tests", Cancer 3, 1950.
        """
        # In whole numbers, so that equal distributions overlap by exactly 1.
        ahead = self.positives * self.total_negatives - self.negatives * self.total_positives
        return 1 - max(float(ahead.max()), 0) / (self.total_positives * self.total_negatives)

    def at_far(self, far: float) -> OperatingPoint:
        """The largest TAR of a threshold whose FAR is at most ``far``.

        At least 1 / ``far`` negative pairs are needed, so that one false accept is allowed; with
        fewer, ``rate`` is None. ``far`` must be in (0, 1).
        """
        if not 0 < far < 1:
            raise ValueError(f"far must be between 0 and 1, got {far!r}")
        negatives = int(self.total_negatives)
        if 1 / negatives > far:
            return OperatingPoint(far, None, None, None, negatives)
        at = int(np.searchsorted(self.far, far, side="right")) - 2
        if at < 0:
            return OperatingPoint(far, 0.0, np.inf, 0, negatives)
        return OperatingPoint(
            far,
            float(self.positives[at]) / self.total_positives,
            float(self.thresholds[at]),
            int(self.negatives[at]),
            negatives,
        )


def roc_curve(scores: np.ndarray, same: np.ndarray) -> RocCurve:
    """Count the pairs accepted at every distinct score.

    ``scores`` (P,) are finite or -inf, higher is more alike; ``same`` (P,) marks positive pairs.
    Raises ``ValueError`` for different shapes, a NaN score, or pairs of one kind.

    Example:
        >>> curve = roc_curve(np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False]))
        >>> curve.thresholds.tolist(), curve.positives.tolist(), curve.negatives.tolist()
        ([0.9, 0.4, 0.1], [1.0, 2.0, 2.0], [0.0, 1.0, 2.0])
        >>> curve.auroc(), curve.equal_error_rate(), curve.overlap(), curve.at_far(0.5).rate
        (0.875, 0.25, 0.5, 1.0)
    """
    scores, same = np.ascontiguousarray(scores), np.ascontiguousarray(same, dtype=bool)
    if scores.ndim != 1 or scores.shape != same.shape:
        raise ValueError(f"scores {scores.shape} and same {same.shape} must both be (P,)")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum()):,} of {len(scores):,} scores are NaN")
    if same.all() or not same.any():
        raise ValueError(
            f"needs pairs of both kinds, got {int(same.sum()):,} positive and "
            f"{int((~same).sum()):,} negative"
        )
    return RocCurve(*cumulative_weights(torch.from_numpy(scores), torch.from_numpy(same)))


def checked_limits(name: str, limits: float | Iterable[float]) -> tuple[float, ...]:
    """The limits of an argument, each in (0, 1), in descending order without duplicates."""
    values = [limits] if isinstance(limits, int | float) else list(limits)
    if not all(isinstance(value, int | float) and 0 < value < 1 for value in values):
        raise ValueError(f"{name} must be numbers between 0 and 1, got {limits!r}")
    return tuple(sorted(set(map(float, values)), reverse=True))


def power(limit: float) -> str:
    """A limit as it is written in keys.

    Example:
        >>> power(0.01), power(2.5e-4)
        ('1e-2', '2.5e-4')
    """
    digits, exponent = f"{limit:e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def point_values(name: str, points: Sequence[OperatingPoint]) -> dict[str, float]:
    """The rates of the points that have one, by ``name=1e-2`` and so on."""
    return {
        f"{name}={power(point.limit)}": point.rate for point in points if point.rate is not None
    }


def point_lines(
    limit: str, rate: str, negatives: str, points: Sequence[OperatingPoint]
) -> list[str]:
    """A header and one line per point; a dash and the reason if it has no rate."""
    lines = [f"{limit:<8}{rate:>8}{'threshold':>12}  accepted {negatives}"]
    for point in points:
        head = f"{power(point.limit):<8}"
        if point.rate is None:
            # The smallest integer n with 1 / n <= limit.
            needed = round(1 / point.limit)
            needed += 1 / needed > point.limit
            lines.append(f"{head}{'-':>8}{'-':>12}  - of {point.negatives:,}; needs {needed:,}")
        else:
            lines.append(
                f"{head}{point.rate:>8.4f}{point.threshold:>12.4f}  "
                f"{point.accepted:,} of {point.negatives:,}"
            )
    return lines


def checked_roc_file(roc_file: str | None) -> str | None:
    """``roc_file`` or None; raises ``ValueError`` for a suffix that cannot be written."""
    suffixes = (".npz", *_PLOT_SUFFIXES)
    if roc_file is not None and Path(roc_file).suffix not in suffixes:
        raise ValueError(f"roc_file must end with one of {suffixes}, got {roc_file!r}")
    return roc_file


def write_roc(curve: RocCurve, roc_file: str, title: str) -> None:
    """Write the corners of a curve: arrays ``far``, ``tar`` and ``thresholds``, or a plot.

    ``roc_file`` ends with .npz, .png, .pdf or .svg; an existing file is replaced. A relative path
    is below the folder of the run's log file, or the current folder without a log file.
    """
    path = log_folder() / roc_file
    path.parent.mkdir(parents=True, exist_ok=True)
    corners = curve.corners()
    if path.suffix == ".npz":
        np.savez_compressed(
            path,
            far=corners.far,
            tar=corners.tar,
            thresholds=np.append(np.inf, corners.thresholds.numpy()),
            positives=curve.total_positives,
            negatives=curve.total_negatives,
        )
        print_log(f"ROC: {path}", logger="current")
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # A FAR of 0 cannot be shown on a logarithmic axis.
    left = 0.5 / corners.total_negatives
    axes.plot(np.maximum(corners.far, left), corners.tar)
    axes.set(
        xscale="log",
        xlim=(left, 1),
        ylim=(0, 1.02),
        xlabel=f"FAR ({corners.total_negatives:,.0f} negative pairs)",
        ylabel=f"TAR ({corners.total_positives:,.0f} positive pairs)",
        title=f"{title}: AUC {corners.auroc():.4f}",
    )
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    print_log(f"ROC: {path}", logger="current")


class PairReport:
    """Metrics of scores (P,) of pairs; ``same`` (P,) marks positive ones, and both kinds occur.

    ``points`` are the operating points at ``fars``, ``moments`` the mean and standard deviation of
    the scores of positive and of negative pairs.
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
