"""Suspects among boxes: missing ones, wrong classes, misplaced ones and duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from negvision.audit.subject import SHARE, Findings, chosen, planting
from negvision.data.suspects import Suspect
from negvision.detection.metrics.error_kinds import Pairs

# Overlap (IoU) from which a detection is on an object, and from which it may be.
_ON, _NEAR = 0.5, 0.2
# Two boxes of this overlap may be of one object; of that overlap they certainly are.
_TWICE = 0.7
# Images whose boxes are compared at once.
_BLOCK = 256


@dataclass(frozen=True)
class BoxTable:
    """N boxes by ascending image.

    Attributes:
        image: (N,) int64, place of the image.
        label: (N,) int64.
        box: (N, 4) float64 as x1, y1, x2, y2 in pixels.
        score: (N,) float64; of annotations all 1.
        ignored: (N,) bool, of annotations: crowds and regions to ignore.
        place: (N,) int64: rows in the table they came from, whatever was done to it.
    """

    image: np.ndarray
    label: np.ndarray
    box: np.ndarray
    score: np.ndarray
    ignored: np.ndarray
    place: np.ndarray

    @classmethod
    def of(
        cls,
        image: Sequence[int] | np.ndarray,
        label: Sequence[int] | np.ndarray,
        box: Sequence[Sequence[float]] | np.ndarray,
        score: Sequence[float] | np.ndarray | None = None,
        ignored: Sequence[bool] | np.ndarray | None = None,
    ) -> BoxTable:
        """From columns in any order; boxes and scores that are not finite are left out."""
        images, boxes = np.asarray(image, np.int64), np.asarray(box, np.float64).reshape(-1, 4)
        count = len(images)
        scores = np.ones(count) if score is None else np.asarray(score, np.float64)
        flags = np.zeros(count, bool) if ignored is None else np.asarray(ignored, bool)
        labels = np.asarray(label, np.int64)
        table = cls(images, labels, boxes, scores, flags, np.arange(count))
        kept = np.flatnonzero(np.isfinite(boxes).all(1) & np.isfinite(scores))
        return table.rows(kept[np.argsort(images[kept], kind="stable")])

    def __len__(self) -> int:
        return len(self.image)

    def rows(self, rows: np.ndarray | slice) -> BoxTable:
        """Some rows, in their order."""
        return BoxTable(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def joined(self, other: BoxTable) -> BoxTable:
        """With the rows of another table."""
        columns = [
            np.concatenate([getattr(self, name), getattr(other, name)])
            for name in self.__dataclass_fields__
        ]
        table = BoxTable(*columns)
        return table.rows(np.argsort(table.image, kind="stable"))

    def xywh(self, row: int) -> tuple[float, float, float, float]:
        """A box as COCO has it, rounded to hundredths."""
        x1, y1, x2, y2 = self.box[row].tolist()
        return round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)


@dataclass(frozen=True)
class BoxScores:
    """What detections say about A annotations and what they find beside them.

    All scores are in [-1, 1], higher is more suspicious.

    Attributes:
        wrong_class: (A,): the best score of another class on the box, minus that of its own.
        other: (A,): row of that detection, or -1.
        misplaced: (A,): score of the best detection of the class near the box, times one minus
            their IoU.
        near: (A,): row of that detection, or -1.
        duplicate: (A,): the largest IoU with a box that explains it, of another annotation.
        missing: (M,) rows of detections without an annotation.
        missing_score: (M,): score of the detection, times one minus the largest IoU with a box.
    """

    wrong_class: np.ndarray
    other: np.ndarray
    misplaced: np.ndarray
    near: np.ndarray
    duplicate: np.ndarray
    missing: np.ndarray
    missing_score: np.ndarray


def overlaps(first: np.ndarray, second: np.ndarray, over_first: bool = False) -> np.ndarray:
    """IoU (P,) of boxes (P, 4), or the share of the first that the second covers."""
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    shared = np.maximum(high - low, 0).prod(1)
    areas = [(one[:, 2:] - one[:, :2]).prod(1) for one in (first, second)]
    whole = areas[0] if over_first else areas[0] + areas[1] - shared
    return np.where(whole > 0, shared / np.where(whole > 0, whole, 1), 0)


def score_boxes(truth: BoxTable, found: BoxTable) -> BoxScores:
    """Score the annotations by the detections; both tables by ascending image.

    A detection explains an annotation of its class from IoU 0.5, and is on one of any class. What
    explains an annotation is no evidence against another that it overlaps. Detections on ignored
    regions, and those that overlap a better one without an annotation, are no missing objects.
    """
    parts: list[BoxScores] = []
    last = max(truth.image.max(initial=-1), found.image.max(initial=-1)) + 1
    for start in range(0, max(last, 1), _BLOCK):
        slices = [
            slice(*np.searchsorted(one.image, [start, start + _BLOCK])) for one in (truth, found)
        ]
        part = _score_block(truth.rows(slices[0]), found.rows(slices[1]))
        moved = {
            name: np.where((rows := getattr(part, name)) < 0, -1, rows + slices[1].start)
            for name in ("other", "near", "missing")
        }
        parts.append(replace(part, **moved))
    return BoxScores(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in BoxScores.__dataclass_fields__
        )
    )


def _score_block(truth: BoxTable, found: BoxTable) -> BoxScores:
    pairs = Pairs.of(found.image, truth.image)
    first, second = pairs.first, pairs.second
    iou = overlaps(found.box[first], truth.box[second])
    real = ~truth.ignored[second]
    same = real & (found.label[first] == truth.label[second])
    explained = np.zeros(len(found), bool)
    explained[first[same & (iou >= _ON)]] = True

    own, _ = _best(second, first, found.score, same & (iou >= _ON), len(truth))
    doubt = real & (found.label[first] != truth.label[second]) & (iou >= _ON) & ~explained[first]
    rival, other = _best(second, first, found.score, doubt, len(truth))

    # The annotation of its class that a detection overlaps most is the one it may misplace.
    _, nearest = pairs.best(iou, same & (iou >= _NEAR))
    beside = same & (second == nearest[first])
    score, near = _best(second, first, found.score, beside, len(truth))
    at = np.flatnonzero(near >= 0)
    misplaced = np.zeros(len(truth))
    misplaced[at] = score[at] * (1 - overlaps(found.box[near[at]], truth.box[at]))

    largest, _ = pairs.best(iou, real)
    covered = overlaps(found.box[first], truth.box[second], over_first=True) >= _ON
    free = largest < _ON
    free[first[covered & ~real]] = False
    free[near[at]] = False
    rows = np.flatnonzero(free & ~explained)
    rows = rows[_without_overlaps(found.rows(rows))]
    return BoxScores(
        np.where(truth.ignored, -1, rival - own),
        other,
        misplaced,
        near,
        _duplicates(truth, own),
        rows,
        found.score[rows] * (1 - largest[rows]),
    )


def _best(
    of: np.ndarray, rows: np.ndarray, score: np.ndarray, chosen: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The highest score among the chosen pairs of each, and its row (of equal ones the first)."""
    of, rows = of[chosen], rows[chosen]
    order = np.lexsort((-rows, score[rows], of))
    value, place = np.zeros(count), np.full(count, -1)
    value[of[order]], place[of[order]] = score[rows[order]], rows[order]
    return value, place


