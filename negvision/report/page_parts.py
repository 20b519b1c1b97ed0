"""The content of a run's page as plain values, filled in by each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from negvision.report.train_log import TrainLog

Value = float | int | str | None


@dataclass(frozen=True)
class MetricRow:
    """A row of a table: a value per column, the meaning, and whether "higher" or "lower" (or "")
    is better in the compared column. None and NaN are shown as a dash, integers as counts."""

    name: str
    values: Sequence[Value]
    meaning: str = ""
    better: str = "higher"


@dataclass(frozen=True)
class MetricTable:
    """Metrics by name; tables with the same title are compared between runs.

    ``head`` is the header of the column of names. ``compared`` is the column used to compare runs,
    None to compare none. A ``hidden`` table is not on the page of a single run.
    """

    title: str
    head: str
    columns: Sequence[str]
    rows: Sequence[MetricRow]
    caption: str = ""
    compared: int | None = 0
    hidden: bool = False
    kind: str = "table"


@dataclass(frozen=True)
class Plot:
    """A plot: its title, its SVG, and a text alternative."""

    title: str
    svg: Markup
    alt: str


@dataclass(frozen=True)
class Plots:
    """Plots side by side under one title, with a legend of line styles that they share."""

    title: str
    plots: Sequence[Plot]
    legend: Mapping[str, object] = field(default_factory=dict)
    caption: str = ""
    kind: str = "plots"


@dataclass(frozen=True)
class Matrix:
    """Counts by ground truth (rows) and prediction (columns), with a ``caption`` on how they were
    counted and a ``noun`` for what was counted, such as "boxes"."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    counts: Sequence[Sequence[int]]
    caption: str
    noun: str
    kind: str = "matrix"

    @property
    def shares(self) -> list[list[float | None]]:
        """Each count divided by the sum of its row; None in an empty row."""
        return [
            [count / total if total else None for count in row]
            for row, total in ((row, sum(row)) for row in self.counts)
        ]

    def confusions(self, count: int = 20) -> list[tuple[str, str, int, float]]:
        """The most frequent errors: truth, prediction, count, share of the row.

        Example:
            >>> Matrix("", ["a", "b"], ["a", "b"], [[5, 1], [3, 0]], "", "boxes").confusions()
            [('b', 'a', 3, 1.0), ('a', 'b', 1, 0.16666666666666666)]
        """
        errors = [
            (truth, predicted, number, number / sum(row))
            for truth, row in zip(self.rows, self.counts, strict=True)
            for predicted, number in zip(self.columns, row, strict=True)
            if truth != predicted and number
        ]
        return sorted(errors, key=lambda error: -error[2])[:count]


@dataclass(frozen=True)
class EmbeddedImage:
    """An image as a data URI, its size in pixels, and a text alternative."""

    uri: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class ImageSample:
    """A sample with its images, such as a photo and its heat map; the rest is its caption.

    ``problem`` tells why the photo is missing.
    """

    path: str
    facts: Sequence[str]
    images: Sequence[EmbeddedImage]
    problem: str = ""
    tag: str = ""


@dataclass(frozen=True)
class Gallery:
    """Images with captions under one title."""

    title: str
    samples: Sequence[ImageSample]
    caption: str = ""
    kind: str = "gallery"


@dataclass(frozen=True)
class Html:
    """Trusted markup, such as the sections of an OOD page."""

    text: Markup
    kind: str = "html"


Part = MetricTable | Plots | Matrix | Gallery | Html


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading; ``missing`` explains why it is empty."""

    anchor: str
    title: str
    parts: Sequence[Part] = ()
    missing: str = ""


@dataclass(frozen=True)
class ConfigChange:
    """A unified diff of two configs, starting with their names; empty if nothing differs.

    ``missing`` tells why there is no diff.
    """

    title: str
    lines: Sequence[str] = ()
    missing: str = ""


@dataclass(frozen=True)
class RunReport:
    """Everything the page shows about one run.

    ``changes`` are differences between its config and the base, ``config`` has lines
    ``path = value``, and ``sections`` are the results of its task.
    """

    name: str
    facts: Mapping[str, str]
    changes: Sequence[ConfigChange]
    config: Sequence[str]
    log: TrainLog | None
    log_problem: str
    sections: Sequence[Section]

    def tables(self) -> dict[str, MetricTable]:
        """The tables of all sections by title."""
        return {
            part.title: part
            for section in self.sections
            for part in section.parts
            if isinstance(part, MetricTable)
        }
