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
# Metrics drawn beside the main one, each with its own line style.
_STYLES = {"": "-", "_50": "--", "_75": ":"}
# Colors of Okabe and Ito that show on white, the most distinct ones first.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


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
    """Plot a panel for each loss, grouped training metric and AP, with a color for each run.

    Args:
        logs: At least one.
        out: ``.png``, ``.jpg``, ``.pdf`` or ``.svg``; missing folders are created.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    losses = list(dict.fromkeys(key for log in logs for key in log.train if _is_shown(key)))
    metrics = list(dict.fromkeys(key for log in logs for key in _main_metrics(log)))
    panels = [*losses, *metrics]
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    # Not pyplot, which would choose a window system and keep the figure.
    figure = Figure(figsize=(4.6 * columns, 3.3 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    for place, key in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, place)
        for index, log in enumerate(logs):
            curves = _curves_of(log, key)
            for suffix, (steps, values) in curves.items():
                label = f"{log.name}  AP{suffix.strip('_')}" if key in metrics else log.name
                axes.plot(
                    steps,
                    values,
                    _STYLES[suffix],
                    color=_COLORS[index % len(_COLORS)],
                    label=label,
                    linewidth=1.6,
                    marker="o" if key in metrics or len(steps) == 1 else None,
                    markersize=3.5,
                )
        axes.set_title(key)
        axes.set_xlabel("iteration")
        axes.set_xlim(0, 1.02 * max(map(_last_iteration, logs)))
        axes.grid(alpha=0.3)
        if key in metrics:
            axes.set_ylim(bottom=0)
            axes.legend(fontsize="small")
        elif place == 1:
            axes.legend(fontsize="small")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
    return out


def _is_shown(key: str) -> bool:
    # Losses, and metrics that a hook logs as a group, such as pairs/gap.
    return "loss" in key.rpartition(".")[2] or "/" in key


def _main_metrics(log: TrainLog) -> list[str]:
    """Metrics such as ``coco/bbox_mAP``: AP over all classes, IoUs and sizes."""
    return [key for key in log.evaluations if key.endswith("mAP")]


def _curves_of(log: TrainLog, key: str) -> dict[str, tuple[list[int], list[float]]]:
    if key in log.train:
        return {"": log.train[key]}
    found = {suffix: log.evaluations.get(key + suffix) for suffix in _STYLES}
    return {suffix: curve for suffix, curve in found.items() if curve is not None}


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
