"""Curves of training and of evaluation as SVG that can stand inside the page of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from negvision.report.plots import (
    FAINT,
    ID_COLOR,
    INK,
    OOD_COLOR,
    LineStyle,
    as_svg,
    line_styles,
    new_figure,
    thinned,
    unit_square,
)
from negvision.report.run_parts import FigureRow, FigureTable, Plot, Plots

if TYPE_CHECKING:
    from negvision.report.train_log import Curve, TrainLog

_METRICS = (
    r"(?:\w+/)?(?:\w+_)?"
    r"(mAP(_50|_75)?|mIoU|mAcc|aAcc|accuracy|auroc|ap_out|fpr95_(ood|id)|id_ap|auc|eer|rank1)"
)
_MOST_PANELS = 24


def curve_parts(logs: Sequence[TrainLog]) -> list[Plots | FigureTable]:
    """A panel for each loss, the learning rate and each main metric, a line for each run.

    Args:
        logs: At least one, of different names.

    Returns:
        Plots of the training and, where there was an evaluation, of its metrics; a table of these
        where no run was evaluated twice.
    """
    losses = _keys([log.train for log in logs], _is_of_training)
    metrics = _keys(
        [log.evaluations for log in logs], lambda key: re.fullmatch(_METRICS, key) is not None
    )
    styles = line_styles({log.name: None for log in logs})
    legend = styles if len(logs) > 1 else {}
    found = []
    if losses:
        panels = [_panel(key, [(log.name, log.train) for log in logs], styles) for key in losses]
        found.append(Plots("Training", panels, legend))
    most = max((len(log.evaluations[k][0]) for log in logs for k in log.evaluations), default=0)
    if metrics and most == 1:
        rows = [
            FigureRow(key, [log.evaluations.get(key, ([], [None]))[1][0] for log in logs])
            for key in metrics
        ]
        columns = [log.name for log in logs]
        found.append(FigureTable("Evaluation during training", "metric", columns, rows))
    elif metrics:
        curves = [(log.name, log.evaluations) for log in logs]
        panels = [_panel(key, curves, styles) for key in metrics]
        found.append(Plots("Evaluations during training", panels, legend))
    return found


def _keys(of_runs: Sequence[Mapping[str, Curve]], is_shown) -> list[str]:
    keys = dict.fromkeys(key for curves in of_runs for key in curves if is_shown(key))
    return list(keys)[:_MOST_PANELS]


def _is_of_training(key: str) -> bool:
    return "loss" in key.rpartition(".")[2] or key == "lr" or key.endswith("/gap")


def _panel(
    key: str, curves: Sequence[tuple[str, Mapping[str, Curve]]], styles: Mapping[str, LineStyle]
) -> Plot:
    figure = new_figure(3.5, 2.4)
    axes = figure.add_subplot()
    ends = []
    for name, of_run in curves:
        if key not in of_run:
            continue
        steps, values = of_run[key]
        style = styles[name]
        axes.plot(
            *_thinned(np.asarray(steps, float), np.asarray(values, float)),
            color=style.color,
            linewidth=style.width * 0.8,
            linestyle=(0, style.dashes) if style.dashes else "-",
            marker="o" if len(steps) < 12 else None,
            markersize=3.5,
        )
        ends.append(f"{name}: {values[0]:.4g} to {values[-1]:.4g}")
    axes.set_xlim(left=0)
    if re.fullmatch(_METRICS, key):
        axes.set_ylim(bottom=0)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_xlabel("iteration")
    axes.locator_params(axis="x", nbins=5)
    return Plot(key, Markup(as_svg(figure)), f"{key} against iterations; {'; '.join(ends)}")


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Far fewer points of a long curve than it has: less than a pixel is lost."""
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) < 500:
        return x, y
    span = [max(values.max() - values.min(), 1e-12) for values in (x, y)]
    places, heights = thinned(x / span[0], y / span[1])
    return places * span[0], heights * span[1]


