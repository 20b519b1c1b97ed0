"""The page of an audit: crops of the suspects by kind, what is there and what is proposed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from negvision.audit.outputs import CERTAIN
from negvision.data.suspects import KINDS, Suspect, Suspects
from negvision.errors import DatasetError
from negvision.report.image_samples import embedded, window
from negvision.report.page_parts import Gallery, ImageSample, MetricRow, MetricTable, Section
from negvision.report.rendering import rendered
from negvision.visualization import BOX_COLOR, UNKNOWN_COLOR, Canvas

# Suspects of a kind on the page: its size in a browser.
_SHOWN, _SIDE = 60, 320
_CONTEXT, _SMALLEST = 2.5, 96
Read = Callable[[str], np.ndarray]


def crop(image: np.ndarray, suspect: Suspect, side: int = _SIDE) -> np.ndarray:
    """An image, or the part of it around a suspect, with what is there and what is proposed.

    Args:
        image: (H, W, 3) uint8, RGB.
        suspect: In it.
        side: The longer side of the result in pixels.

    Returns:
        (h, w, 3) uint8, RGB: the box that is there in white, the proposed one dashed.
    """
    boxes = [box for box in (suspect.bbox, suspect.proposed_bbox) if box is not None]
    if not boxes:
        return Canvas(image, longest=side).image()
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes])
    (x1, y1), (x2, y2) = corners[:, :2].min(0), corners[:, 2:].max(0)
    length = max(_CONTEXT * max(x2 - x1, y2 - y1), _SMALLEST)
    left, right = window((x1 + x2) / 2, length, image.shape[1])
    top, bottom = window((y1 + y2) / 2, length, image.shape[0])
    canvas = Canvas(image[top:bottom, left:right], longest=side, text_size=16)
    inside = [tuple(one - np.tile([left, top], 2)) for one in corners]
    missing = suspect.kind == "missing"
    if not missing:
        canvas.box(inside[0], BOX_COLOR, width=2, tag=suspect.label or "")
    if missing or suspect.proposed_bbox is not None:
        canvas.box(inside[-1], UNKNOWN_COLOR, width=2, dashed=True, tag=suspect.proposed or "")
    return canvas.image()


def words(suspect: Suspect) -> list[str]:
    """What is there, what is proposed, and why."""
    there = f"labeled {suspect.label}" if suspect.label else ""
    proposed = f"proposed: {suspect.proposed}" if suspect.proposed else ""
    if suspect.proposed_bbox is not None:
        proposed = "proposed: the dashed box"
    if suspect.kind == "duplicate":
        proposed = "proposed: remove it"
    return [text for text in (there, proposed, suspect.reason) if text]


def audit_page(
    audit: Suspects, read: Read, facts: Mapping[str, str], decided: Mapping[Suspect, str]
) -> str:
    """A self-contained HTML page.

    Args:
        audit: What was found.
        read: From the name of an image to its pixels, (H, W, 3) uint8, RGB.
        facts: About the run, by name.
        decided: Of a person.
    """
    of_kind: dict[str, list[Suspect]] = {
        kind: [one for one in audit.found if one.kind == kind] for kind in KINDS
    }
    shown = {kind: found for kind, found in of_kind.items() if found}
    sections = [
        Section(kind, f"{kind}: {KINDS[kind]}", [_gallery(found, read, decided)])
        for kind, found in shown.items()
    ]
    rows = [
        MetricRow(
            kind,
            [
                len(found),
                sum((one.probability or 0) >= CERTAIN for one in found),
                *_rate(audit, kind),
            ],
            KINDS[kind],
        )
        for kind, found in shown.items()
    ]
    columns = ("suspects", "more likely wrong than right", "planted errors", "wrong at most")
    caption = (
        "Probabilities are fitted to errors that were planted among the labels of this data set; "
        "without a number there, the method gives them itself or there are none."
    )
    table = MetricTable("Suspects", "kind", columns, rows, caption, compared=None)
    return rendered(
        "audit_page.html",
        title=f"Audit of {Path(audit.ann_file).name or 'a folder'}",
        command="audit",
        source="",
        anchors={"audit": "Audit", **{kind: kind for kind in shown}},
        facts=facts,
        table=table,
        kinds=list(shown),
        sections=sections,
    )


def _rate(audit: Suspects, kind: str) -> Sequence[float | int | None]:
    fit = audit.calibration.get(kind)
    return (None, None) if fit is None else (fit["planted"], fit["wrong"])


def _gallery(found: Sequence[Suspect], read: Read, decided: Mapping[Suspect, str]) -> Gallery:
    samples = []
    for one in found[:_SHOWN]:
        images, problem = [], ""
        facts = [*words(one), *(f"decided: {made}" for made in [decided.get(one)] if made)]
        try:
            images = [embedded(crop(read(one.image), one), "; ".join(facts))]
        except DatasetError as error:
            problem = str(error)
        chance = f"score {one.score:.2f}" if one.probability is None else f"{one.probability:.0%}"
        samples.append(ImageSample(one.image, facts, images, problem, chance))
    rest = f" The first {_SHOWN} of {len(found):,}." if len(found) > _SHOWN else ""
    caption = "In white what is there, dashed what is proposed; the likeliest errors first." + rest
    return Gallery(f"{len(found):,} suspects", samples, caption)
