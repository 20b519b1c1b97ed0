"""The scored samples of an evaluation: their file, and their metrics over all and by stratum."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from negvision.errors import OODDataError, UserError
from negvision.ood.metrics import METRIC_NAMES, METRIC_TITLES, OODValues, ood_metrics

_OPTIONAL = ("weights", "boxes", "labels")
_ARRAYS = ("is_ood", "image", *_OPTIONAL)
# A prevalence at which AP can be compared between sets.
REFERENCE_PREVALENCE = 0.1
METRIC_HEADINGS = "".join(f"{title:>12}" for title in METRIC_TITLES.values())


@dataclass
class OODRecords:
    """N scored boxes, pixels or images on M images."""

    task: str  # "boxes", "pixels" or "images"
    scores: Mapping[str, np.ndarray]  # (N,) float by name; the model's own score comes first
    is_ood: np.ndarray  # (N,) bool
    image: np.ndarray  # (N,) int64, index into paths; a bootstrap keeps samples of one together
    paths: Sequence[str]  # of the M images
    classes: Sequence[str]  # names of the ID classes
    weights: np.ndarray | None = None  # (N,) float64, for pixels, a sample of all; None: all 1
    boxes: np.ndarray | None = None  # (N, 4) float32, x1 y1 x2 y2 in pixels; only for boxes
    labels: np.ndarray | None = None  # (N,) int64, predicted class; for boxes and images
    # A name, such as "box size", to (names of the strata, (N,) int64 codes).
    strata: Mapping[str, tuple[Sequence[str], np.ndarray]] = field(default_factory=dict)
    # Plain values shown with the metrics: ID AP, thresholds, counts.
    notes: Mapping[str, float | int | str] = field(default_factory=dict)
    # Image index to (h, w) float32, a reduced map of the first score; only for pixels.
    heat: Mapping[int, np.ndarray] = field(default_factory=dict)

    def save(self, path: str | Path) -> Path:
        """Write an ``.npz`` file without pickled objects; parent folders are created."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"score/{name}": values for name, values in self.scores.items()}
        arrays |= {f"stratum/{name}": codes for name, (_, codes) in self.strata.items()}
        arrays |= {f"heat/{index}": values for index, values in self.heat.items()}
        for name in _ARRAYS:
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name)
        meta = {
            "task": self.task,
            "scores": list(self.scores),
            "paths": list(map(str, self.paths)),
            "classes": list(self.classes),
            "strata": {name: list(names) for name, (names, _) in self.strata.items()},
            "notes": dict(self.notes),
        }
        arrays["meta"] = np.array(json.dumps(meta))
        with open(path, "wb") as file:  # given a path, NumPy would append a suffix
            np.savez_compressed(file, **arrays)  # ty: ignore[invalid-argument-type]
        return path

    @classmethod
    def load(cls, path: str | Path) -> OODRecords:
        """Read a file written by :meth:`save`; nothing in it is executed.

        Raises:
            UserError: The file does not exist or holds something else.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(f"{path}: there is no such file of OOD scores")
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            meta = json.loads(str(arrays["meta"]))
            return cls(
                task=meta["task"],
                scores={name: arrays[f"score/{name}"] for name in meta["scores"]},
                paths=meta["paths"],
                classes=meta["classes"],
                strata={
                    name: (names, arrays[f"stratum/{name}"])
                    for name, names in meta["strata"].items()
                },
                notes=meta["notes"],
                heat={
                    int(name.removeprefix("heat/")): values
                    for name, values in arrays.items()
                    if name.startswith("heat/")
                },
                is_ood=arrays["is_ood"],
                image=arrays["image"],
                **{name: arrays.get(name) for name in _OPTIONAL},
            )
        except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile) as error:
            raise UserError(
                f"{path} does not hold OOD scores ({type(error).__name__}: {error}); pass the "
                "ood_scores.npz file that an OOD metric wrote in negvision test"
            ) from None


@dataclass(frozen=True)
class Stratum:
    """One part of the samples."""

    name: str
    num_ood: int
    num_id: int
    metrics: OODValues | None  # None without OOD or ID samples


@dataclass(frozen=True)
class OODEvaluation:
    """Metrics of scored samples."""

    records: OODRecords
    by_score: Mapping[str, OODValues]  # with intervals over images; the model's own score first
    strata: Mapping[str, Sequence[Stratum]]  # kind to its parts, for the model's own score

    def scalars(self) -> dict[str, float]:
        """``auroc`` of the model's own score, ``msp/auroc`` of others, ..., and the notes."""
        scalars: dict[str, float] = {}
        for number, (name, values) in enumerate(self.by_score.items()):
            prefix = f"{name}/" if number else ""
            scalars |= {prefix + metric: value for metric, value in values.as_dict().items()}
            scalars[prefix + f"ap_out_at_{REFERENCE_PREVALENCE:g}"] = values.ap_at(
                REFERENCE_PREVALENCE
            )
        own = next(iter(self.by_score.values()))
        scalars |= {name: getattr(own, name) for name in ("prevalence", "num_ood", "num_id")}
        notes = self.records.notes.items()
        return scalars | {key: value for key, value in notes if isinstance(value, int | float)}

    def table(self) -> str:
        """Lines for a console, without a trailing newline."""
        own = next(iter(self.by_score.values()))
        lines = [
            f"OOD {self.records.task}: {own.num_ood:,.0f} OOD and {own.num_id:,.0f} ID on "
            f"{len(self.records.paths):,} images, prevalence {own.prevalence:.4f} (the chance "
            "level of AP out)",
            "OOD is positive and a higher score is more OOD; id+ swaps the two classes.",
        ]
        lines += [f"{key}: {_shown(value)}" for key, value in self.records.notes.items()]
        width = max(len("score"), *map(len, self.by_score))
        prevalence = f"AP@{REFERENCE_PREVALENCE:g}"
        lines += ["", f"{'score':<{width}}{METRIC_HEADINGS}{prevalence:>12}"]
        for name, values in self.by_score.items():
            cells = metric_cells(values)
            lines.append(f"{name:<{width}}{cells}{values.ap_at(REFERENCE_PREVALENCE):>12.4f}")
            if values.intervals:
                # Intervals over a few hundred images support no more than two decimals.
                cells = "".join(
                    f"{f'{low:.2f}-{high:.2f}':>12}" for low, high in values.intervals.values()
                )
                lines.append(f"{'':<{width}}{cells}  95 % over images")
        for kind, parts in self.strata.items():
            lines += ["", *_stratum_lines(kind, parts)]
        return "\n".join(lines)


