"""``negvision ood-report WORK_DIR``: show what an OOD evaluation found, on one HTML page."""

import argparse
import contextlib
import os
from pathlib import Path

from negvision.errors import UserError, reports_user_errors
from negvision.ood.records import OODRecords
from negvision.report import ood_page
from negvision.visualization import shown_path

_SCORES = "ood_scores.npz"


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="negvision ood-report",
        description="Write one HTML page, complete in itself, that shows an OOD evaluation: "
        "figures with intervals, histograms, curves, groups, and the samples most wrong.",
    )
    parser.add_argument(
        "scores",
        metavar="WORK_DIR_OR_FILE",
        help=f"{_SCORES} of an evaluation, or a folder that has some below it: the newest is taken",
    )
    parser.add_argument(
        "--out", metavar="FILE.html", help="the page (default: ood_report.html beside the scores)"
    )
    parser.add_argument("--title", help="of the page (default: the name of the work dir)")
    return parser.parse_args(argv)


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
            f"there is no {_SCORES} in or below {path}. An evaluation of a config whose evaluator "
            "is an OOD metric writes one into its work dir:\n"
            "  python tools/test.py CONFIG CHECKPOINT"
        )
    return max(found, key=lambda file: (file.stat().st_mtime, file))


def write_page(path: Path, text: str) -> None:
    """Write ``path`` at once, so that no part of a page is left where it fails.

    Raises:
        UserError: It cannot be written there.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Paths on disk need not be text: such a name is no reason to write nothing.
        partial.write_text(text, encoding="utf-8", errors="replace")
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; name another file with --out"
        ) from None


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Write the page; 0, or 2 after a user error, which is printed."""
    args = _parse(argv)
    source = find_scores(args.scores)
    records = OODRecords.load(source)
    out = Path(args.out or source.with_name("ood_report.html"))
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out}: the page is written as .html")
    given = Path(args.scores).resolve()
    title = args.title or f"OOD {records.task}: {(given if given.is_dir() else given.parent).name}"
    write_page(out, ood_page(records, title, shown_path(source)))
    size = out.stat().st_size / 1e6
    print(f"scores  {shown_path(source)}\nreport  {shown_path(out)} ({size:.1f} MB)")
    return 0
