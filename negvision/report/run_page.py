"""The page of one run, or of several runs side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from negvision.report.page_parts import (
    ConfigChange,
    MetricRow,
    MetricTable,
    Plots,
    RunReport,
    Value,
)
from negvision.report.plots import curve_panel, line_styles
from negvision.report.rendering import rendered
from negvision.report.train_log import TrainLog, main_curves

_TILES = 5
_MEANINGS = {
    "without": "share of boxes without a positive, at the end of the training",
    "positives": "positives of a box",
    "level": "share of the positives on level",
}


def run_page(reports: Sequence[RunReport], between: Sequence[ConfigChange] = ()) -> str:
    """A self-contained HTML page about a run, or about the differences between several.

    All names are escaped. The page's own policy forbids scripts and network access.

    Args:
        reports: At least one, with unique names; the others are compared with the first.
        between: What the configs of the others change of the first.
    """
    logs = [report.log for report in reports if report.log is not None]
    common = {
        "command": "report",
        "source": "",
        "curves": curve_parts(logs) if logs else [],
        "no_log": {report.name: report.log_problem for report in reports if report.log is None},
    }
    if len(reports) == 1:
        first = next(iter(reports[0].tables().values()), None)
        tiles = first.rows[:_TILES] if first is not None and len(first.columns) == 1 else []
        anchors = {"run": "Run", "config": "Config", "curves": "Curves"}
        anchors |= {section.anchor: section.title for section in reports[0].sections}
        top = {"title": reports[0].name, "anchors": anchors}
        return rendered("run_page.html", report=reports[0], tiles=tiles, **top, **common)
    names = [report.name for report in reports]
    return rendered(
        "compare_page.html",
        title=", ".join(names),
        anchors={"run": "Runs", "config": "Configs", "curves": "Curves", "metrics": "Metrics"},
        names=names,
        reports=reports,
        facts=list(dict.fromkeys(key for report in reports for key in report.facts)),
        between=between,
        tables=compared_tables(reports),
        missing={
            report.name: [(part.title, part.missing) for part in report.sections if part.missing]
            for report in reports
        },
        **common,
    )


def curve_parts(logs: Sequence[TrainLog]) -> list[Plots | MetricTable]:
    """A panel for each loss, the learning rate, and each main metric, with a line for each run.

    If no run was evaluated more than once, the metrics are in a table.
    """
    styles = line_styles(log.name for log in logs)
    legend = styles if len(logs) > 1 else {}
    losses, metrics = main_curves(logs)
    parts: list[Plots | MetricTable] = []
    if losses:
        plots = [curve_panel(key, curves, styles, False) for key, curves in losses.items()]
        parts.append(Plots("Training", plots, legend))
    if counted := _positives(logs):
        names = [log.name for log in logs]
        parts.append(MetricTable("Positives of boxes in training", "boxes", names, counted))
    longest = max((len(curve[0]) for log in logs for curve in log.evaluations.values()), default=0)
    if metrics and longest == 1:
        rows = [
            MetricRow(key, [curves[log.name][1][0] if log.name in curves else None for log in logs])
            for key, curves in metrics.items()
        ]
        names = [log.name for log in logs]
        parts.append(MetricTable("Evaluation during training", "metric", names, rows))
    elif metrics:
        plots = [curve_panel(key, curves, styles, True) for key, curves in metrics.items()]
        parts.append(Plots("Evaluations during training", plots, legend))
    return parts


def _positives(logs: Sequence[TrainLog]) -> list[MetricRow]:
    """What ``negvision.AssignmentCountHook`` counted last, for each run."""
    keys = dict.fromkeys(key for log in logs for key in log.train if key.startswith("boxes/"))
    rows = []
    for key in keys:
        what, _, which = key.removeprefix("boxes/").partition("_")
        meaning = _MEANINGS[what] + (f" {which}" if what == "level" else f", {which}" * bool(which))
        values = [log.train[key][1][-1] if key in log.train else None for log in logs]
        rows.append(MetricRow(key.removeprefix("boxes/"), values, meaning))
    return rows


class ComparedCell(NamedTuple):
    """A metric of one run, its change from the first run, and whether it is the best."""

    value: float | int | None
    change: float | int | None = None
    best: bool = False


@dataclass(frozen=True)
class ComparedTable:
    """A table with a column for each run; ``rows`` has the meaning and the cells by name.

    ``what`` names the compared column, or is "".
    """

    title: str
    head: str
    what: str
    rows: Mapping[str, tuple[str, list[ComparedCell]]]


def compared_tables(reports: Sequence[RunReport]) -> list[ComparedTable]:
    """The tables to compare runs by, with all rows of all runs."""
    by_run = [report.tables() for report in reports]
    compared = []
    for title in dict.fromkeys(title for tables in by_run for title in tables):
        tables = [run.get(title) for run in by_run]
        one = next(table for table in tables if table is not None)
        if one.compared is None:
            continue
        rows = [{} if t is None else {row.name: row for row in t.rows} for t in tables]
        names = dict.fromkeys(name for of_run in rows for name in of_run)
        what = one.columns[one.compared] if len(one.columns) > 1 else ""
        lines = {name: _row([run.get(name) for run in rows], one.compared) for name in names}
        compared.append(ComparedTable(title, one.head, what, lines))
    return compared


def _row(rows: Sequence[MetricRow | None], column: int) -> tuple[str, list[ComparedCell]]:
    one = next(row for row in rows if row is not None)
    values = [None if row is None else _number(row.values[column]) for row in rows]
    known = [value for value in values if value is not None]
    best = None
    if one.better and known and min(known) < max(known):
        best = max(known) if one.better == "higher" else min(known)
    first, cells = values[0], []
    for number, value in enumerate(values):
        change = value - first if number and value is not None and first is not None else None
        cells.append(ComparedCell(value, change, value is not None and value == best))
    return one.meaning, cells


def _number(value: Value) -> float | int | None:
    return value if isinstance(value, int | float) and not math.isnan(value) else None
