"""The picture of positive and negative pairs moving apart in training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from negvision.face.pair_scores import BINS

# Okabe and Ito's blue and vermilion, which stay apart for colour-blind readers. Hue tells positives
# from negatives; an area stands for pairs of samples, a line for samples with class centres.
_POSITIVE, _NEGATIVE, _INK, _FAINT = "#0072B2", "#D55E00", "#222222", "#777777"
_KINDS = {
    "metric_negative": (_NEGATIVE, True, "two images, two identities (metric negatives)"),
    "centre_negative": (_NEGATIVE, False, "image and another identity's centre"),
    "positive": (_POSITIVE, True, "two images, one identity"),
    "own_centre": (_POSITIVE, False, "image and its own centre"),
}
# Key, title, format, and the right edge in widths of the axes.
_COLUMNS = (
    ("gap", "gap", "{:+.2f}", 1.12),
    ("metric_negative_max", "two\nimages", "{:.2f}", 1.26),
    ("centre_negative_max", "with a\ncentre", "{:.2f}", 1.38),
    ("filtered_share", "beyond\nwhiskers", "{:.1%}", 1.54),
)
_DASHED = (0, (4, 3))


def draw_pair_scores(
    moments: Sequence[dict], path: Path, whisker: float, whisker_applied: bool
) -> None:
    """Write the histograms of some moments of a training, one below the other.

    Args:
        moments: At least one, oldest first, each ``iteration``, ``epoch`` (or None), ``scalars``
            and ``histograms`` of :class:`negvision.face.pair_scores.PairScores`.
        path: A file that is there is replaced, at once.
        whisker: Length of the whiskers in interquartile ranges.
        whisker_applied: Whether the loss leaves out what is beyond them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # In inches: the header and the axis below take their room whatever the number of rows.
    width, header, row, footer = 10.0, 2.15, 1.2, 0.65
    height = header + row * len(moments) + footer
    # A figure of its own: pyplot would choose a window system, and keep the figure.
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(moments), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    figure.subplots_adjust(
        left=0.145, right=0.66, top=1 - header / height, bottom=footer / height, hspace=0.12
    )
    for axes, moment in zip(grid, moments, strict=True):
        _draw_row(axes, moment)
    grid[0].set_xlim(*_occupied(moments))
    grid[0].set_ylim(0, 1.2 * grid[0].get_ylim()[1])
    _label_columns(grid[0])
    _label_sides(grid[-1], moments[-1])
    grid[-1].set_xlabel("cosine similarity", color=_INK)
    _write_header(figure, height, moments[-1], whisker, whisker_applied)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    figure.savefig(partial, dpi=130, format="png")
    os.replace(partial, path)


def _draw_row(axes, moment: dict) -> None:
    for kind, (color, is_area, _) in _KINDS.items():
        density, edges = _density(moment["histograms"][kind])
        if is_area:
            axes.stairs(density, edges, fill=True, color=color, alpha=0.45, linewidth=0)
        else:
            axes.stairs(density, edges, color=color, linewidth=1.5)
    scalars = moment["scalars"]
    for key, face in (("centre_negative_max", "white"), ("metric_negative_max", _NEGATIVE)):
        if key in scalars:
            axes.plot(
                scalars[key], 0, "^", markersize=7, markerfacecolor=face,
                markeredgecolor=_NEGATIVE, clip_on=False, zorder=5,
            )  # fmt: skip
    for key in ("whisker_low", "whisker_high"):
        if key in scalars:
            axes.axvline(scalars[key], color=_INK, linewidth=1, linestyle=_DASHED)
    when = f"iteration {moment['iteration']:,}"
    if moment["epoch"] is not None:
        when = f"epoch {moment['epoch']}\n{when}"
    axes.set_ylabel(
        when, rotation=0, ha="right", va="center", labelpad=10, color=_INK, y=0.4, fontsize=9
    )
    for key, _, pattern, right in _COLUMNS:
        text = pattern.format(scalars[key]) if key in scalars else "-"
        axes.text(right, 0.4, text, transform=axes.transAxes, ha="right", va="center", color=_INK)
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)
    axes.tick_params(colors=_INK)