def _duplicates(truth: BoxTable, own: np.ndarray) -> np.ndarray:
    """The largest IoU with an annotation that detections support more, or that comes first."""
    pairs = Pairs.of(truth.image, truth.image)
    one, other = pairs.first, pairs.second
    worse = (own[one] < own[other]) | ((own[one] == own[other]) & (one > other))
    chosen = worse & ~truth.ignored[one] & ~truth.ignored[other]
    value = np.zeros(len(truth))
    one, other = one[chosen], other[chosen]
    np.maximum.at(value, one, overlaps(truth.box[one], truth.box[other]))
    return value


def _without_overlaps(found: BoxTable) -> np.ndarray:
    """Rows that stay when those are dropped that overlap a better one, of any class."""
    if not len(found):
        return np.zeros(0, np.int64)
    import torch
    from torchvision.ops import batched_nms

    columns = (torch.from_numpy(one) for one in (found.box, found.score, found.image))
    return np.sort(batched_nms(*columns, iou_threshold=_ON).numpy())


def drop(
    truth: BoxTable, random: np.random.Generator, share: float = SHARE
) -> tuple[BoxTable, BoxTable]:
    """Take away a share of the objects: what stays, and what was taken."""
    rows = chosen(np.flatnonzero(~truth.ignored), random, share)
    return truth.rows(np.setdiff1d(np.arange(len(truth)), rows)), truth.rows(rows)


def swap(
    truth: BoxTable, random: np.random.Generator, classes: int, share: float = SHARE
) -> tuple[BoxTable, np.ndarray]:
    """Give a share of the objects another class: the table, and the rows."""
    rows = chosen(np.flatnonzero(~truth.ignored & (classes > 1)), random, share)
    label = truth.label.copy()
    label[rows] = (label[rows] + random.integers(1, max(classes, 2), len(rows))) % classes
    return replace(truth, label=label), rows


