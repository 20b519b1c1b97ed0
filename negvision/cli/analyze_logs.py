"""``negvision analyze-logs LOG...``: plot losses and AP against iterations."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from negvision.cli.browsing import text_table
from negvision.errors import UserError, reports_user_errors
from negvision.report.train_log import TrainLog, read_train_log

_FORMATS = (".png", ".pdf", ".svg", ".jpg")
# Figures drawn beside the main one, each with its own line.
_STYLES = {"": "-", "_50": "--", "_75": ":"}
# Okabe and Ito's colours that show on white, those most apart first.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="negvision analyze-logs",
        description="Plot losses and AP of one or more runs against iterations.",
    )
    parser.add_argument("logs", nargs="+", metavar="LOG", help="work dir, or a scalars.json")
    parser.add_argument("--out", metavar="FILE", help="picture (default: curves.png in LOG)")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="one a log, for the legend")
    return parser.parse_args(argv)


def plot_logs(logs: Sequence[TrainLog], out: Path) -> Path:
    """A panel for each loss, each grouped figure of training and AP, a colour for each run.

    Args:
        logs: At least one.
        out: ``.png``, ``.jpg``, ``.pdf`` or ``.svg``; folders above it are made.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    losses = list(dict.fromkeys(key for log in logs for key in log.train if _is_shown(key)))
    metrics = list(dict.fromkeys(key for log in logs for key in main_metrics(log)))
    panels = [*losses, *metrics]
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    # A figure of its own: pyplot would choose a window system, and keep the figure.
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
        axes.set_xlim(0, 1.02 * max(map(last_iteration, logs)))
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
    # Losses, and figures that a hook logs as a group, such as pairs/gap.
    return "loss" in key.rpartition(".")[2] or "/" in key


def main_metrics(log: TrainLog) -> list[str]:
    """``coco/bbox_mAP`` and its like: AP over all classes, IoUs and sizes."""
    return [key for key in log.evaluations if key.endswith("mAP")]


def _curves_of(log: TrainLog, key: str) -> dict[str, tuple[list[int], list[float]]]:
    if key in log.train:
        return {"": log.train[key]}
    found = {suffix: log.evaluations.get(key + suffix) for suffix in _STYLES}
    return {suffix: curve for suffix, curve in found.items() if curve is not None}


def last_iteration(log: TrainLog) -> int:
    """The last iteration that anything was logged for."""
    curves = [*log.train.values(), *log.evaluations.values()]
    return max(max(steps) for steps, _ in curves)


def summary(logs: Sequence[TrainLog]) -> str:
    """Last loss, final and best AP of each run."""
    rows = []
    for log in logs:
        start = [log.name, f"{last_iteration(log):,}", f"{log.train['loss'][1][-1]:.4f}"]
        for key in main_metrics(log):
            at, values = log.evaluations[key]
            valid = [(value, step) for value, step in zip(values, at, strict=True) if value >= 0]
            if not valid:
                rows.append([*start, key.rpartition("/")[2], "-", "-", "-"])
                continue
            # Of equal ones the first: training longer brought nothing.
            best, step = max(valid, key=lambda pair: (pair[0], -pair[1]))
            figures = [f"{values[-1]:.4f}", f"{best:.4f}", f"{step:,}"]
            rows.append([*start, key.rpartition("/")[2], *figures])
        if not main_metrics(log):
            rows.append([*start, "not evaluated", "-", "-", "-"])
    header = ["run", "iterations", "loss", "metric", "final", "best", "at"]
    return text_table(header, rows)


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Plot and summarise; 0, or 2 after a user error, which is printed."""
    args = _parse(argv)
    if args.names is not None and len(args.names) != len(args.logs):
        raise UserError(f"--names: {len(args.logs)} logs need as many names, got {args.names}")
    first = Path(args.logs[0])
    out = Path(args.out or (first if first.is_dir() else first.parent) / "curves.png")
    if out.suffix.lower() not in _FORMATS:
        raise UserError(f"--out {out}: the picture is written as {', '.join(_FORMATS)}")
    logs = [read_train_log(path) for path in args.logs]
    for log, name in zip(logs, args.names or (), strict=False):
        log.name = name
    _tell_apart(logs, args.logs)
    print(summary(logs))
    print(f"\ncurves  {plot_logs(logs, out)}")
    return 0


def _tell_apart(logs: list[TrainLog], paths: list[str]) -> None:
    names = [log.name for log in logs]
    for log, path in zip(logs, paths, strict=True):
        if names.count(log.name) > 1:
            log.name = str(path)
