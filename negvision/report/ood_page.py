"""The page of an OOD evaluation: what the scores are worth, and where they go wrong."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from negvision.report.image_samples import heat_limits, heat_maps, most_wrong
from negvision.report.page_parts import Gallery, MetricRow, MetricTable, Plots, Section
from negvision.report.plots import (
    CHANCE_LINE,
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
_HEADS = ("AUROC", "AP out", "AP in", "FPR95 ood+", "FPR95 id+", f"AP@{REFERENCE_PREVALENCE:g}")
# Share of ID and of OOD samples cut off at each end of the histogram.
_TAIL = 0.005
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
    anchors = {"data": "Data", "metrics": "Metrics"}
    anchors |= {section.anchor: section.title for section in context["sections"]}
    top = {"title": title, "source": source, "anchors": anchors, "command": "ood-report"}
    return rendered("ood_page.html", **top, **context)


def ood_sections(records: OODRecords, prefix: str, resamples: int = 1000) -> Markup:
    """The content of :func:`ood_page`, for a section of another page; ``prefix`` starts all ids."""
    context = _context(evaluate_records(records, resamples)) | {"prefix": prefix, "shift": 1}
    parts = (rendered(name, **context) for name in ("ood_summary.html", "ood_sections.html"))
    return Markup("".join(parts))


def _context(evaluation: OODEvaluation) -> dict[str, Any]:
    records, by_score = evaluation.records, evaluation.by_score
    own, first = next(iter(by_score.items()))
    table = columns(records.task, first.prevalence)
    one, many = _NOUNS[records.task]
    sections = [
        Section("scores", f"Scores of ID and OOD {many}", [_histogram(records, own)]),
        Section("curves", "Curves", [_curves(by_score, own)]),
    ]
    if evaluation.strata:
        sections.append(Section("strata", "By group", _groups(evaluation.strata, own)))
    if records.task == "pixels":
        tables = _per_image(records)
        missing = "" if tables else "Fewer than two images have OOD and ID pixels."
        sections.append(Section("per-image", "Single images", tables, missing))
    if galleries := _galleries(records):
        sections.append(Section("wrong", "Where the score is most wrong", galleries))
    return {
        "prefix": "",
        "shift": 0,
        "task": records.task,
        "one": one,
        "many": many,
        "own": own,
        "facts": _facts(records, first),
        "notes": {key: _note(value) for key, value in records.notes.items()},
        "columns": table,
        "rows": [
            (name, [(c.value(values), values.intervals.get(c.key)) for c in table])
            for name, values in by_score.items()
        ],
        "has_intervals": bool(first.intervals),
        "sections": sections,
    }


def _facts(records: OODRecords, values: OODValues) -> dict[str, str]:
    one, many = _NOUNS[records.task]
    images = f"{len(records.paths):,}"
    if records.task != "images":
        images += f", {len(np.unique(records.image[records.is_ood])):,} of them with OOD {many}"
    names = [*records.classes[:40], *["…"] * (len(records.classes) > 40)]
    facts = {
        "Task": f"{records.task}: one score per {one}",
        f"OOD {many}": f"{values.num_ood:,.0f}",
        f"ID {many}": f"{values.num_id:,.0f}",
        "Prevalence": f"{values.prevalence:.4f} of the {many} are OOD, the chance level of AP out",
        "Images": images,
        "ID classes": f"{len(records.classes)}: {', '.join(names)}",
    }
    if records.weights is not None:
        facts["Sample"] = (
            f"{len(records.is_ood):,} {many} are in the file, weighted to represent all. This page "
            f"computes all metrics from them; those in the log of the evaluation may use every "
            f"{one} and differ slightly."
        )
    return facts


def _histogram(records: OODRecords, own: str) -> Plots:
    many = _NOUNS[records.task][1]
    threshold, threshold_name = _threshold(records)
    label = f"{own} (higher = more OOD)"
    scores = records.scores[own]
    options = {"weights": records.weights, "threshold": threshold, "tail": _TAIL}
    plot, outside = histogram(scores, records.is_ood, ("ID", "OOD"), label, "Densities", **options)
    caption = f"Both areas are 1. Where they overlap, the score {own} cannot separate ID from OOD."
    if threshold is not None:
        caption += (
            f" Dashed line: {threshold_name}, {threshold:.4g}; higher scores are called unknown."
        )
    if outside:
        caption += f" {100 * outside:.2g} % of the {many} have scores outside the plot."
    return Plots("", [plot], caption=caption)


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


def _groups(strata: Mapping[str, Sequence[Stratum]], own: str) -> list[MetricTable]:
    """A table for each kind of group, with the gap between the best and the worst group."""
    caption = (
        f"Metrics of {own}. AP depends on each group's own share of OOD: compare groups by AUROC "
        "and FPR95. A dash means that the group lacks OOD or ID."
    )
    tables = []
    for kind, parts in strata.items():
        rows = []
        for part in parts:
            values = [None] * 5 if part.metrics is None else part.metrics.as_dict().values()
            counts = [f"{part.num_ood:,.0f}", f"{part.num_id:,.0f}"]
            rows.append(MetricRow(part.name, [*counts, *_four_decimals(values)]))
        gaps = [stratum_gap(parts, name) for name in METRIC_NAMES]
        rows.append(MetricRow("gap", ["", "", *_four_decimals(gaps)]))
        tables.append(MetricTable(kind, kind, ("OOD", "ID", *_HEADS[:5]), rows, caption))
    return tables


def _per_image(records: OODRecords) -> list[MetricTable]:
    """The spread over images and the worst images; none for fewer than two with OOD and ID."""
    by_image = per_image_values(records)
    if len(by_image) < 2:
        return []
    values = [[getattr(one, name) for one in by_image.values()] for name in METRIC_NAMES]
    spread = {"lowest": min, "median": statistics.median, "highest": max}
    rows = [MetricRow(name, _four_decimals(map(of, values))) for name, of in spread.items()]
    ranked = sorted(by_image.items(), key=lambda pair: pair[1].auroc)[:_WORST_IMAGES]
    worst = [
        MetricRow(str(records.paths[image]), _four_decimals(one.as_dict().values()))
        for image, one in ranked
    ]
    title = f"Each of the {len(by_image):,} images with OOD and ID pixels"
    return [
        MetricTable(title, "over images", _HEADS[:5], rows),
        MetricTable("Images with the lowest AUROC", "image", _HEADS[:5], worst),
    ]


def _galleries(records: OODRecords) -> list[Gallery]:
    one, many = _NOUNS[records.task]
    galleries = []
    if records.task == "pixels":
        low, high = heat_limits(records)
        caption = (
            "Lowest AUROC first. Bright pixels look unknown: scores are black up to "
            f"{low:.2f} and pale yellow from {high:.2f}."
        )
        if samples := heat_maps(records):
            galleries = [Gallery("Images beside the map of their score", samples, caption)]
    else:
        each = "" if records.task == "images" else f", one {one} per image"
        titles = {"ID": "ID that looks most unknown", "OOD": "OOD that looks most known"}
        for kind, samples in most_wrong(records, threshold=_threshold(records)[0]).items():
            caption = f"The worst {many} first{each}."
            if not samples:
                caption = f"None: no OOD {one} scores lower than an ID {one}."
            galleries.append(Gallery(titles[kind], samples, caption))
    unread = sum(bool(sample.problem) for one in galleries for sample in one.samples)
    if unread:
        notice = (
            f" {unread} image files could not be read. Relative paths start in the folder where "
            "negvision test ran: run negvision ood-report there to see the images."
        )
        galleries[0] = replace(galleries[0], caption=galleries[0].caption + notice)
    return galleries


def _four_decimals(values: Iterable[float | None]) -> list[str | None]:
    return [None if value is None else f"{value:.4f}" for value in values]


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
    """A metric in a table: its key in ``OODValues`` or that of the AP at the reference prevalence,
    its name, whether "higher" or "lower" is better, the value of chance, and an explanation."""

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
    """The columns of the table of scores, for a share of OOD samples in [0, 1]."""
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
    better = ("higher", "higher", "higher", "lower", "lower", "higher")
    chance = (0.5, prevalence, 1 - prevalence, 0.95, 0.95, REFERENCE_PREVALENCE)
    values = zip(meanings, _HEADS, better, chance, meanings.values(), strict=True)
    return [Column(*one) for one in values]