def evaluate_records(records: OODRecords, resamples: int = 1000) -> OODEvaluation:
    """Evaluate every score, with a bootstrap over images, and the strata of the first.

    Raises:
        OODDataError: There is no OOD or no ID sample, or a score is not finite.
    """
    is_ood, image = torch.from_numpy(records.is_ood), torch.from_numpy(records.image)
    weights = None if records.weights is None else torch.from_numpy(records.weights)
    by_score = {
        name: ood_metrics(torch.from_numpy(scores), is_ood, image, weights, resamples=resamples)
        for name, scores in records.scores.items()
    }
    strata = {
        kind: [_stratum(records, name, codes == code) for code, name in enumerate(names)]
        for kind, (names, codes) in records.strata.items()
    }
    return OODEvaluation(records, by_score, strata)


def per_image_values(records: OODRecords) -> dict[int, OODValues]:
    """Metrics of the model's own score on each image with OOD and ID samples."""
    order = np.argsort(records.image, kind="stable")
    bounds = np.flatnonzero(np.diff(records.image[order])) + 1
    found = {}
    for rows in np.split(order, bounds):
        values = _stratum(records, "", rows).metrics
        if values is not None:
            found[int(records.image[rows[0]])] = values
    return found


def stratum_gap(parts: Sequence[Stratum], metric: str) -> float | None:
    """Largest difference of a metric between the parts; None if fewer than two have it."""
    values = [getattr(part.metrics, metric) for part in parts if part.metrics is not None]
    return max(values) - min(values) if len(values) > 1 else None


def metric_cells(values: OODValues) -> str:
    """Table cells below ``METRIC_HEADINGS``."""
    return "".join(f"{value:>12.4f}" for value in values.as_dict().values())


def _stratum(records: OODRecords, name: str, rows: np.ndarray) -> Stratum:
    """The samples ``rows`` (indices or bool), by the model's own score."""
    own = next(iter(records.scores.values()))
    is_ood = torch.from_numpy(records.is_ood[rows])
    weights = None if records.weights is None else torch.from_numpy(records.weights[rows])
    try:
        values = ood_metrics(torch.from_numpy(own[rows]), is_ood, weights=weights)
    except OODDataError:
        values = None
    count = int(is_ood.sum())
    return Stratum(name, count, len(is_ood) - count, values)


def _stratum_lines(kind: str, parts: Sequence[Stratum]) -> list[str]:
    width = max(len(kind), len("gap"), *(len(part.name) for part in parts))
    lines = [f"{kind:<{width}}{'OOD':>9}{'ID':>9}{METRIC_HEADINGS}"]
    for part in parts:
        cells = f"{'-':>12}" * len(METRIC_NAMES)
        if part.metrics is not None:
            cells = metric_cells(part.metrics)
        lines.append(f"{part.name:<{width}}{part.num_ood:>9,}{part.num_id:>9,}{cells}")
    gaps = [stratum_gap(parts, metric) for metric in METRIC_NAMES]
    cells = "".join(f"{'-':>12}" if gap is None else f"{gap:>12.4f}" for gap in gaps)
    return [*lines, f"{'gap':<{width}}{'':>18}{cells}"]


def _shown(value: float | int | str) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else value
