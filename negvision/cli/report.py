"""``negvision report RUN...``: one HTML page about a run, or about several side by side."""

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from negvision.cli.arguments import add_data_arguments, add_trust_checkpoint, fraction
from negvision.cli.output import progress_bar, require_page, write_page
from negvision.errors import UserError

HELP = "show a run, or compare several, on one HTML page"
DESCRIPTION = (
    "Test a model and write one self-contained HTML page: config changes, curves, metrics, "
    "confusions, worst images, assignment. With several runs the page compares them side by side."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    run = "work dir, or a checkpoint or exported model, which has its config"
    add("runs", nargs="+", metavar="RUN", help=run)
    which = "for a single work dir (default: its best, or else its last)"
    add("--checkpoint", metavar="FILE", help=which)
    page = "the page (default: report.html in the work dir; for several, in the current folder)"
    add("--out", metavar="FILE.html", help=page)
    drop = "leave out boxes with a lower score; default: that of the checkpoint, or 0.3"
    add("--score-threshold", type=fraction, metavar="SCORE", help=drop)
    add_data_arguments(parser)
    add_trust_checkpoint(parser)


def run_names(paths: Sequence[str]) -> list[str]:
    """A name for each work dir: the shortest end of its path that is unique.

    Example:
        >>> run_names(["runs/a/train", "runs/b/train"]), run_names(["work_dirs/atss"])
        (['a/train', 'b/train'], ['atss'])
    """
    parts = [Path(path).resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    twice = next(path for path, one in zip(paths, parts, strict=True) if parts.count(one) > 1)
    raise UserError(f"{twice}: this run is given twice")


def run(args: argparse.Namespace) -> int:
    """Evaluate and write the page; 0."""
    if args.checkpoint is not None and len(args.runs) > 1:
        raise UserError("--checkpoint needs a single work dir, but several are given")
    names = run_names(args.runs)
    from negvision.engine.prepare import prepare_config
    from negvision.report.config_diff import config_change, config_lines
    from negvision.report.run_page import run_page
    from negvision.report.run_report import find_run, gather
    from negvision.visualization import shown_path

    runs = [find_run(path, args.checkpoint) for path in args.runs]
    out = Path(args.out or (runs[0].path if len(runs) == 1 else Path()) / "report.html")
    require_page(out)
    bar = partial(progress_bar, description="assignments")
    reports, configs = [], []
    with tempfile.TemporaryDirectory(prefix="negvision_report_") as scratch:
        for number, (found, name) in enumerate(zip(runs, names, strict=True)):
            args.config = str(found.config)
            folder = Path(scratch) / str(number)
            cfg = prepare_config(args)
            configs.append(config_lines(cfg))
            options = args.trust_checkpoint, args.score_threshold
            reports.append(gather(found, name, cfg, folder, bar, *options))
        changes = [
            config_change(f"{name} against {names[0]}", configs[0], lines, (names[0], name))
            for lines, name in zip(configs[1:], names[1:], strict=True)
        ]
        write_page(out, run_page(reports, changes))
    print(f"report  {shown_path(out)} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0
