"""Errors that ``audit.py`` plants, figures of the scores that find them, and cleanlab's scores."""

from __future__ import annotations

import pickle
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from negvision.audit.boxes import BoxSubject, BoxTable, drop, overlaps, shift, swap
from negvision.audit.labels import LabelSubject
from negvision.audit.subject import Findings
from negvision.bootstrap import Side, bootstrap, paired_difference
from negvision.detection.metrics.error_kinds import Pairs

PRECISIONS, PRECISE = (20, 100, 500), 0.9
NAMES = ("AP", *(f"P@{limit}" for limit in PRECISIONS), f"R@P{PRECISE}")
CLEANLAB = """
import pickle, sys
import numpy as np
with open(sys.argv[1], "rb") as file:
    given = pickle.load(file)
if "probabilities" in given:
    from cleanlab.rank import get_label_quality_scores
    methods = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
    pair = given["labels"], given["probabilities"]
    found = [get_label_quality_scores(*pair, method=one) for one in methods]
else:
    from cleanlab.object_detection import rank
    name = {"missing": "overlooked", "class": "swap", "location": "badloc"}[given["kind"]]
    score = getattr(rank, f"compute_{name}_box_scores")
    key = "low" if name == "badloc" else "high"
    found = []
    for threshold in given["thresholds"]:
        options = {} if threshold is None else {f"{key}_probability_threshold": threshold}
        parts = score(labels=given["truth"], predictions=given["found"], **options)
        found.append(np.concatenate([np.zeros(0), *parts]))
np.save(sys.argv[2], np.stack(found))
"""
# The scores above which cleanlab trusts a detection. None is its default, 0.95 or 0.5, which suits
# a softmax: the scores of a focal loss rarely reach it.
THRESHOLDS = (None, 0.0, 0.1, 0.2, 0.3, 0.5)