def _density(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Share of the pairs by cosine, and the edges of the bins that hold any.

    Of few pairs wider bins are shown: their ups and downs would be chance.
    """
    total = sum(counts)
    merged = 1 if total >= 5000 else 2 if total >= 500 else 4
    bins = np.asarray(counts, dtype=float).reshape(-1, merged).sum(1)
    held = np.flatnonzero(bins)
    if len(held) == 0:
        return np.zeros(1), np.zeros(2)
    first, last = held[0], held[-1] + 1
    width = 2 * merged / BINS
    return bins[first:last] / total / width, np.arange(first, last + 1) * width - 1


def _label_columns(axes) -> None:
    style = {"transform": axes.transAxes, "va": "bottom", "fontsize": 9, "color": _FAINT}
    for _, title, _, right in _COLUMNS:
        axes.text(right, 1.02, title, ha="right", **style)
    middle = (_COLUMNS[1][3] + _COLUMNS[2][3]) / 2 - 0.045
    axes.text(middle, 1.32, "highest negative", ha="center", **style)


def _label_sides(axes, moment: dict) -> None:
    """Name both sides over their peaks, where these are far enough apart for words."""
    left, right = (
        moment["scalars"].get(f"{kind}_mean") for kind in ("metric_negative", "positive")
    )
    right = moment["scalars"].get("own_centre_mean", right)
    low, high = axes.get_xlim()
    if left is None or right is None or right - left < 0.25 * (high - low):
        return
    for x, color, text, kinds in (
        (left, _NEGATIVE, "two identities", ("metric_negative", "centre_negative")),
        (right, _POSITIVE, "one identity", ("positive", "own_centre")),
    ):
        top = max(_density(moment["histograms"][kind])[0].max() for kind in kinds)
        top += 0.04 * axes.get_ylim()[1]
        axes.text(min(x, high - 0.1), top, text, ha="center", va="bottom", color=color, fontsize=9)


def _occupied(moments: Sequence[dict]) -> tuple[float, float]:
    """Where there is anything to see, to the next tenth."""
    counts = sum(np.asarray(counts) for one in moments for counts in one["histograms"].values())
    bins = np.flatnonzero(counts)
    if len(bins) == 0:
        return -1.0, 1.0
    low, high = bins[0] * 2 / BINS - 1, (bins[-1] + 1) * 2 / BINS - 1
    return np.floor(low * 10 - 0.1) / 10, np.ceil(high * 10 + 0.1) / 10


def _write_header(
    figure, height: float, moment: dict, whisker: float, whisker_applied: bool
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def at(inches: float) -> float:
        return 1 - inches / height

    figure.text(
        0.02, at(0.14), "Positive and negative pairs of training batches", va="top", fontsize=14,
        color=_INK,
    )  # fmt: skip
    figure.text(
        0.02, at(0.45),
        "All histograms have the same area. Numbers of pairs are those of the last row.\n"
        "gap: 5th percentile with the own centre less the higher 95th percentile of the negatives",
        va="top", fontsize=9, color=_FAINT,
    )  # fmt: skip
    keys = []
    for kind, (color, is_area, label) in _KINDS.items():
        label += f": {sum(moment['histograms'][kind]):,}"
        if is_area:
            keys.append(Patch(color=color, alpha=0.45, linewidth=0, label=label))
        else:
            keys.append(Line2D([], [], color=color, linewidth=1.5, label=label))
    role = (
        "the loss leaves out what is beyond" if whisker_applied else "for display, not in the loss"
    )
    keys.append(
        Line2D(
            [], [], color=_INK, linewidth=1, linestyle=_DASHED,
            label=f"whiskers, {whisker:g} IQR ({role})",
        )
    )  # fmt: skip
    keys.append(
        Line2D(
            [], [], marker="^", linestyle="", markersize=7, color=_NEGATIVE,
            label="highest negative (hollow: with a centre)",
        )
    )  # fmt: skip
    figure.legend(
        handles=keys, loc="upper left", bbox_to_anchor=(0.013, at(0.86)), ncols=2, frameon=False,
        fontsize=9, borderpad=0, labelspacing=0.35,
    )  # fmt: skip
