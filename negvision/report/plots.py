"""Histograms and curves of OOD scores as SVG that can stand inside a page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from negvision.ood.curve import ScoreCurve
from negvision.ood.metrics import OODValues

# Okabe and Ito's blue and vermilion: they stay apart for colour-blind readers.
ID_COLOR, OOD_COLOR = "#0072B2", "#D55E00"
INK, FAINT = "#222222", "#767676"
# The model's own score is black; the others differ by colour and by dashes.
_LINES = (
    ("#111111", ()),
    ("#009E73", (5, 2)),
    ("#CC79A7", (1.5, 1.5)),
    ("#E69F00", (6, 1.5, 1.5, 1.5)),
    ("#56B4E9", (3, 1.5)),
)
# Points are kept apart by this part of the axes: less than a pixel of the plots.
_STEP = 1 / 500
# What the histogram shows of each kind; a few far outliers would squeeze all others into a bin.
_TAIL = 0.005


@dataclass(frozen=True)
class LineStyle:
    """Colour and dashes (lengths on and off, none for a full line) of a score's curves."""

    color: str
    dashes: tuple[float, ...]
    width: float


def line_styles(names: Mapping[str, object]) -> dict[str, LineStyle]:
    """A style for each score, the first of them the model's own."""
    styles = {}
    for number, name in enumerate(names):
        color, dashes = _LINES[number % len(_LINES)]
        styles[name] = LineStyle(color, dashes, 1.5 if number else 2.2)
    return styles


@dataclass(frozen=True)
class Histogram:
    """The plot of a score, and the share of the samples that lie outside of it."""

    svg: str
    outside: float


def histogram(
    scores: np.ndarray,
    is_ood: np.ndarray,
    weights: np.ndarray | None,
    name: str,
    threshold: float | None = None,
) -> Histogram:
    """Densities of a score on ID and on OOD samples, each of area 1.

    Args:
        scores: (N,) finite.
        is_ood: (N,) bool, with both kinds in it.
        weights: (N,), or None.
        name: Of the score.
        threshold: Drawn as a line where it is given.
    """
    scores = scores.astype(np.float64)
    weights = np.ones(len(scores)) if weights is None else weights
    edges = _edges(scores, is_ood, weights)
    figure = new_figure(4.8, 3.1)
    axes = figure.add_subplot()
    for kind, color in ((~is_ood, ID_COLOR), (is_ood, OOD_COLOR)):
        counts, _ = np.histogram(scores[kind], edges, weights=weights[kind])
        density = counts / weights[kind].sum() / np.diff(edges)
        axes.stairs(density, edges, fill=True, color=color, alpha=0.4, linewidth=0)
        axes.stairs(density, edges, color=color, linewidth=1.4)
    axes.set_ylim(bottom=0)
    low, high = edges[0], edges[-1]
    if threshold is not None and low <= threshold <= high:
        axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set_xlim(low, high)
    axes.set_yticks([])
    axes.set_ylabel("density")
    # Names come from a file: what looks like a formula to matplotlib is not one.
    axes.set_xlabel(f"{name} (higher = more OOD)", parse_math=False)
    outside = weights[(scores < low) | (scores > high)].sum() / weights.sum()
    return Histogram(as_svg(figure), float(outside))


def roc_plot(by_score: Mapping[str, OODValues]) -> str:
    """ROC of every score with the diagonal of chance."""
    figure = new_figure(3.3, 3.3)
    axes = unit_square(figure, "FPR: share of ID called unknown", "TPR: share of OOD found")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.1, linestyle=(0, (1, 2)))
    for name, style in reversed(line_styles(by_score).items()):
        corners = by_score[name].curve.corners()
        right = _from_zero(corners.negatives / corners.total_negatives, 0.0)
        up = _from_zero(corners.positives / corners.total_positives, 0.0)
        _draw(axes, right, up, style)
    return as_svg(figure)


