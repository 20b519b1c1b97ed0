"""Plots as SVG elements for HTML pages."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from negvision.ood.metrics import OODValues
from negvision.report.page_parts import Plot
from negvision.report.train_log import Curve

# Blue and vermilion of Okabe and Ito: color-blind readers can tell them apart.
ID_COLOR, OOD_COLOR = "#0072B2", "#D55E00"
_INK, _FAINT, _GRID = "#222222", "#767676", "#e6e6e6"
# The first line is black and solid; the others differ in color and in dashes.
_LINES = (
    ("#111111", ()),
    ("#009E73", (5, 2)),
    ("#CC79A7", (1.5, 1.5)),
    ("#E69F00", (6, 1.5, 1.5, 1.5)),
    ("#56B4E9", (3, 1.5)),
)
_CHANCE: dict[str, Any] = {"color": _FAINT, "linewidth": 1.1, "linestyle": (0, (1, 2))}
_MOST_BARS = 24


@dataclass(frozen=True)
class LineStyle:
    """Color, dashes (lengths on and off; empty for a solid line), and width of a line."""

    color: str
    dashes: tuple[float, ...]
    width: float


# Of :func:`roc_plot` and :func:`pr_plot`, for legends.
CHANCE_LINE = LineStyle(_FAINT, (1, 2), 1.1)


def line_styles(names: Iterable[str]) -> dict[str, LineStyle]:
    """A style for each name; the first line is the boldest."""
    return {
        name: LineStyle(*_LINES[number % len(_LINES)], 1.5 if number else 2.2)
        for number, name in enumerate(names)
    }


def histogram(
    scores: np.ndarray,
    is_second: np.ndarray,
    names: tuple[str, str],
    x_label: str,
    title: str,
    weights: np.ndarray | None = None,
    threshold: float | None = None,
    tail: float = 0.0,
) -> tuple[Plot, float]:
    """Densities of two kinds of samples, each of area 1, and the share of samples outside the plot.

    Args:
        scores: (N,) finite.
        is_second: (N,) bool, with both values present.
        names: Of both kinds.
        x_label: Of the scores.
        title: Of the plot.
        weights: (N,), or None.
        threshold: Drawn as a line if given and in range.
        tail: Share of each kind cut off at each end, so that outliers do not squeeze the rest.
    """
    scores = scores.astype(np.float64)
    weights = np.ones(len(scores)) if weights is None else weights
    kinds = (~is_second, is_second)
    bulk = [weighted_quantiles(scores[k], weights[k], [tail, 1 - tail]) for k in kinds]
    low, high = min(ends[0] for ends in bulk), max(ends[1] for ends in bulk)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5
    bins = int(np.clip(2 * np.sqrt(min(kind.sum() for kind in kinds)), 10, 80))
    edges = np.linspace(low, high, bins + 1)
    axes = _axes(4.8, 3.3, y_label="density")
    means = []
    for kind, color, name in zip(kinds, (ID_COLOR, OOD_COLOR), names, strict=True):
        counts, _ = np.histogram(scores[kind], edges, weights=weights[kind])
        density = counts / weights[kind].sum() / np.diff(edges)
        axes.stairs(density, edges, fill=True, color=color, alpha=0.4, linewidth=0)
        axes.stairs(density, edges, color=color, linewidth=1.4, label=name)
        means.append(f"{name} {np.average(scores[kind], weights=weights[kind]):.3f}")
    axes.set(ylim=(0, None), xlim=(low, high), yticks=[])
    axes.legend(fontsize=9, frameon=False, labelcolor=_INK)
    if threshold is not None and low <= threshold <= high:
        axes.axvline(threshold, color=_INK, linewidth=1.2, linestyle=(0, (4, 3)))
    # Names come from files and must not be parsed as formulas.
    axes.set_xlabel(x_label, parse_math=False)
    outside = weights[(scores < low) | (scores > high)].sum() / weights.sum()
    plot = Plot(title, _svg(axes), f"{title}; mean of {', of '.join(means)}.")
    return plot, float(outside)


def count_bars(counts: np.ndarray, x_label: str, y_label: str, title: str) -> Plot:
    """A bar for each number from 0 on; larger numbers share the last bar."""
    if counts.max(initial=0) > _MOST_BARS:
        x_label += f" ({_MOST_BARS}: that or more)"
    bars = np.bincount(np.minimum(counts, _MOST_BARS), minlength=1)
    axes = _axes(4.8, 3.3, x_label, y_label)
    colors = [OOD_COLOR, *[ID_COLOR] * (len(bars) - 1)]
    axes.bar(np.arange(len(bars)), bars, color=colors, alpha=0.75, width=0.8)
    axes.locator_params(axis="x", integer=True)
    return Plot(title, _svg(axes), f"{title}: {int(bars[0])} with none.")


def roc_plot(by_score: Mapping[str, OODValues]) -> Plot:
    """ROC of every score, with the diagonal of chance."""
    axes = _unit_square("FPR: share of ID called unknown", "TPR: share of OOD found")
    _chance(axes, [0, 1])
    for name, style in reversed(line_styles(by_score).items()):
        corners = by_score[name].curve.corners()
        right = np.append(0.0, corners.negatives / corners.total_negatives)
        up = np.append(0.0, corners.positives / corners.total_positives)
        _line(axes, right, up, style)
    areas = ", ".join(f"{name} {values.auroc:.4f}" for name, values in by_score.items())
    return Plot("ROC", _svg(axes), f"ROC, OOD positive. AUROC: {areas}; chance is 0.5.")


def pr_plot(by_score: Mapping[str, OODValues], positive: str) -> Plot:
    """Precision against recall of every score, with the chance level; "OOD" or "ID" positive."""
    is_ood = positive == "OOD"
    axes = _unit_square(f"recall: share of {positive} found", "precision")
    prevalence = next(iter(by_score.values())).prevalence
    chance = prevalence if is_ood else 1 - prevalence
    axes.axhline(chance, **_CHANCE)
    for name, style in reversed(line_styles(by_score).items()):
        curve = by_score[name].curve
        curve = curve if is_ood else curve.reversed()
        precision = (curve.positives / (curve.positives + curve.negatives)).numpy()
        recall = np.append(0.0, curve.positives / curve.total_positives)
        # The area below the steps is the average precision.
        precision = np.append(precision[:1], precision)
        _line(axes, recall, precision, style, drawstyle="steps-pre")
    title = f"Precision and recall, {positive} positive"
    areas = [f"{name} {v.ap_out if is_ood else v.ap_in:.4f}" for name, v in by_score.items()]
    alt = f"{title}. Average precision: {', '.join(areas)}; chance is {chance:.4f}."
    return Plot(title, _svg(axes), alt)


def precision_plot(title: str, curves: Mapping[str, np.ndarray], recall: np.ndarray) -> Plot:
    """Precision of each line against ``recall``, (R,) ascending, in [0, 1]."""
    axes = _unit_square("recall", "precision")
    for name, style in line_styles(curves).items():
        _line(axes, recall, curves[name], style, linewidth=style.width * 0.8)
    means = ", ".join(f"{name} {values.mean():.3f}" for name, values in curves.items())
    return Plot(title, _svg(axes), f"Precision against recall, {title}; mean: {means}")


def reliability_plot(title: str, confidence: np.ndarray, precision: np.ndarray) -> Plot:
    """Share of right detections against their mean score, (B,) each, with the line of equality."""
    axes = _unit_square("mean score", "share that is right")
    _chance(axes, [0, 1])
    known = ~np.isnan(precision)
    axes.plot(confidence[known], precision[known], color=ID_COLOR, linewidth=1.8, marker="o")
    pairs = zip(confidence[known], precision[known], strict=True)
    points = ", ".join(f"{score:.2f}: {right:.2f}" for score, right in pairs)
    return Plot(title, _svg(axes), f"{title}. Share that is right by mean score: {points}")


def froc_plot(recall: np.ndarray, rate: np.ndarray) -> Plot:
    """Recall against false positives per image, (N,) each, ascending, on a logarithmic axis."""
    axes = _axes(4.8, 3.3, "false positives per image", "recall")
    left = 2.0**-7
    axes.step(np.maximum(rate, left), recall, where="post", color=ID_COLOR, linewidth=1.8)
    axes.set(xscale="log", xlim=(left, max(2.0**4, rate[-1])), ylim=(0, 1.02))
    axes.grid(color=_GRID, linewidth=0.8)
    text = f"Recall against false positives per image; at most {recall[-1]:.3f} of the objects."
    return Plot("FROC", _svg(axes), text)


def roc_of_pairs(far: np.ndarray, tar: np.ndarray, negatives: int, title: str) -> Plot:
    """TAR against FAR on a logarithmic axis that starts below the FAR of a single pair."""
    left = 0.5 / negatives
    axes = _axes(
        3.6, 3.3, "FAR: share of impostor pairs accepted", "TAR: share of genuine pairs accepted"
    )
    axes.plot(np.maximum(far, left), tar, color=ID_COLOR, linewidth=1.8)
    _chance(axes, np.geomspace(left, 1))
    axes.set(xscale="log", xlim=(left, 1), ylim=(0, 1.02))
    axes.grid(color=_GRID, linewidth=0.8)
    return Plot(title, _svg(axes), "TAR against FAR; the dotted line is chance.")


def curve_panel(
    title: str,
    curves: Mapping[str, Curve],
    styles: Mapping[str, LineStyle],
    from_zero: bool,
) -> Plot:
    """Values against iterations, a line for each run; ``from_zero`` starts the values at 0."""
    axes = _axes(3.5, 2.4)
    draw_curves(axes, curves, styles, from_zero)
    ends = [f"{name}: {v[0]:.4g} to {v[-1]:.4g}" for name, (_, v) in curves.items()]
    return Plot(title, _svg(axes), f"{title} against iterations; {'; '.join(ends)}")


def draw_curves(
    axes, curves: Mapping[str, Curve], styles: Mapping[str, LineStyle], from_zero: bool
) -> None:
    """Draw the lines of :func:`curve_panel` into matplotlib's ``axes``."""
    for name, (steps, values) in curves.items():
        y = np.asarray(values, float)
        finite = np.isfinite(y)
        x = np.asarray(steps, float)[finite]
        marker = "o" if len(steps) < 12 else None
        options = {"linewidth": styles[name].width * 0.8, "markersize": 3.5, "label": name}
        _line(axes, x, y[finite], styles[name], marker=marker, **options)
    axes.set_xlabel("iteration")
    axes.set_xlim(left=0)
    if from_zero:
        axes.set_ylim(bottom=0)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.locator_params(axis="x", nbins=5)