def shift(
    truth: BoxTable, random: np.random.Generator, share: float = SHARE
) -> tuple[BoxTable, np.ndarray]:
    """Move a share of the objects by 15 to 40 % of their sides: the table, and the rows."""
    rows = chosen(np.flatnonzero(~truth.ignored), random, share)
    sides = truth.box[rows, 2:] - truth.box[rows, :2]
    size = random.uniform(0.15, 0.4, sides.shape) * random.choice([-1, 1], sides.shape)
    box = truth.box.copy()
    box[rows] += np.tile(sides * size, 2)
    return replace(truth, box=box), rows


@dataclass(frozen=True)
class BoxSubject:
    """The annotations and the detections of a data set.

    Attributes:
        truth: A annotations.
        found: Of a model.
        classes: Names.
        images: File names, by place.
        image_ids: By place.
        annotation_ids: Of the rows that ``truth`` was made from.
    """

    truth: BoxTable
    found: BoxTable
    classes: Sequence[str]
    images: Sequence[str]
    image_ids: Sequence[int | str]
    annotation_ids: Sequence[int | str]

    @cached_property
    def scores(self) -> BoxScores:
        """Of the annotations as they are."""
        return score_boxes(self.truth, self.found)

    def findings(self, seed: int = 0) -> Iterator[Findings]:
        """Findings of each kind, with errors planted among the annotations."""
        missing, swapped, shifted = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
        for random in planting(len(self.truth), seed):
            missing.append(self._found_again(*drop(self.truth, random)))
            for change, name, planted in (
                (swap(self.truth, random, len(self.classes)), "wrong_class", swapped),
                (shift(self.truth, random), "misplaced", shifted),
            ):
                table, rows = change
                planted.append(getattr(score_boxes(table, self.found), name)[rows])
        scores, twice = self.scores, self.scores.duplicate
        yield Findings("missing", scores.missing_score, self._missing, np.concatenate(missing))
        yield Findings("class", scores.wrong_class, self._wrong_class, np.concatenate(swapped))
        yield Findings("location", scores.misplaced, self._misplaced, np.concatenate(shifted))
        # A box that lies on another needs no model to be doubted.
        certain = np.where(twice >= _TWICE, twice, 0)
        yield Findings("duplicate", twice, self._duplicate, probability=certain)

    def _found_again(self, left: BoxTable, dropped: BoxTable) -> np.ndarray:
        """Scores of the detections that find dropped objects, one for each."""
        scores = score_boxes(left, self.found)
        candidates = self.found.rows(scores.missing)
        pairs = Pairs.of(dropped.image, candidates.image)
        on = overlaps(dropped.box[pairs.first], candidates.box[pairs.second]) >= _ON
        value, row = _best(pairs.first, pairs.second, scores.missing_score, on, len(dropped))
        return value[row >= 0]

    def _at(self, row: int, **more) -> dict:
        place = self.truth.place[row]
        image = self.truth.image[row]
        return {
            "image": self.images[image],
            "image_id": self.image_ids[image],
            "annotation": self.annotation_ids[place],
            "bbox": self.truth.xywh(row),
            "label": self.classes[self.truth.label[row]],
            **more,
        }

    def _missing(self, number: int) -> Suspect:
        row = self.scores.missing[number]
        image, name = self.found.image[row], self.classes[self.found.label[row]]
        reason = f"{name} found with score {self.found.score[row]:.2f} where no box is"
        box = self.found.xywh(row)
        return Suspect(
            "missing",
            self.images[image],
            self.image_ids[image],
            bbox=box,
            proposed=name,
            reason=reason,
        )

    def _wrong_class(self, row: int) -> Suspect:
        other = self.scores.other[row]
        if other < 0:
            name, reason = None, "no other class was found here"
        else:
            name = self.classes[self.found.label[other]]
            own = max(self.found.score[other] - self.scores.wrong_class[row], 0)
            reason = f"{name} found here with score {self.found.score[other]:.2f}, "
            reason += f"{self.classes[self.truth.label[row]]} with {own:.2f}"
        return Suspect("class", **self._at(row, proposed=name, reason=reason))

    def _misplaced(self, row: int) -> Suspect:
        near = self.scores.near[row]
        box = self.found.box[near : near + 1]
        iou = overlaps(box, self.truth.box[row : row + 1])[0]
        reason = f"found with score {self.found.score[near]:.2f} at IoU {iou:.2f} with this box"
        more = {"proposed_bbox": self.found.xywh(near), "reason": reason}
        return Suspect("location", **self._at(row, **more))

    def _duplicate(self, row: int) -> Suspect:
        reason = f"overlaps another box with IoU {self.scores.duplicate[row]:.2f}"
        return Suspect("duplicate", **self._at(row, reason=reason))