def table_of(content: dict) -> BoxTable:
    """The annotations of a COCO file; images and classes by their places."""
    images = {one["id"]: place for place, one in enumerate(content["images"])}
    labels = {one["id"]: place for place, one in enumerate(content["categories"])}
    rows = content["annotations"]
    boxes = np.array([one["bbox"] for one in rows], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    crowd = [bool(one.get("iscrowd")) for one in rows]
    places = [images[one["image_id"]] for one in rows], [labels[one["category_id"]] for one in rows]
    return BoxTable.of(*places, boxes, ignored=crowd)


def plant(
    content: dict, kinds: Sequence[str], share: float, by: str, seed: int
) -> tuple[dict, dict[str, BoxTable]]:
    """A COCO file with errors in a share of its boxes, an equal part of each kind.

    Returns:
        The file, and by kind what is wrong: the dropped boxes, or the changed ones.
    """
    random, whole = np.random.default_rng(seed), table_of(content)
    area, free = (whole.box[:, 2:] - whole.box[:, :2]).prod(1), ~whole.ignored
    total = round(share * free.sum())
    if by == "size":
        free &= area <= np.quantile(area[free], 1 / 3)
    elif by == "class":
        free &= whole.label == np.bincount(whole.label[free]).argmax()
    rows = [dict(one) for one in content["annotations"]]
    sides = np.array([[one["width"], one["height"]] for one in content["images"]], np.float64)
    classes, planted = len(content["categories"]), {}
    parts = np.array_split(random.permutation(np.flatnonzero(free))[:total], len(kinds))
    for kind, part in zip(kinds, parts, strict=True):
        closed = np.ones(len(whole), bool)
        closed[part] = False
        open_to = replace(whole, ignored=closed)
        if kind == "missing":
            planted[kind] = drop(open_to, random, 1.0)[1]
            continue
        changed, places = (
            swap(open_to, random, classes, 1.0) if kind == "class" else shift(open_to, random, 1.0)
        )
        # A recipe clips boxes that reach out of their image.
        changed = replace(changed, box=changed.box.clip(0, np.tile(sides, 2)[changed.image]))
        planted[kind] = found = changed.rows(places)
        for row, place in enumerate(found.place):
            rows[place]["category_id"] = content["categories"][found.label[row]]["id"]
            rows[place] |= {"bbox": list(found.xywh(row)), "segmentation": []}
    gone = set(planted["missing"].place.tolist()) if "missing" in planted else set()
    return {**content, "annotations": [r for i, r in enumerate(rows) if i not in gone]}, planted


def on_planted(
    image: np.ndarray, box: np.ndarray, planted: BoxTable, iou: float
) -> tuple[np.ndarray, np.ndarray]:
    """For each box the place of the planted one it overlaps most, from ``iou`` up, or -1."""
    pairs = Pairs.of(image, planted.image)
    found = overlaps(box[pairs.first], planted.box[pairs.second])
    return pairs.best(found, found >= iou)[::-1]


def average_precision(weights: np.ndarray, right: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """AP, precisions, and the recall at precision 0.9, of rows by falling score.

    Args:
        weights: (R, N + L): how often each row counts, then each error that has no row.
        right: (N,), whether a row is an error.
        lost: Number L of errors without a row.

    Returns:
        (R, 2 + len(PRECISIONS)).
    """
    own = weights[:, : len(right)].astype(np.float64)
    hits, seen = (own * right).cumsum(1), own.cumsum(1)
    precision = hits / np.maximum(seen, 1)
    total = hits[:, -1:].sum(1) + weights[:, len(right) :].sum(1)
    columns = [(precision * own * right).sum(1) / np.where(total > 0, total, np.nan)]
    for limit in PRECISIONS:
        counted = np.clip(limit - (seen - own), 0, own)
        columns.append((counted * right).sum(1) / np.maximum(counted.sum(1), 1))
    recall = hits / np.where(total > 0, total, np.nan)[:, None]
    columns.append(np.where(precision >= PRECISE, recall, 0).max(1, initial=0))
    return np.stack(columns, 1)


@dataclass(frozen=True)
class Figures:
    """What a method finds of one kind of error: the columns of :func:`average_precision`.

    Attributes:
        values: (F,).
        draws: (R, F), of resampled images.
        errors: Number of planted ones.
        rows: Number of scores.
    """

    values: np.ndarray
    draws: np.ndarray
    errors: int
    rows: int

    @classmethod
    def of(
        cls, scores: np.ndarray, wrong: np.ndarray, image: np.ndarray, lost: np.ndarray, images: int
    ) -> Figures:
        """``image`` (N,) and ``lost`` (L,) are the places of rows and of errors without a row."""
        order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")
        right, units = wrong[order], np.concatenate([image[order], lost])

        def figures(weights: np.ndarray) -> np.ndarray:
            return average_precision(weights[:, units], right, lost)

        values = figures(np.ones((1, images)))[0]
        draws = bootstrap(figures, np.arange(images))
        return cls(values, draws, int(wrong.sum() + len(lost)), len(right))

    def shown(self) -> str:
        """One line."""
        values = zip(NAMES, self.values, strict=True)
        line = ", ".join(f"{name} {100 * value:.1f}" for name, value in values)
        return f"{line} ({self.errors} errors, {self.rows} rows)"


def summary(seeds: Sequence[dict[str, Figures]], images: int) -> dict:
    """Mean of each method over the seeds, and that minus cleanlab's on the same predictions.

    Each has a 95 % interval from images and seeds.
    """
    sides = {
        name: Side.of([(one[name].values, one[name].draws) for one in seeds]) for name in seeds[0]
    }
    nothing = Side(np.zeros((1, len(NAMES))), np.zeros((len(seeds[0]["model"].draws), len(NAMES))))
    pairs = {name: (nothing, side) for name, side in sides.items()}
    for name, side in sides.items():
        pairs |= {
            f"{one} - {name}": (side, sides[one])
            for one in ("model", "history", "folds")
            if one in sides and name.startswith("cleanlab")
        }
    found: dict = {"errors": [one["model"].errors for one in seeds]}
    for name, (first, second) in pairs.items():
        one = paired_difference(first, second, images)
        rows = np.stack([one.difference, one.low, one.high], 1)
        if first is nothing:
            rows = rows.clip(0, 1)
        found[name] = dict(zip(NAMES, rows.round(4).tolist(), strict=True))
    return found


def measure(subject: BoxSubject, found: Findings, planted: BoxTable) -> Figures:
    """The figures of one kind of error of boxes."""
    images = len(subject.images)
    if found.kind != "missing":
        truth = subject.truth
        place, _ = on_planted(truth.image, truth.box, planted, 0.95)
        wrong = (place >= 0) & (truth.label == planted.label[place])
        return Figures.of(found.scores, wrong, truth.image, np.zeros(0, np.int64), images)
    rows = [found.suspect(row) for row in range(len(found.scores))]
    names = {name: place for place, name in enumerate(subject.images)}
    box = np.array([one.bbox for one in rows], np.float64).reshape(-1, 4)
    image = np.array([names[one.image] for one in rows], np.int64)
    order = np.argsort(image, kind="stable")
    box[:, 2:] += box[:, :2]
    place, _ = on_planted(image[order], box[order], planted, 0.5)
    # One of several detections of an object finds it, that of the highest score.
    score, taken, wrong = found.scores[order], set(), np.zeros(len(order), bool)
    for row in np.argsort(-score, kind="stable").tolist():
        if place[row] >= 0 and place[row] not in taken:
            taken.add(place[row])
            wrong[row] = True
    lost = np.setdiff1d(np.arange(len(planted)), list(taken)).astype(np.int64)
    return Figures.of(score, wrong, image[order], planted.image[lost], images)


def by_cleanlab(python: str, subject: BoxSubject | LabelSubject, kind: str) -> list[Findings]:
    """The scores of cleanlab for the same labels and predictions, higher is more suspicious.

    Of boxes by each of its thresholds, of images by each of its methods.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder, "given.pkl"), Path(folder, "found.npy")
        kept = np.zeros(0, np.int64)
        if isinstance(subject, LabelSubject):
            content: dict = {"labels": subject.labels, "probabilities": subject.probabilities}
        else:
            truth = subject.truth.rows(np.flatnonzero(~subject.truth.ignored))
            kept = truth.place
            content = {"kind": kind, "truth": [], "found": [], "thresholds": THRESHOLDS}
            order = []
            columns = np.c_[subject.found.box, subject.found.score]
            for place in range(len(subject.images)):
                own, seen = (np.flatnonzero(one.image == place) for one in (truth, subject.found))
                if not len(own):
                    continue  # ObjectLab takes no image without a label
                boxes = {"bboxes": truth.box[own], "labels": truth.label[own]}
                rows = [
                    seen[subject.found.label[seen] == label]
                    for label in range(len(subject.classes))
                ]
                order += [row for part in rows for row in part.tolist()]
                content["truth"].append(boxes)
                of_image = np.empty(len(rows), object)  # also where all parts have one length
                of_image[:] = [columns[part] for part in rows]
                content["found"].append(of_image)
            if kind == "missing":
                kept = np.array(order, np.int64)
        given.write_bytes(pickle.dumps(content))
        subprocess.run([python, "-c", CLEANLAB, str(given), str(out)], check=True)
        columns = 1 - np.load(out)
    return [_findings(subject, kind, kept, scores) for scores in columns]


def _findings(
    subject: BoxSubject | LabelSubject, kind: str, kept: np.ndarray, scores: np.ndarray
) -> Findings:
    if isinstance(subject, LabelSubject):
        return Findings(kind, scores, lambda row: next(iter(subject.findings())).suspect(row))
    if kind == "missing":
        known = np.flatnonzero(np.isfinite(scores))
        rows = replace(subject, found=subject.found)
        rows.__dict__["scores"] = replace(
            subject.scores, missing=kept[known], missing_score=scores[known]
        )
        return Findings(kind, scores[known], rows._missing)
    # By row of the annotations; cleanlab has no opinion on some, and none on ignored ones.
    every = np.full(len(subject.truth), -np.inf)
    places = {place: row for row, place in enumerate(subject.truth.place.tolist())}
    every[[places[place] for place in kept.tolist()]] = np.nan_to_num(scores, nan=-1.0)
    return Findings(kind, every, lambda row: subject._at(row))


def table(settings: dict[str, dict]) -> str:
    """Average precision in percent, a row for each kind, and the best one minus cleanlab's."""
    methods = ("model", "history", "folds", "cleanlab on model", "cleanlab on folds")
    lines = [f"| set | kind | errors | {' | '.join(methods)} | best minus cleanlab |"]
    lines.append("| --- | --- | --- |" + " --- |" * (len(methods) + 1))

    def shown(entry: dict | None, signed: str = "") -> str:
        if entry is None:
            return ""
        mean, low, high = (100 * value for value in entry["AP"])
        return f"{mean:{signed}.1f} ({low:.0f} to {high:.0f})"

    for name, setting in settings.items():
        for kind, row in setting.items():
            if not isinstance(row, dict):
                continue
            changes = [entry for key, entry in row.items() if " - " in key]
            best = max(changes, key=lambda entry: entry["AP"][0], default=None)
            cells = [shown(row.get(method)) for method in methods]
            count = f"{sum(row['errors']) / len(row['errors']):.0f}"
            cells = [name, kind, count, *cells, shown(best, "+")]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