def _chance(axes, line) -> None:
    axes.plot(line, line, **_CHANCE)


def _line(axes, x: np.ndarray, y: np.ndarray, style: LineStyle, **kwargs) -> None:
    options = {"linewidth": style.width, "dash_capstyle": "butt", **kwargs}
    dashes = (0, style.dashes) if style.dashes else "-"
    axes.plot(*thinned(x, y), color=style.color, linestyle=dashes, **options)


def thinned(x: np.ndarray, y: np.ndarray, step: float = 1 / 500) -> tuple[np.ndarray, np.ndarray]:
    """The points of a line that are about ``step`` of the axes apart, and its two ends.

    The default is less than a pixel of the plots.

    Example:
        >>> line = np.linspace(0, 1, 100_001)
        >>> len(thinned(line, line, 0.01)[0])
        201
    """
    if len(x) < 3:
        return x, y
    moves = [np.abs(np.diff(values)) / max(np.ptp(values), 1e-12) for values in (x, y)]
    along = np.append(0.0, np.cumsum(moves[0] + moves[1]))
    # Rounded, since a sum of many small steps may fall just short of an integer.
    place = np.floor(np.round(along / step, 6)).astype(np.int64)
    keep = np.append(True, place[1:] != place[:-1])
    keep[-1] = True
    return x[keep], y[keep]


