"""The page of one run, or of several that are compared."""

from __future__ import annotations

from collections.abc import Sequence

from negvision.report.comparison import compared_tables
from negvision.report.rendering import rendered
from negvision.report.run_parts import ConfigChange, FigureRow, RunReport
from negvision.report.run_plots import curve_parts

# Figures at the head of the page; larger matrices are shown as a list of their errors.
_TILES, _LARGEST_MATRIX = 5, 21


def run_page(reports: Sequence[RunReport], between: Sequence[ConfigChange] = ()) -> str:
    """One HTML page, complete in itself, that shows a run, or the differences of several.

    Every name in it is escaped, and the page forbids itself scripts and the network.

    Args:
        reports: At least one, of different names; runs are compared with the first.
        between: What the configs of the others change of the first's.

    Example:
        >>> page = run_page([report])  # doctest: +SKIP
    """
    logs = [report.log for report in reports if report.log is not None]
    common = {
        "curves": curve_parts(logs) if logs else [],
        "no_log": {report.name: report.log_problem for report in reports if report.log is None},
        "largest_matrix": _LARGEST_MATRIX,
    }
    if len(reports) == 1:
        [report] = reports
        return rendered("run_page.html", report=report, tiles=_tiles(report), **common)
    return rendered(
        "compare_page.html",
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


def _tiles(report: RunReport) -> list[FigureRow]:
    """The first figures of the run's first table."""
    for table in report.tables().values():
        return list(table.rows[:_TILES]) if len(table.columns) == 1 else []
    return []
