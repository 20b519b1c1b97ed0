"""The figures of several runs side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from negvision.report.run_parts import FigureRow, FigureTable, RunReport, Value


@dataclass(frozen=True)
class ComparedCell:
    """A figure of one run.

    Attributes:
        value: None where the run has none.
        change: From the first run; None of the first, and where one of both has none.
        best: Whether no run has a better one, and some run a worse one.
    """

    value: Value
    change: float | int | None = None
    best: bool = False


@dataclass(frozen=True)
class ComparedRow:
    """A figure of all runs, in their order."""

    name: str
    cells: Sequence[ComparedCell]
    meaning: str = ""


@dataclass(frozen=True)
class ComparedTable:
    """A table of one column a run; ``what`` is the column that was compared, or ""."""

    title: str
    head: str
    what: str
    rows: Sequence[ComparedRow]


def compared_tables(reports: Sequence[RunReport]) -> list[ComparedTable]:
    """A table for each that some run has to be compared by, with all rows that some run has."""
    by_run = [report.tables() for report in reports]
    titles = dict.fromkeys(title for tables in by_run for title in tables)
    found = []
    for title in titles:
        tables = [tables.get(title) for tables in by_run]
        one = next(table for table in tables if table is not None)
        if one.compared is not None:
            rows = [_row(name, tables) for name in _names(tables)]
            what = one.columns[one.compared] if len(one.columns) > 1 else ""
            found.append(ComparedTable(title, one.head, what, rows))
    return found


def _names(tables: Sequence[FigureTable | None]) -> list[str]:
    rows = [row for table in tables if table is not None for row in table.rows]
    return list(dict.fromkeys(row.name for row in rows))


def _row(name: str, tables: Sequence[FigureTable | None]) -> ComparedRow:
    rows = [_of_name(name, table) for table in tables]
    one = next(row for row in rows if row is not None)
    values = [
        None if row is None else _number(row.values[table.compared])
        for row, table in zip(rows, tables, strict=True)
    ]
    there = [value for value in values if value is not None]
    best = None
    if one.better and there and min(there) < max(there):
        best = max(there) if one.better == "higher" else min(there)
    cells = [
        ComparedCell(
            value,
            value - values[0] if number and value is not None and values[0] is not None else None,
            value is not None and value == best,
        )
        for number, value in enumerate(values)
    ]
    return ComparedRow(name, cells, one.meaning)


def _of_name(name: str, table: FigureTable | None) -> FigureRow | None:
    rows = [] if table is None else table.rows
    return next((row for row in rows if row.name == name), None)


def _number(value: Value) -> float | int | None:
    is_number = isinstance(value, int | float) and not math.isnan(value)
    return value if is_number else None
