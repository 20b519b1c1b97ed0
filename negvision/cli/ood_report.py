"""``negvision ood-report WORK_DIR``: show the results of an OOD evaluation on one HTML page."""

import argparse
from pathlib import Path

from negvision.cli.output import require_page, write_page
from negvision.errors import UserError

HELP = "show the results of an OOD evaluation on one HTML page"
DESCRIPTION = (
    "Write one self-contained HTML page about an OOD evaluation: metrics with intervals, "
    "histograms, curves, groups, and the samples with the largest errors."
)
_SCORES = "ood_scores.npz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    scores = f"{_SCORES} of an evaluation, or a folder to search for the newest"
    add("scores", metavar="WORK_DIR_OR_FILE", help=scores)
    add("--out", metavar="FILE.html", help="the page (default: ood_report.html beside the scores)")
    add("--title", help="of the page (default: the name of the work dir)")


def find_scores(path: str | Path) -> Path:
    """``path`` itself, or the newest file of OOD scores in or below a folder.

    Raises:
        UserError: There is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path}: there is no such file or folder")
    found = list(path.rglob(_SCORES))
    if not found:
        raise UserError(
            f"there is no {_SCORES} in or below {path}. Evaluating a config with an OOD metric "
            "writes one into its work dir:\n"
            "  negvision test CONFIG CHECKPOINT"
        )
    return max(found, key=lambda file: (file.stat().st_mtime, file))


def run(args: argparse.Namespace) -> int:
    """Write the page; 0."""
    source = find_scores(args.scores)
    out = Path(args.out or source.with_name("ood_report.html"))
    require_page(out)
    from negvision.ood.records import OODRecords
    from negvision.report.ood_page import ood_page
    from negvision.visualization import shown_path

    records = OODRecords.load(source)
    given = Path(args.scores).resolve()
    title = args.title or f"OOD {records.task}: {(given if given.is_dir() else given.parent).name}"
    write_page(out, ood_page(records, title, shown_path(source)))
    size = out.stat().st_size / 1e6
    print(f"scores  {shown_path(source)}\nreport  {shown_path(out)} ({size:.1f} MB)")
    return 0