def pr_plot(by_score: Mapping[str, OODValues], positive: str) -> str:
    """Precision against recall of every score, with the level of chance.

    Args:
        by_score: Figures of each score.
        positive: "OOD" or "ID".
    """
    figure = new_figure(3.3, 3.3)
    axes = unit_square(figure, f"recall: share of {positive} found", "precision")
    first = next(iter(by_score.values()))
    chance = first.prevalence if positive == "OOD" else 1 - first.prevalence
    axes.axhline(chance, color=FAINT, linewidth=1.1, linestyle=(0, (1, 2)))
    for name, style in reversed(line_styles(by_score).items()):
        curve = by_score[name].curve
        recall, precision = _precision(curve if positive == "OOD" else curve.reversed())
        # Steps: the area below them is the average precision.
        _draw(axes, recall, precision, style, drawstyle="steps-pre")
    return as_svg(figure)


def _precision(curve: ScoreCurve) -> tuple[np.ndarray, np.ndarray]:
    all_called = curve.positives + curve.negatives
    precision = (curve.positives / all_called).numpy()
    recall = _from_zero(curve.positives / curve.total_positives, 0.0)
    return recall, np.concatenate([precision[:1], precision])


def _from_zero(values: torch.Tensor, start: float) -> np.ndarray:
    return np.concatenate([[start], values.numpy()])


def _draw(axes, x: np.ndarray, y: np.ndarray, style: LineStyle, **kwargs) -> None:
    x, y = thinned(x, y)
    axes.plot(
        x,
        y,
        color=style.color,
        linewidth=style.width,
        linestyle=(0, style.dashes) if style.dashes else "-",
        dash_capstyle="butt",
        **kwargs,
    )


def thinned(x: np.ndarray, y: np.ndarray, step: float = _STEP) -> tuple[np.ndarray, np.ndarray]:
    """Points of a line such that the next one is at least about ``step`` along it.

    The first and the last stay.

    Example:
        >>> line = np.linspace(0, 1, 100_001)
        >>> len(thinned(line, line, 0.01)[0])
        201
    """
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    # Rounded: sums of many small steps may end just below a whole one.
    place = np.floor(np.round(along / step, 6)).astype(np.int64)
    keep = np.ones(len(x), dtype=bool)
    keep[1:] = place[1:] != place[:-1]
    keep[-1] = True
    return x[keep], y[keep]


def weighted_quantiles(
    values: np.ndarray, weights: np.ndarray | None, shares: list[float]
) -> np.ndarray:
    """The least values such that at least these shares of the weight are no higher."""
    order = np.argsort(values)
    total = np.cumsum(np.ones(len(values)) if weights is None else weights[order])
    places = np.searchsorted(total, np.asarray(shares) * total[-1])
    return values[order][np.minimum(places, len(values) - 1)]


def _edges(scores: np.ndarray, is_ood: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Edges of bins over the bulk of both kinds, fewer bins where there are few samples."""
    bulk = [
        weighted_quantiles(scores[kind], weights[kind], [_TAIL, 1 - _TAIL])
        for kind in (is_ood, ~is_ood)
    ]
    low, high = min(ends[0] for ends in bulk), max(ends[1] for ends in bulk)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5
    fewest = min(is_ood.sum(), (~is_ood).sum())
    bins = int(np.clip(2 * np.sqrt(fewest), 10, 80))
    return np.linspace(low, high, bins + 1)


def new_figure(width: float, height: float):
    """A figure of inches without a background, for :func:`as_svg`."""
    from matplotlib.figure import Figure

    # A figure of its own: pyplot would choose a window system, and keep the figure.
    return Figure(figsize=(width, height), layout="constrained", facecolor="none")


def unit_square(figure, x_label: str, y_label: str):
    """Axes from 0 to 1 both ways, with a grid."""
    axes = figure.add_subplot()
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_aspect("equal")
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return axes


def as_svg(figure) -> str:
    """``figure`` as an element that takes the width of what it stands in."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    for axes in figure.axes:
        axes.spines[["right", "top"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(colors=INK, labelsize=9)
        axes.xaxis.label.set(size=9.5, color=INK)
        axes.yaxis.label.set(size=9.5, color=INK)
        axes.set_axisbelow(True)
    buffer = io.StringIO()
    # Text stays text, and the same plot gives the same bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "negvision"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # A page has several plots, and groups of all of them have the same ids.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    opening, rest = text.split(">", 1)
    opening = re.sub(r' (width|height)="[^"]*"', "", opening)
    return f"{opening}>{rest}"