def weighted_quantiles(
    values: np.ndarray, weights: np.ndarray | None, shares: list[float]
) -> np.ndarray:
    """The smallest values with at least these shares of the weight at or below them."""
    order = np.argsort(values)
    total = np.cumsum(np.ones(len(values)) if weights is None else weights[order])
    places = np.searchsorted(total, np.asarray(shares) * total[-1])
    return values[order][np.minimum(places, len(values) - 1)]


def _axes(width: float, height: float, x_label: str = "", y_label: str = ""):
    """Axes in a figure of ``width`` x ``height`` inches without a background."""
    # pyplot would choose a window system and keep the figure.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return axes


def _unit_square(x_label: str, y_label: str):
    axes = _axes(3.3, 3.3, x_label, y_label)
    ticks = np.linspace(0, 1, 6)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xticks=ticks, yticks=ticks, aspect="equal")
    axes.grid(color=_GRID, linewidth=0.8)
    return axes


def _svg(axes) -> Markup:
    """The figure of ``axes`` as an element that fills the width of its container."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    axes.spines[["right", "top"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(colors=_INK, labelsize=9)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(size=9.5, color=_INK)
    axes.set_axisbelow(True)
    buffer = io.StringIO()
    # Text stays text, and the same plot gives the same bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "negvision"}):
        FigureCanvasSVG(axes.figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Matplotlib uses the same group ids in every plot; a page has several.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    opening, rest = text.split(">", 1)
    opening = re.sub(r' (width|height)="[^"]*"', "", opening)
    return Markup(f"{opening}>{rest}")
