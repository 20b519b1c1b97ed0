"""``negvision report WORK_DIR...``: one HTML page about a run, or about several side by side."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from negvision.cli.ood_report import write_page
from negvision.engine.config.reading import add_looking_arguments
from negvision.engine.prepare import prepare_config
from negvision.errors import UserError, reports_user_errors
from negvision.report.config_diff import between
from negvision.report.gathering import gather
from negvision.report.run_page import run_page
from negvision.report.work_dir import find_run
from negvision.visualization import shown_path


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="negvision report",
        description="Test the last checkpoint of a work dir and write one HTML page, complete in "
        "itself: config changes, curves, figures, confusions, worst images, assignment. Of "
        "several work dirs: what differs between them, side by side.",
    )
    parser.add_argument("work_dirs", nargs="+", metavar="WORK_DIR", help="folder of a run")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="another one than the last; of a single work dir"
    )
    parser.add_argument(
        "--out",
        metavar="FILE.html",
        help="the page (default: report.html in the work dir; of several, in the current folder)",
    )
    add_looking_arguments(parser)
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="unpickle whatever a checkpoint holds; it can run any code",
    )
    return parser.parse_args(argv)


def _out(args: argparse.Namespace) -> Path:
    """Where the page goes; checked before minutes are spent on what it shows."""
    single = len(args.work_dirs) == 1
    out = Path(args.out or (Path(args.work_dirs[0]) if single else Path()) / "report.html")
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out}: the page is written as .html")
    if out.is_dir():
        raise UserError(f"--out {out}: this is a folder; name a file in it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise UserError(
            f"cannot write {out}: {error.strerror}; name another file with --out"
        ) from None
    return out


def run_names(paths: Sequence[str]) -> list[str]:
    """A name for each work dir: as much of the end of its path as tells it from the others.

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
    raise UserError(f"{twice}: this work dir is given twice")


def _bar(indices: list) -> tqdm:
    # disable=None: the bar shows on a terminal only.
    return tqdm(indices, desc="assignments", leave=False, disable=None, file=sys.stdout)


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Evaluate and write the page; 0, or 2 after a user error, which is printed."""
    args = _parse(argv)
    if args.checkpoint is not None and len(args.work_dirs) > 1:
        raise UserError("--checkpoint names the file of one run, and several work dirs are given")
    names = run_names(args.work_dirs)
    runs = [find_run(path, args.checkpoint) for path in args.work_dirs]
    out = _out(args)
    reports, configs = [], []
    with tempfile.TemporaryDirectory(prefix="negvision_report_") as scratch:
        for number, (run, name) in enumerate(zip(runs, names, strict=True)):
            args.config = str(run.config)
            folder = Path(scratch) / f"{os.getpid()}_{number}"
            cfg = prepare_config(args)
            configs.append(cfg.copy())
            reports.append(gather(run, name, cfg, folder, _bar, args.trust_checkpoint))
        changes = [
            between(configs[0], cfg, (names[0], name))
            for cfg, name in zip(configs[1:], names[1:], strict=True)
        ]
        write_page(out, run_page(reports, changes))
    print(f"report  {shown_path(out)} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0
