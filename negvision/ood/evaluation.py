"""Figures of scored samples, over all and by stratum, as a mapping and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from negvision.errors import OODDataError
from negvision.ood.metrics import FIGURES, OODMetrics, ood_metrics
from negvision.ood.records import OODRecords

_HEADS = {
    "auroc": "AUROC",
    "ap_out": "AP out",
    "ap_in": "AP in",
    "fpr95_ood": "FPR95 ood+",
    "fpr95_id": "FPR95 id+",
}
# A prevalence at which AP can be compared between sets.
REFERENCE_PREVALENCE = 0.1
_PREVALENCE_COLUMN = f"AP@{REFERENCE_PREVALENCE:g}"


@dataclass(frozen=True)
class Stratum:
    """Figures of one part of the samples.

    Attributes:
        name: Of the part.
        num_ood, num_id: Its samples.
        metrics: None where it lacks OOD or ID.
    """

    name: str
    num_ood: int
    num_id: int
    metrics: OODMetrics | None


@dataclass(frozen=True)
class OODEvaluation:
    """What the scores of an evaluation are worth.

    Attributes:
        records: The samples.
        by_score: Score to its figures, with intervals over images; the model's own first.
        strata: Kind of stratum to its parts, figures of the model's own score.
    """

    records: OODRecords
    by_score: Mapping[str, OODMetrics]
    strata: Mapping[str, Sequence[Stratum]]

    def figures(self) -> dict[str, float]:
        """Scalars by name: ``auroc`` of the own score, ``msp/auroc`` of others, and the notes."""
        figures: dict[str, float] = {}
        for number, (name, metrics) in enumerate(self.by_score.items()):
            prefix = f"{name}/" if number else ""
            figures |= {prefix + figure: value for figure, value in metrics.figures().items()}
            figures[prefix + "ap_out_at_0.1"] = metrics.ap_at(REFERENCE_PREVALENCE)
        first = next(iter(self.by_score.values()))
        figures |= {
            "prevalence": first.prevalence,
            "num_ood": first.num_ood,
            "num_id": first.num_id,
        }
        notes = self.records.notes.items()
        return figures | {key: value for key, value in notes if isinstance(value, int | float)}

    def table(self) -> str:
        """Lines for a console, without a trailing newline."""
        first = next(iter(self.by_score.values()))
        task = self.records.task
        lines = [
            f"OOD {task}: {first.num_ood:,.0f} OOD and {first.num_id:,.0f} ID on "
            f"{len(self.records.paths):,} images, prevalence {first.prevalence:.4f} (the chance "
            "level of AP out)",
            "OOD is positive and a higher score is more OOD; id+ is the same score the other way.",
        ]
        lines += [f"{key}: {_shown(value)}" for key, value in self.records.notes.items()]
        width = max(len("score"), *map(len, self.by_score))
        heads = "".join(f"{head:>12}" for head in _HEADS.values())
        lines += ["", f"{'score':<{width}}{heads}{_PREVALENCE_COLUMN:>12}"]
        for name, metrics in self.by_score.items():
            cells = "".join(f"{value:>12.4f}" for value in metrics.figures().values())
            lines.append(f"{name:<{width}}{cells}{metrics.ap_at(REFERENCE_PREVALENCE):>12.4f}")
            if metrics.intervals:
                # Two places each: an interval of a few hundred images supports no more.
                cells = "".join(
                    f"{f'{low:.2f}-{high:.2f}':>12}" for low, high in metrics.intervals.values()
                )
                lines.append(f"{'':<{width}}{cells}  95 % over images")
        for kind, parts in self.strata.items():
            lines += ["", *_stratum_lines(kind, parts)]
        return "\n".join(lines)


def evaluate_records(records: OODRecords, resamples: int = 1000) -> OODEvaluation:
    """Evaluate every score of ``records`` and the strata of the first.

    Args:
        records: The samples; samples of one image are drawn together in the bootstrap.
        resamples: Of the bootstrap.

    Raises:
        OODDataError: There is no OOD or no ID sample, or a score is not finite.
    """
    is_ood, image = torch.from_numpy(records.is_ood), torch.from_numpy(records.image)
    weights = None if records.weights is None else torch.from_numpy(records.weights)
    tensors = {name: torch.from_numpy(values) for name, values in records.scores.items()}
    by_score = {
        name: ood_metrics(scores, is_ood, image, weights, resamples=resamples)
        for name, scores in tensors.items()
    }
    own = next(iter(tensors.values()))
    strata = {}
    for kind, (names, codes) in records.strata.items():
        parts = []
        for code, name in enumerate(names):
            chosen = torch.from_numpy(codes == code)
            parts.append(
                _stratum(
                    name,
                    own[chosen],
                    is_ood[chosen],
                    None if weights is None else weights[chosen],
                )
            )
        strata[kind] = parts
    return OODEvaluation(records, by_score, strata)


def per_image_figures(records: OODRecords) -> dict[int, OODMetrics]:
    """Figures of the model's own score on each image that has OOD and ID samples."""
    own = next(iter(records.scores.values()))
    order = np.argsort(records.image, kind="stable")
    bounds = np.flatnonzero(np.diff(records.image[order])) + 1
    figures = {}
    for rows in np.split(order, bounds):
        weights = None if records.weights is None else torch.from_numpy(records.weights[rows])
        part = _stratum(
            "", torch.from_numpy(own[rows]), torch.from_numpy(records.is_ood[rows]), weights
        )
        if part.metrics is not None:
            figures[int(records.image[rows[0]])] = part.metrics
    return figures


def _stratum(name: str, scores, is_ood, weights) -> Stratum:
    count = int(is_ood.sum())
    try:
        metrics = ood_metrics(scores, is_ood, weights=weights)
    except OODDataError:
        metrics = None
    return Stratum(name, count, len(is_ood) - count, metrics)


def stratum_gap(parts: Sequence[Stratum], figure: str) -> float | None:
    """Largest difference of a figure between the parts that have it; None with fewer than two."""
    values = [getattr(part.metrics, figure) for part in parts if part.metrics is not None]
    return max(values) - min(values) if len(values) > 1 else None


def _stratum_lines(kind: str, parts: Sequence[Stratum]) -> list[str]:
    width = max(len(kind), len("gap"), *(len(part.name) for part in parts))
    heads = "".join(f"{head:>12}" for head in _HEADS.values())
    lines = [f"{kind:<{width}}{'OOD':>9}{'ID':>9}{heads}"]
    for part in parts:
        cells = "".join(f"{'-':>12}" for _ in FIGURES)
        if part.metrics is not None:
            cells = "".join(f"{value:>12.4f}" for value in part.metrics.figures().values())
        lines.append(f"{part.name:<{width}}{part.num_ood:>9,}{part.num_id:>9,}{cells}")
    gaps = [stratum_gap(parts, figure) for figure in FIGURES]
    cells = "".join(f"{'-':>12}" if gap is None else f"{gap:>12.4f}" for gap in gaps)
    return [*lines, f"{'gap':<{width}}{'':>18}{cells}"]


def _shown(value: float | int | str) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else value
