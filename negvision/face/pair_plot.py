"""The plot of positive and negative pairs moving apart during training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from negvision.face.pair_scores import BINS

# Okabe and Ito's blue and vermilion, which color-blind readers can tell apart. The hue separates
# positives from negatives; an area shows pairs of samples, a line samples with class centers.
_POSITIVE, _NEGATIVE, _INK, _FAINT = "#0072B2", "#D55E00", "#222222", "#777777"
_KINDS = {
    "metric_negative": (_NEGATIVE, True, "two images, two identities (metric negatives)"),
    "center_negative": (_NEGATIVE, False, "image and another identity's center"),
    "positive": (_POSITIVE, True, "two images, one identity"),
    "own_center": (_POSITIVE, False, "image and its own center"),
}
# Key, title, format, and the right edge in widths of the axes.
_COLUMNS = (
    ("gap", "gap", "{:+.2f}", 1.12),
    ("metric_negative_max", "highest\nimage pair", "{:.2f}", 1.27),
    ("center_negative_max", "highest\nwith center", "{:.2f}", 1.43),
    ("filtered_share", "beyond\nwhiskers", "{:.1%}", 1.57),
)
_DASHED = (0, (4, 3))


def draw_pair_scores(
    moments: Sequence[dict], path: Path, whisker: float, whisker_applied: bool
) -> None:
    """Write the histograms of some moments of a training run, one below the other.

    Args:
        moments: At least one, oldest first, each with ``iteration``, ``epoch`` (or None),
            ``scalars`` and ``histograms`` of :class:`negvision.face.pair_scores.PairScores`.
        path: An existing file is replaced atomically.
        whisker: Length of the whiskers in interquartile ranges.
        whisker_applied: Whether the loss leaves out the pairs beyond them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # In inches, so that header and axis keep their size whatever the number of rows.
    width, header, row, footer = 10.0, 2.15, 1.2, 0.65
    height = header + row * len(moments) + footer
    # Not by pyplot, which would choose a window system and keep the figure.
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(moments), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    figure.subplots_adjust(
        left=0.145, right=0.66, top=1 - header / height, bottom=footer / height, hspace=0.12
    )
    for axes, moment in zip(grid, moments, strict=True):
        _draw_row(axes, moment)
    for _, title, _, right in _COLUMNS:
        grid[0].text(
            right, 1.02, title, transform=grid[0].transAxes, ha="right", va="bottom", fontsize=9,
            color=_FAINT,
        )  # fmt: skip
    grid[0].set_ylim(0, None)
    grid[-1].set_xlabel("cosine similarity", color=_INK)
    role = "the loss leaves out what is beyond" if whisker_applied else "not used by the loss"
    _write_header(figure, height, moments[-1], f"whiskers, {whisker:g} IQR ({role})")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    figure.savefig(partial, dpi=130, format="png")
    os.replace(partial, path)


def _draw_row(axes, moment: dict) -> None:
    for kind, (color, is_area, _) in _KINDS.items():
        if not any(moment["histograms"][kind]):
            continue
        style = {"fill": True, "alpha": 0.45, "linewidth": 0} if is_area else {"linewidth": 1.5}
        axes.stairs(*_density(moment["histograms"][kind]), color=color, **style)
    scalars = moment["scalars"]
    for key, face in (("center_negative_max", "white"), ("metric_negative_max", _NEGATIVE)):
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
    """Share of the pairs by cosine, and the bin edges; few pairs are shown in wider bins."""
    total = sum(counts)
    merged = 1 if total >= 5000 else 2 if total >= 500 else 4
    bins = np.asarray(counts, dtype=float).reshape(-1, merged).sum(1)
    first, last = np.flatnonzero(bins)[[0, -1]] + [0, 1]
    width = 2 * merged / BINS
    return bins[first:last] / total / width, np.arange(first, last + 1) * width - 1


def _write_header(figure, height: float, moment: dict, whiskers: str) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    title = "Positive and negative pairs of training batches"
    figure.text(0.02, 1 - 0.14 / height, title, va="top", fontsize=14, color=_INK)
    notes = (
        "All histograms have the same area. Numbers of pairs are those of the last row.\n"
        "gap: 5th percentile with the own center minus the higher 95th percentile of the negatives"
    )
    figure.text(0.02, 1 - 0.45 / height, notes, va="top", fontsize=9, color=_FAINT)
    keys = []
    for kind, (color, is_area, label) in _KINDS.items():
        label += f": {sum(moment['histograms'][kind]):,}"
        if is_area:
            keys.append(Patch(color=color, alpha=0.45, linewidth=0, label=label))
        else:
            keys.append(Line2D([], [], color=color, linewidth=1.5, label=label))
    keys.append(Line2D([], [], color=_INK, linewidth=1, linestyle=_DASHED, label=whiskers))
    highest = "highest negative (hollow: with a center)"
    keys.append(
        Line2D([], [], marker="^", linestyle="", markersize=7, color=_NEGATIVE, label=highest)
    )
    figure.legend(
        handles=keys, loc="upper left", bbox_to_anchor=(0.013, 1 - 0.86 / height), ncols=2,
        frameon=False, fontsize=9, borderpad=0, labelspacing=0.35,
    )  # fmt: skip
