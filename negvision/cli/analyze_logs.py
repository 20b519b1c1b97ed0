"""``negvision analyze-logs LOG...``: plot losses and AP against iterations."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from negvision.errors import UserError, text_table

if TYPE_CHECKING:
    from negvision.report.train_log import TrainLog

HELP = "plot losses and AP of one or more runs against iterations"
_FORMATS = (".png", ".pdf", ".svg", ".jpg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("logs", nargs="+", metavar="LOG", help="work dir, or a scalars.json")
    parser.add_argument("--out", metavar="FILE", help="the plot (default: curves.png in LOG)")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="one per log, for the legend")


def run(args: argparse.Namespace) -> int:
    """Plot and summarize; 0."""
    if args.names is not None and len(args.names) != len(args.logs):
        raise UserError(f"--names: {len(args.logs)} logs need as many names, got {args.names}")
    first = Path(args.logs[0])
    out = Path(args.out or (first if first.is_dir() else first.parent) / "curves.png")
    if out.suffix.lower() not in _FORMATS:
        raise UserError(f"--out {out}: the plot is written as {', '.join(_FORMATS)}")
    from negvision.report.train_log import read_train_log

    logs = [read_train_log(path) for path in args.logs]
    names = args.names or [log.name for log in logs]
    for log, path, name in zip(logs, args.logs, names, strict=True):
        log.name = path if names.count(name) > 1 else name
    print(_summary(logs))
    _plot(logs, out)
    print(f"\ncurves  {out}")
    return 0


def _plot(logs: Sequence[TrainLog], out: Path) -> None:
    """Plot a panel for each loss, the learning rate and each main metric, with a line per run."""
    # Not pyplot, which would choose a window system and keep the figure.
    from matplotlib.figure import Figure

    from negvision.report.plots import draw_curves, line_styles
    from negvision.report.train_log import main_curves

    losses, metrics = main_curves(logs)
    panels = losses | metrics
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.3 * rows + 0.4), layout="constrained")
    for place, (key, curves) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, columns, place, title=key)
        draw_curves(axes, curves, line_styles(log.name for log in logs), key in metrics)
        axes.legend(fontsize="small")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)


def _summary(logs: Sequence[TrainLog]) -> str:
    """Last loss, final and best AP of each run."""
    rows: list[list[object]] = []
    for log in logs:
        curves = [*log.train.values(), *log.evaluations.values()]
        last = max(max(steps) for steps, _ in curves)
        start = [log.name, last, f"{log.train['loss'][1][-1]:.4f}"]
        evaluated = [key for key in log.evaluations if key.endswith("mAP")]
        for key in evaluated:
            at, values = log.evaluations[key]
            # The first of equal values is the best; -1 is the AP without any object.
            valid = [(value, -step) for value, step in zip(values, at, strict=True) if value >= 0]
            shown: list[object] = ["-", "-", "-"]
            if valid:
                best, step = max(valid)
                shown = [f"{values[-1]:.4f}", f"{best:.4f}", -step]
            rows.append([*start, key.rpartition("/")[2], *shown])
        if not evaluated:
            rows.append([*start, "not evaluated", "-", "-", "-"])
    return text_table(["run", "iterations", "loss", "metric", "final", "best", "at"], rows)
