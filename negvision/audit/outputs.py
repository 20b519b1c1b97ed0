"""Write what an audit found: a table, a file for label tools, and corrected annotations."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from negvision.audit.decisions import ACCEPTED
from negvision.data.formats.coco_file import read_coco_file
from negvision.data.suspects import KINDS, Suspect, Suspects
from negvision.errors import text_table
from negvision.files import atomic_write

# Proposals from this probability on are made; of missing boxes the others become regions to ignore.
CERTAIN = 0.5
_COLUMNS = (
    "kind", "image", "annotation", "x", "y", "width", "height", "label", "proposed", "proposed_x",
    "proposed_y", "proposed_width", "proposed_height", "probability", "score", "reason",
)  # fmt: skip


def counts_table(found: Sequence[Suspect]) -> str:
    """A row for each kind with suspects, and what the kind means."""
    counts = Counter(one.kind for one in found)
    likely = Counter(one.kind for one in found if (one.probability or 0) >= CERTAIN)
    rows = [
        [f"{kind}: {meaning}", counts[kind], likely[kind]]
        for kind, meaning in KINDS.items()
        if counts[kind]
    ]
    if not rows:
        return "no suspects: nothing in these labels looks wrong to this method"
    return text_table(["kind", "suspects", "more likely wrong than right"], rows)


def write_csv(audit: Suspects, path: Path) -> None:
    """One line for each suspect, the most suspicious first.

    Raises:
        UserError: The file cannot be written.
    """
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for one in audit.found:
            boxes = [box or ("",) * 4 for box in (one.bbox, one.proposed_bbox)]
            writer.writerow(
                [one.kind, one.image, one.annotation, *boxes[0], one.label, one.proposed]
                + [*boxes[1], one.probability, one.score, one.reason]
            )


def write_corrected(audit: Suspects, decided: dict[Suspect, str], path: Path) -> None:
    """Write a COCO file with the proposals, each marked by an entry ``audit``.

    What is more likely wrong than right, or was accepted, is corrected: boxes are added, moved or
    removed, classes changed. A missing box that is less likely becomes a region to ignore
    (``iscrowd`` 1), neither object nor background. Everything else stays as it is.

    Args:
        audit: Of a COCO file.
        decided: Of a person, by suspect.
        path: To write to.

    Raises:
        UserError: The file cannot be written.
    """
    content = read_coco_file(audit.ann_file)
    ids = {one["name"]: one["id"] for one in content["categories"]}
    known = [one.get("id") for one in content["annotations"]]
    own = None not in known and len(set(map(str, known))) == len(known)
    annotations = dict(
        zip(known if own else range(len(known)), content["annotations"], strict=True)
    )
    new = max((one for one in known if isinstance(one, int)), default=0)
    for one in audit.found:
        sure = decided.get(one) == ACCEPTED or (one.probability or 0) >= CERTAIN
        mark = {"audit": {"kind": one.kind, "probability": one.probability, "made": sure}}
        if one.kind == "missing" and one.bbox is not None:
            new += 1
            annotations["new", new] = {
                "id": new,
                "image_id": one.image_id,
                "category_id": ids[one.proposed],
                "bbox": list(one.bbox),
                "area": one.bbox[2] * one.bbox[3],
                "iscrowd": int(not sure),
                **mark,
            }
        elif one.annotation in annotations and one.kind in ("class", "location", "duplicate"):
            given = annotations[one.annotation]
            if one.kind == "duplicate" and sure:
                del annotations[one.annotation]
                continue
            changed = {**given, **mark}
            if one.kind == "class" and sure and one.proposed in ids:
                changed["category_id"] = ids[one.proposed]
            if one.kind == "location" and sure and one.proposed_bbox is not None:
                changed["bbox"] = list(one.proposed_bbox)
                changed["area"] = one.proposed_bbox[2] * one.proposed_bbox[3]
                changed.pop("segmentation", None)
            annotations[one.annotation] = changed
    content["annotations"] = list(annotations.values())
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content), encoding="utf-8")
