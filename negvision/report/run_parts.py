"""What the page of a run is made of: plain values, which each task fills in for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from negvision.report.pictures import WrongSample

Value = float | int | str | None


@dataclass(frozen=True)
class FigureRow:
    """A line of a table.

    Attributes:
        name: Of the figure, class or size.
        values: One a column; None or NaN is shown as a dash, an int as a count.
        meaning: One sentence, or "".
        better: "higher" or "lower", of the column that runs are compared by; "" where neither is.
    """

    name: str
    values: Sequence[Value]
    meaning: str = ""
    better: str = "higher"


@dataclass(frozen=True)
class FigureTable:
    """Figures by name; runs are compared by tables of one title.

    Attributes:
        title: Of the table, and what finds the same table of another run.
        head: Of the column of names.
        columns: Heads of the others.
        rows: The lines.
        caption: What a reader has to know, or "".
        compared: The column that runs are compared by; None: they are not.
        hidden: On the page of a single run, which tells the same in another way.
    """

    title: str
    head: str
    columns: Sequence[str]
    rows: Sequence[FigureRow]
    caption: str = ""
    compared: int | None = 0
    hidden: bool = False
    kind: str = "table"

    @property
    def has_meanings(self) -> bool:
        """Whether a column for the meanings is needed."""
        return any(row.meaning for row in self.rows)


@dataclass(frozen=True)
class Plot:
    """A plot: its title, the SVG of :mod:`negvision.report.plots`, its words for who cannot see."""

    title: str
    svg: Markup
    alt: str


@dataclass(frozen=True)
class Plots:
    """Plots side by side under one title, with the lines that they share explained."""

    title: str
    plots: Sequence[Plot]
    legend: Mapping[str, object] = field(default_factory=dict)
    caption: str = ""
    kind: str = "plots"


@dataclass(frozen=True)
class Matrix:
    """Counts by truth (rows) and prediction (columns).

    Attributes:
        title: Of the table.
        rows: Names of the truths.
        columns: Names of the predictions.
        counts: Of each row and column.
        caption: How it was counted.
        noun: What is counted, e.g. "boxes".
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    counts: Sequence[Sequence[int]]
    caption: str
    noun: str
    kind: str = "matrix"

    @property
    def shares(self) -> list[list[float | None]]:
        """Each count as a share of its row; None in a row of nothing."""
        return [
            [count / total if total else None for count in row]
            for row, total in ((row, sum(row)) for row in self.counts)
        ]

    def confusions(self, count: int = 20) -> list[tuple[str, str, int, float]]:
        """The most frequent errors: truth, prediction, count, share of the truth.

        Example:
            >>> Matrix("", ["a", "b"], ["a", "b"], [[5, 1], [3, 0]], "", "boxes").confusions()
            [('b', 'a', 3, 1.0), ('a', 'b', 1, 0.16666666666666666)]
        """
        found = [
            (truth, predicted, number, number / sum(row))
            for truth, row in zip(self.rows, self.counts, strict=True)
            for predicted, number in zip(self.columns, row, strict=True)
            if truth != predicted and number
        ]
        return sorted(found, key=lambda one: -one[2])[:count]


@dataclass(frozen=True)
class Gallery:
    """Images with what was found in them, and what the colours stand for."""

    title: str
    samples: Sequence[WrongSample]
    caption: str = ""
    kind: str = "gallery"


@dataclass(frozen=True)
class Html:
    """Markup of another page of ours."""

    text: Markup
    kind: str = "html"


Part = FigureTable | Plots | Matrix | Gallery | Html


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading; ``missing`` says why there is nothing in it."""

    anchor: str
    title: str
    parts: Sequence[Part] = ()
    missing: str = ""


@dataclass(frozen=True)
class ConfigChange:
    """What differs between two configs.

    Attributes:
        title: What was changed by what.
        lines: Of a unified diff, the two names first; empty where nothing differs.
        missing: Why there is no diff.
    """

    title: str
    lines: Sequence[str] = ()
    missing: str = ""


@dataclass(frozen=True)
class RunReport:
    """All that is told of one run.

    Attributes:
        name: Tells it from others on the page.
        facts: Short name to value: checkpoint, versions, commit.
        changes: Of its config.
        config: Of the run, as lines ``path = value``.
        log: Curves of its training, a :class:`negvision.report.train_log.TrainLog`; or None.
        log_problem: Why there is no log.
        sections: Of its task.
    """

    name: str
    facts: Mapping[str, str]
    changes: Sequence[ConfigChange]
    config: Sequence[str]
    log: object | None
    log_problem: str
    sections: Sequence[Section]

    def tables(self) -> dict[str, FigureTable]:
        """The tables of all sections by title."""
        return {
            part.title: part
            for section in self.sections
            for part in section.parts
            if isinstance(part, FigureTable)
        }
