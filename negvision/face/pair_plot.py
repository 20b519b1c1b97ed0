"""The plot of positive and negative pairs moving apart during training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from negvision.face.pair_scores import BINS
from negvision.files import atomic_write

# Okabe and Ito's blue and vermilion, which color-blind readers can tell apart. The hue separates
# positives from negatives; an area shows pairs of samples, a line samples with class centers.
_POSITIVE, _NEGATIVE, _INK = "#0072B2", "#D55E00", "#222222"
_KINDS = {
    "metric_negative": (_NEGATIVE, True, "two images, two identities (metric negatives)"),
    "center_negative": (_NEGATIVE, False, "image and another identity's center"),
    "positive": (_POSITIVE, True, "two images, one identity"),
    "own_center": (_POSITIVE, False, "image and its own center"),
}
# Numbers above each row: key, name, format.
_NUMBERS = (
    ("gap", "gap", "{:+.2f}"),
    ("metric_negative_max", "highest metric negative", "{:.2f}"),
    ("center_negative_max", "with a center", "{:.2f}"),
    ("filtered_share", "beyond the whiskers", "{:.1%}"),
)


def draw_pair_scores(
    moments: Sequence[dict], path: Path, whisker: float, whisker_applied: bool
) -> None:
    """Write the histograms of some moments of a training run, one below the other.

    Args:
        moments: At least one, oldest first, each with ``iteration``, ``epoch`` (or None),
            ``scalars`` and ``histograms`` of :class:`negvision.face.pair_scores.PairScores`.
        path: Of the PNG file; an existing one is replaced atomically.
        whisker: Length of the whiskers in interquartile ranges.
        whisker_applied: Whether the loss leaves out the pairs beyond them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    role = "the loss leaves out what is beyond" if whisker_applied else "not used by the loss"
    # Not by pyplot, which would choose a window system and keep the figure.
    figure = Figure(figsize=(10, 1.8 + 1.5 * len(moments)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(moments), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, moment in zip(grid, moments, strict=True):
        _draw_row(axes, moment, f"whiskers, {whisker:g} IQR ({role})")
    grid[0].set_ylim(0, None)
    grid[-1].set_xlabel(
        "cosine similarity\n(all histograms have the same area; gap: 5th percentile with the own "
        "center minus the higher 95th percentile of the negatives)"
    )
    handles, labels = grid[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=130, format="png")


def _draw_row(axes, moment: dict, whiskers: str) -> None:
    scalars = moment["scalars"]
    for kind, (color, is_area, name) in _KINDS.items():
        counts = moment["histograms"][kind]
        if any(counts):
            style = {"fill": True, "alpha": 0.45, "linewidth": 0} if is_area else {"linewidth": 1.5}
            axes.stairs(*_density(counts), color=color, label=f"{name}: {sum(counts):,}", **style)
    for key, label in (("whisker_low", whiskers), ("whisker_high", None)):
        if key in scalars:
            axes.axvline(scalars[key], color=_INK, linewidth=1, linestyle="--", label=label)
    for key, face, label in (
        ("metric_negative_max", _NEGATIVE, "highest metric negative"),
        ("center_negative_max", "white", "highest negative with a center"),
    ):
        if key in scalars:
            style = {"markerfacecolor": face, "markeredgecolor": _NEGATIVE, "markersize": 7}
            axes.plot(scalars[key], 0, "^", clip_on=False, zorder=5, label=label, **style)
    when = "" if moment["epoch"] is None else f"epoch {moment['epoch']}, "
    numbers = [
        f"{name} {form.format(scalars[key])}" for key, name, form in _NUMBERS if key in scalars
    ]
    caption = "     ".join([f"{when}iteration {moment['iteration']:,}", *numbers])
    axes.set_title(caption, loc="left", fontsize=9, color=_INK)
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)


def _density(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Share of the pairs by cosine, and the bin edges; few pairs are shown in wider bins."""
    total = sum(counts)
    merged = 1 if total >= 5000 else 2 if total >= 500 else 4
    bins = np.asarray(counts, dtype=float).reshape(-1, merged).sum(1)
    first, last = np.flatnonzero(bins)[[0, -1]] + [0, 1]
    width = 2 * merged / BINS
    return bins[first:last] / total / width, np.arange(first, last + 1) * width - 1
