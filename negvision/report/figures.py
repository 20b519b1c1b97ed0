"""The figures of an OOD evaluation as rows and cells of tables, with what each one means."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from negvision.ood.metrics import METRIC_NAMES, OODValues
from negvision.ood.records import (
    REFERENCE_PREVALENCE,
    OODEvaluation,
    OODRecords,
    Stratum,
    per_image_values,
    stratum_gap,
)

NOUNS = {"boxes": ("box", "boxes"), "pixels": ("pixel", "pixels"), "images": ("image", "images")}
_AP_AT = "ap_at_reference"
# Images that a table of the worst has room for.
_WORST_IMAGES = 10


@dataclass(frozen=True)
class Column:
    """A figure: where it stands in a table, and what a reader has to know about it.

    Attributes:
        key: Of ``OODValues``, or the AP at the reference prevalence.
        head: Of the table's column.
        better: "higher" or "lower".
        chance: Its value for scores that know nothing.
        meaning: One sentence.
    """

    key: str
    head: str
    better: str
    chance: float
    meaning: str

    def value(self, metrics: OODValues) -> float:
        """The figure of ``metrics``."""
        if self.key == _AP_AT:
            return metrics.ap_at(REFERENCE_PREVALENCE)
        return getattr(metrics, self.key)


@dataclass(frozen=True)
class Cell:
    """A value and its interval; None where there is none."""

    value: float | None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Row:
    """A line of a table: its name and, of each column, a cell.

    Attributes:
        name: Of the score, stratum or image.
        cells: One a column.
        num_ood, num_id: Samples behind it, where they differ between rows.
    """

    name: str
    cells: Sequence[Cell]
    num_ood: int | None = None
    num_id: int | None = None


def columns(task: str, prevalence: float) -> list[Column]:
    """The columns of the table of scores; ``prevalence`` is the share of OOD."""
    one, many = NOUNS[task]
    share = f"{REFERENCE_PREVALENCE:.0%}".replace("%", " %")
    return [
        Column(
            "auroc",
            "AUROC",
            "higher",
            0.5,
            f"The chance that an OOD {one} scores higher than an ID {one}, both drawn at random; "
            "ties count one half. It is the same in both directions.",
        ),
        Column(
            "ap_out",
            "AP out",
            "higher",
            prevalence,
            f"Average precision with OOD as the positive class: how pure the {many} called unknown "
            "are, averaged over the share of OOD found. Its chance level is the share of OOD, so "
            "it cannot be compared with a set of another share.",
        ),
        Column(
            "ap_in",
            "AP in",
            "higher",
            1 - prevalence,
            f"Average precision with ID as the positive class: how pure the {many} taken for known "
            "are, averaged over the share of ID kept.",
        ),
        Column(
            "fpr95_ood",
            "FPR95 ood+",
            "lower",
            0.95,
            f"OOD positive: the share of ID {many} that is called unknown at the threshold that "
            "finds 95 % of the OOD.",
        ),
        Column(
            "fpr95_id",
            "FPR95 id+",
            "lower",
            0.95,
            f"ID positive: the share of OOD {many} that passes as known at the threshold that "
            "keeps 95 % of the ID.",
        ),
        Column(
            _AP_AT,
            f"AP@{REFERENCE_PREVALENCE:g}",
            "higher",
            REFERENCE_PREVALENCE,
            f"AP out as it would be if {share} of the {many} were OOD, which can be compared "
            "between sets.",
        ),
    ]


def score_rows(evaluation: OODEvaluation, table: Sequence[Column]) -> list[Row]:
    """A row for each score, the model's own first."""
    return [
        Row(
            name,
            [Cell(column.value(metrics), metrics.intervals.get(column.key)) for column in table],
        )
        for name, metrics in evaluation.by_score.items()
    ]


def stratum_rows(parts: Sequence[Stratum]) -> tuple[list[Row], list[Cell]]:
    """A row for each part, in the order of ``METRIC_NAMES``, and the gaps between the parts."""
    rows = []
    for part in parts:
        values = [None] * len(METRIC_NAMES)
        if part.metrics is not None:
            values = list(part.metrics.as_dict().values())
        rows.append(Row(part.name, [Cell(value) for value in values], part.num_ood, part.num_id))
    return rows, [Cell(stratum_gap(parts, figure)) for figure in METRIC_NAMES]


@dataclass(frozen=True)
class PerImage:
    """How figures vary between images.

    Attributes:
        count: Images that have OOD and ID samples.
        spread: Row for lowest, median and highest, in the order of ``METRIC_NAMES``.
        worst: The images of lowest AUROC, the lowest first.
    """

    count: int
    spread: Sequence[Row]
    worst: Sequence[Row]


def per_image(records: OODRecords) -> PerImage | None:
    """Figures of single images; None where fewer than two have OOD and ID samples."""
    by_image: Mapping[int, OODValues] = per_image_values(records)
    if len(by_image) < 2:
        return None
    values = {key: [getattr(one, key) for one in by_image.values()] for key in METRIC_NAMES}
    spread = [
        Row(name, [Cell(function(values[key])) for key in METRIC_NAMES])
        for name, function in (("lowest", min), ("median", statistics.median), ("highest", max))
    ]
    ranked = sorted(by_image.items(), key=lambda pair: pair[1].auroc)[:_WORST_IMAGES]
    worst = [
        Row(
            str(records.paths[index]),
            [Cell(value) for value in metrics.as_dict().values()],
        )
        for index, metrics in ranked
    ]
    return PerImage(len(by_image), spread, worst)