def precision_plot(title: str, curves: Mapping[str, np.ndarray], recall: np.ndarray) -> Plot:
    """Precision against recall.

    Args:
        title: Of the plot.
        curves: Name of a line to its precision, of the shape of ``recall``.
        recall: (R,) ascending, in [0, 1].
    """
    figure = new_figure(3.3, 3.3)
    axes = unit_square(figure, "recall", "precision")
    for name, style in line_styles(curves).items():
        _line(axes, recall, curves[name], style)
    means = ", ".join(f"{name} {values.mean():.3f}" for name, values in curves.items())
    return Plot(title, Markup(as_svg(figure)), f"Precision against recall, {title}; mean: {means}")


def roc_of_pairs(far: np.ndarray, tar: np.ndarray, negatives: int, title: str) -> Plot:
    """TAR against FAR on a logarithmic axis, which ends where a single pair is accepted."""
    figure = new_figure(3.6, 3.3)
    axes = figure.add_subplot()
    left = 0.5 / negatives
    axes.plot(np.maximum(far, left), tar, color=ID_COLOR, linewidth=1.8)
    line = np.geomspace(left, 1)
    axes.plot(line, line, color=FAINT, linewidth=1.1, linestyle=(0, (1, 2)))
    axes.set(xscale="log", xlim=(left, 1), ylim=(0, 1.02))
    axes.set_xlabel("FAR: share of impostor pairs accepted")
    axes.set_ylabel("TAR: share of genuine pairs accepted")
    axes.grid(color="#e6e6e6", linewidth=0.8)
    return Plot(title, Markup(as_svg(figure)), "TAR against FAR; dotted is chance.")


def two_histograms(
    first: np.ndarray, second: np.ndarray, names: tuple[str, str], x_label: str, title: str
) -> Plot:
    """Densities of two kinds of values, each of area 1, the first in blue."""
    both = np.concatenate([first, second])
    fewest = min(len(first), len(second))
    edges = np.histogram_bin_edges(both, int(np.clip(2 * np.sqrt(fewest), 10, 80)))
    figure = new_figure(4.8, 3.3)
    axes = figure.add_subplot()
    for values, color, name in zip((first, second), (ID_COLOR, OOD_COLOR), names, strict=True):
        density, _ = np.histogram(values, edges, density=True)
        axes.stairs(density, edges, fill=True, color=color, alpha=0.4, linewidth=0)
        axes.stairs(density, edges, color=color, linewidth=1.4, label=name)
    axes.legend(fontsize=9, frameon=False, labelcolor=INK)
    axes.set_yticks([])
    axes.set_ylabel("density")
    axes.set_xlabel(x_label)
    means = f"mean of {names[0]} {first.mean():.3f}, of {names[1]} {second.mean():.3f}"
    return Plot(title, Markup(as_svg(figure)), f"{title}; {means}.")


def count_bars(counts: np.ndarray, x_label: str, y_label: str, title: str) -> Plot:
    """A bar for each number from 0 on; all from the last bar on share it."""
    most = 24
    bars = np.bincount(
        np.minimum(counts, most), minlength=min(int(counts.max(initial=0)), most) + 1
    )
    figure = new_figure(4.8, 3.3)
    axes = figure.add_subplot()
    colors = [OOD_COLOR, *[ID_COLOR] * (len(bars) - 1)]
    axes.bar(np.arange(len(bars)), bars, color=colors, alpha=0.75, width=0.8)
    if counts.max(initial=0) > most:
        x_label += f" ({most}: that or more)"
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.locator_params(axis="x", integer=True)
    return Plot(title, Markup(as_svg(figure)), f"{title}: {int(bars[0])} with none.")


def _line(axes, x: np.ndarray, y: np.ndarray, style: LineStyle) -> None:
    dashes = (0, style.dashes) if style.dashes else "-"
    axes.plot(x, y, color=style.color, linewidth=style.width * 0.8, linestyle=dashes)
