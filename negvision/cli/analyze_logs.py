"""``negvision analyze-logs LOG...``: plot losses and AP against iterations."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from negvision.cli.output import text_table
from negvision.errors import UserError

if TYPE_CHECKING:
    from negvision.report.train_log import TrainLog

HELP = "plot losses and AP against iterations"
DESCRIPTION = "Plot losses and AP of one or more runs against iterations."
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
    for log, name in zip(logs, args.names or (), strict=False):
        log.name = name
    names = [log.name for log in logs]
    for log, path in zip(logs, args.logs, strict=True):
        if names.count(log.name) > 1:
            log.name = path
    print(summary(logs))
    print(f"\ncurves  {plot_logs(logs, out)}")
    return 0


def plot_logs(logs: Sequence[TrainLog], out: Path) -> Path:
    """Plot a panel for each loss, the learning rate and each main metric, with a line per run.

    Args:
        logs: At least one.
        out: ``.png``, ``.jpg``, ``.pdf`` or ``.svg``; missing folders are created.
    """
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
    return out


def _main_metrics(log: TrainLog) -> list[str]:
    """Metrics such as ``coco/bbox_mAP``: AP over all classes, IoUs and sizes."""
    return [key for key in log.evaluations if key.endswith("mAP")]


def _last_iteration(log: TrainLog) -> int:
    """The last iteration with a logged value."""
    curves = [*log.train.values(), *log.evaluations.values()]
    return max(max(steps) for steps, _ in curves)


def summary(logs: Sequence[TrainLog]) -> str:
    """Last loss, final and best AP of each run."""
    rows = []
    for log in logs:
        start = [log.name, f"{_last_iteration(log):,}", f"{log.train['loss'][1][-1]:.4f}"]
        for key in _main_metrics(log):
            at, values = log.evaluations[key]
            valid = [(value, step) for value, step in zip(values, at, strict=True) if value >= 0]
            if not valid:
                rows.append([*start, key.rpartition("/")[2], "-", "-", "-"])
                continue
            # The first of equal values.
            best, step = max(valid, key=lambda pair: (pair[0], -pair[1]))
            shown = [f"{values[-1]:.4f}", f"{best:.4f}", f"{step:,}"]
            rows.append([*start, key.rpartition("/")[2], *shown])
        if not _main_metrics(log):
            rows.append([*start, "not evaluated", "-", "-", "-"])
    header = ["run", "iterations", "loss", "metric", "final", "best", "at"]
    return text_table(header, rows)
