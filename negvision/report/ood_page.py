"""The page of an OOD evaluation: what the scores are worth, and where they go wrong."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from negvision.ood.metrics import METRIC_NAMES, OODValues
from negvision.ood.records import (
    REFERENCE_PREVALENCE,
    OODEvaluation,
    OODRecords,
    Stratum,
    evaluate_records,
    per_image_values,
    stratum_gap,
)
from negvision.report.image_samples import color_bar, heat_limits, heat_maps, most_wrong
from negvision.report.page_parts import Plots
from negvision.report.plots import (
    CHANCE_LINE,
    ID_COLOR,
    OOD_COLOR,
    THRESHOLD_LINE,
    histogram,
    line_styles,
    pr_plot,
    roc_plot,
)
from negvision.report.rendering import cell, rendered

_NOUNS = {"boxes": ("box", "boxes"), "pixels": ("pixel", "pixels"), "images": ("image", "images")}
# Notes that hold a threshold for the model's own score, and their names on the page.
_THRESHOLDS = {
    "ood_threshold": "the model's threshold",
    "f1_threshold": "the threshold with the best F1 of pixels",
}
_AP_AT = "ap_at_reference"
_WORST_IMAGES = 10


def ood_page(records: OODRecords, title: str, source: str = "", resamples: int = 1000) -> str:
    """A self-contained HTML page about ``records``.

    Names and paths are escaped. The page's own policy forbids scripts and network access.

    Args:
        records: Scored boxes, pixels, or images.
        title: Of the page.
        source: The file of the records, named in the footer.
        resamples: Bootstrap resamples for the intervals.

    Raises:
        OODDataError: There is no OOD or no ID sample, or a score is not finite.

    Example::

        records = OODRecords.load("work_dirs/abet/ood_scores.npz")
        Path("cards.html").write_text(ood_page(records, "Cards"))
    """
    context = _context(evaluate_records(records, resamples))
    anchors = {"data": "Data", "metrics": "Metrics", "scores": "Scores", "curves": "Curves"}
    if context["strata"]:
        anchors["strata"] = "Groups"
    if records.task == "pixels":
        anchors["per-image"] = "Single images"
    if context["wrong"] or context["heat_maps"]:
        anchors["wrong"] = "Most wrong"
    top = {"title": title, "source": source, "anchors": anchors, "command": "ood-report"}
    return rendered("ood_page.html", **top, **context)


def ood_sections(records: OODRecords, prefix: str, resamples: int = 1000) -> Markup:
    """The content of :func:`ood_page`, for a section of another page.

    Args:
        records, resamples: As in :func:`ood_page`.
        prefix: Of all ids.

    Raises:
        OODDataError: As in :func:`ood_page`.
    """
    context = _context(evaluate_records(records, resamples)) | {"prefix": prefix, "shift": 1}
    parts = (rendered(name, **context) for name in ("ood_summary.html", "ood_sections.html"))
    return Markup("".join(parts))


def _context(evaluation: OODEvaluation) -> dict[str, Any]:
    records, by_score = evaluation.records, evaluation.by_score
    own, first = next(iter(by_score.items()))
    threshold, threshold_name = _threshold(records)
    table = columns(records.task, first.prevalence)
    one, many = _NOUNS[records.task]
    return {
        "prefix": "",
        "shift": 0,
        "task": records.task,
        "one": one,
        "many": many,
        "own": own,
        "metrics": first,
        "sampled": None if records.weights is None else len(records.is_ood),
        "num_images": len(records.paths),
        "num_ood_images": len(np.unique(records.image[records.is_ood])),
        "classes": records.classes,
        "notes": {key: _note(value) for key, value in records.notes.items()},
        "columns": table,
        "rows": [
            (name, [(c.value(values), values.intervals.get(c.key)) for c in table])
            for name, values in by_score.items()
        ],
        "has_intervals": bool(first.intervals),
        "histogram": histogram(
            records.scores[own], records.is_ood, records.weights, own, threshold
        ),
        "threshold": threshold,
        "threshold_name": threshold_name,
        "colors": {"ID": ID_COLOR, "OOD": OOD_COLOR},
        "threshold_line": THRESHOLD_LINE,
        "curves": _curves(by_score, own),
        "strata": {kind: _stratum_rows(parts) for kind, parts in evaluation.strata.items()},
        "per_image": _per_image(records) if records.task == "pixels" else None,
        **_images(records, threshold),
    }


def _curves(by_score: Mapping[str, OODValues], own: str) -> Plots:
    legend = {
        f"{name} (the model's own)" if name == own else name: style
        for name, style in line_styles(by_score).items()
    }
    plots = [roc_plot(by_score), pr_plot(by_score, "OOD"), pr_plot(by_score, "ID")]
    share = by_score[own].prevalence
    caption = (
        f"Chance level of precision: with OOD positive, the prevalence, {share:.4f}; with ID "
        f"positive, {1 - share:.4f}."
    )
    return Plots("", plots, {**legend, "chance level": CHANCE_LINE}, caption)


def _images(records: OODRecords, threshold: float | None) -> dict[str, Any]:
    of_pixels = records.task == "pixels"
    wrong = {} if of_pixels else most_wrong(records, threshold=threshold)
    maps = heat_maps(records) if of_pixels else []
    samples = [*maps, *(sample for kind in wrong.values() for sample in kind)]
    return {
        "wrong": wrong,
        "heat_maps": maps,
        "heat_limits": heat_limits(records),
        "color_bar": color_bar(),
        "num_missing": sum(bool(sample.problem) for sample in samples),
    }


def _note(value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) else cell(value)


def _threshold(records: OODRecords) -> tuple[float | None, str]:
    for key, name in _THRESHOLDS.items():
        value = records.notes.get(key)
        if isinstance(value, int | float):
            return float(value), name
    return None, ""


@dataclass(frozen=True)
class Column:
    """A metric in a table.

    Attributes:
        key: Of ``OODValues``, or the AP at the reference prevalence.
        head: Header of the column.
        better: "higher" or "lower".
        chance: The value of uninformative scores.
        meaning: Explanation for readers.
    """

    key: str
    head: str
    better: str
    chance: float
    meaning: str

    def value(self, values: OODValues) -> float:
        """This metric of ``values``."""
        if self.key == _AP_AT:
            return values.ap_at(REFERENCE_PREVALENCE)
        return getattr(values, self.key)


def columns(task: str, prevalence: float) -> list[Column]:
    """The columns of the table of scores.

    Args:
        task: "boxes", "pixels", or "images".
        prevalence: Share of OOD samples, in [0, 1].
    """
    one, many = _NOUNS[task]
    meanings = {
        "auroc": f"The probability that a random OOD {one} scores higher than a random ID {one}; "
        "ties count one half. It is the same in both directions.",
        "ap_out": "Average precision with OOD as the positive class: the precision of the "
        f"{many} called unknown, averaged over recall. Its chance level is the share of OOD, so it "
        "cannot be compared between data sets with different shares.",
        "ap_in": f"Average precision with ID as the positive class: the precision of the {many} "
        "called known, averaged over recall.",
        "fpr95_ood": f"OOD positive: the share of ID {many} called unknown at the threshold that "
        "finds 95 % of the OOD.",
        "fpr95_id": f"ID positive: the share of OOD {many} that pass as known at the threshold "
        "that keeps 95 % of the ID.",
        _AP_AT: f"AP out if {100 * REFERENCE_PREVALENCE:.0f} % of the {many} were OOD, which can "
        "be compared between data sets.",
    }
    heads = ("AUROC", "AP out", "AP in", "FPR95 ood+", "FPR95 id+", f"AP@{REFERENCE_PREVALENCE:g}")
    better = ("higher", "higher", "higher", "lower", "lower", "higher")
    chance = (0.5, prevalence, 1 - prevalence, 0.95, 0.95, REFERENCE_PREVALENCE)
    values = zip(meanings, heads, better, chance, meanings.values(), strict=True)
    return [Column(*one) for one in values]


def _stratum_rows(parts: Sequence[Stratum]) -> tuple[list[tuple], list[float | None]]:
    """Each part with its values in the order of ``METRIC_NAMES``, and the gaps between parts."""
    none = dict.fromkeys(METRIC_NAMES)
    rows = [
        (part, list((none if part.metrics is None else part.metrics.as_dict()).values()))
        for part in parts
    ]
    return rows, [stratum_gap(parts, name) for name in METRIC_NAMES]


def _per_image(records: OODRecords) -> dict[str, Any] | None:
    """The spread over images and the worst images; None for fewer than two with OOD and ID."""
    by_image = per_image_values(records)
    if len(by_image) < 2:
        return None
    values = [[getattr(one, name) for one in by_image.values()] for name in METRIC_NAMES]
    spread = {"lowest": min, "median": statistics.median, "highest": max}
    ranked = sorted(by_image.items(), key=lambda pair: pair[1].auroc)[:_WORST_IMAGES]
    return {
        "count": len(by_image),
        "spread": [(name, list(map(function, values))) for name, function in spread.items()],
        "worst": [(str(records.paths[k]), list(one.as_dict().values())) for k, one in ranked],
    }
