"""The page of an OOD evaluation: what its scores are worth, and where they go wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from negvision.ood.records import OODEvaluation, OODRecords, evaluate_records
from negvision.report.figures import NOUNS, columns, per_image, score_rows, stratum_rows
from negvision.report.pictures import color_bar, heat_limits, heat_maps, most_wrong
from negvision.report.plots import (
    ID_COLOR,
    OOD_COLOR,
    histogram,
    line_styles,
    pr_plot,
    roc_plot,
)
from negvision.report.rendering import rendered

# Notes that hold a threshold on the own score, and what the page calls it.
_THRESHOLDS = {
    "ood_threshold": "the model's threshold",
    "f1_threshold": "the threshold of the best F1 of pixels",
}


def ood_page(records: OODRecords, title: str, source: str = "", resamples: int = 1000) -> str:
    """One HTML page that shows ``records``, complete in itself.

    Every name and path in it is escaped, and the page forbids itself scripts and the network.

    Args:
        records: Scored boxes, pixels or images.
        title: Of the page.
        source: The file that the records come from, for the foot of the page.
        resamples: Of the bootstrap of the intervals.

    Raises:
        OODDataError: There is no OOD or no ID sample, or a score is not finite.

    Example:
        >>> records = OODRecords.load("work_dirs/abet/ood_scores.npz")  # doctest: +SKIP
        >>> page = ood_page(records, "Cards")  # doctest: +SKIP
    """
    evaluation = evaluate_records(records, resamples)
    return rendered("ood_page.html", title=title, source=source, **_context(evaluation))


def ood_sections(records: OODRecords, prefix: str, resamples: int = 1000) -> Markup:
    """What :func:`ood_page` shows, to stand below a heading of another page.

    Args:
        records, resamples: As of :func:`ood_page`.
        prefix: Of all ids.

    Raises:
        OODDataError: As of :func:`ood_page`.
    """
    context = {**_context(evaluate_records(records, resamples)), "prefix": prefix, "shift": 1}
    parts = (rendered(name, **context) for name in ("ood_summary.html", "ood_sections.html"))
    return Markup("".join(parts))


def _context(evaluation: OODEvaluation) -> dict[str, Any]:
    records, by_score = evaluation.records, evaluation.by_score
    own, first = next(iter(by_score.items()))
    threshold, threshold_words = _threshold(records)
    drawn = histogram(records.scores[own], records.is_ood, records.weights, own, threshold)
    table = columns(records.task, first.prevalence)
    one, many = NOUNS[records.task]
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
        "notes": records.notes,
        "columns": table,
        "rows": score_rows(evaluation, table),
        "has_intervals": bool(first.intervals),
        "histogram": Markup(drawn.svg),
        "outside": drawn.outside,
        "threshold": threshold,
        "threshold_words": threshold_words,
        "colors": {"ID": ID_COLOR, "OOD": OOD_COLOR},
        "lines": line_styles(by_score),
        "roc": Markup(roc_plot(by_score)),
        "pr_out": Markup(pr_plot(by_score, "OOD")),
        "pr_in": Markup(pr_plot(by_score, "ID")),
        "strata": {kind: stratum_rows(parts) for kind, parts in evaluation.strata.items()},
        "per_image": per_image(records) if records.task == "pixels" else None,
        **_pictures(records, threshold),
    }


def _pictures(records: OODRecords, threshold: float | None) -> dict[str, Any]:
    if records.task == "pixels":
        samples = heat_maps(records)
        wrong: dict = {}
    else:
        wrong = most_wrong(records, threshold=threshold)
        samples = [sample for kind in wrong.values() for sample in kind]
    return {
        "wrong": wrong,
        "heat_maps": samples if records.task == "pixels" else [],
        "heat_limits": heat_limits(records),
        "color_bar": color_bar(),
        "num_missing": sum(bool(sample.problem) for sample in samples),
    }


def _threshold(records: OODRecords) -> tuple[float | None, str]:
    for key, words in _THRESHOLDS.items():
        value = records.notes.get(key)
        if isinstance(value, int | float):
            return float(value), words
    return None, ""
