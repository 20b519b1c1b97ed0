"""Compare the boxes of two runs: matched by label and overlap, and what has no match explained."""

from dataclasses import dataclass

import numpy as np

from negvision.inference.runtime.metadata import Metadata
from negvision.inference.runtime.results import Detections

# Two boxes of one label that overlap by more are the same box.
_SAME = 0.5


@dataclass(frozen=True)
class BoxDifferences:
    """What differs between the boxes of one image.

    Attributes:
        score: (P,), of the scores of the P pairs.
        box: (P,), of the coordinate that differs most, in pixels of the image.
        ood: (P,), of the OOD scores, as a share of the score where it is above 1; None without.
        borderline: Boxes of one side alone that rounding decides about.
        unmatched: Other boxes of one side alone.
    """

    score: np.ndarray
    box: np.ndarray
    ood: np.ndarray | None
    borderline: int
    unmatched: int


def compare_boxes(
    one: Detections, other: Detections, metadata: Metadata, slack: float
) -> BoxDifferences:
    """Match the boxes of two runs on one image.

    A box of one side alone is put down to rounding where its score is within ``slack`` of the score
    threshold or of the last box that was put out, or where it overlaps another box of its label by
    within ten times ``slack`` of the threshold of suppression, or a box that was put down so.
    """
    pairs = _pairs(one, other)
    ours, theirs = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    alone = [
        *_borderline(one, other, set(ours.tolist()), metadata, slack),
        *_borderline(other, one, set(theirs.tolist()), metadata, slack),
    ]
    ood = None
    if one.ood_scores is not None and other.ood_scores is not None:
        ood = relative(one.ood_scores[ours], other.ood_scores[theirs])
    return BoxDifferences(
        score=absolute(one.scores[ours], other.scores[theirs]),
        box=absolute(one.boxes[ours], other.boxes[theirs]).max(1, initial=0),
        ood=ood,
        borderline=sum(alone),
        unmatched=len(alone) - sum(alone),
    )


def absolute(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Differences, infinite beside a NaN."""
    difference = np.abs(one.astype(np.float64) - other)
    return np.where(np.isnan(difference), np.inf, difference)


def relative(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Differences, of numbers above 1 as a share of them; infinite beside a NaN."""
    return absolute(one, other) / np.maximum(np.nan_to_num(np.abs(one)), 1)


def iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Overlaps (N, M) of boxes (N, 4) and (M, 4); 0 where neither has any area."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    inner = np.clip(high - low, 0, None).prod(-1)
    area, other_area = ((b[:, 2:] - b[:, :2]).prod(-1) for b in (one, other))
    union = area[:, None] + other_area[None] - inner
    return np.divide(inner, union, out=np.zeros_like(inner), where=union > 0)


def _pairs(one: Detections, other: Detections) -> list[tuple[int, int]]:
    """Greedily from the highest score: the free box of the same label that overlaps most."""
    overlap = iou(one.boxes, other.boxes)
    overlap[one.labels[:, None] != other.labels[None]] = 0
    pairs = []
    for row in range(len(one)):
        if not len(other):
            break
        column = int(overlap[row].argmax())
        if overlap[row, column] > _SAME:
            pairs.append((row, column))
            overlap[:, column] = 0
    return pairs


def _borderline(
    one: Detections, other: Detections, matched: set[int], metadata: Metadata, slack: float
) -> list[bool]:
    """Of each box of ``one`` that has no match, whether rounding decides about it."""
    alone = [row for row in range(len(one)) if row not in matched]
    if not alone:
        return []
    limit = metadata.score_threshold
    if max(len(one), len(other)) >= metadata.max_boxes:
        limit = max(limit, *(float(side.scores.min()) for side in (one, other) if len(side)))
    boxes = np.concatenate([one.boxes, other.boxes])
    labels = np.concatenate([one.labels, other.labels])
    overlap = iou(one.boxes[alone], boxes)
    overlap[one.labels[alone][:, None] != labels[None]] = 0
    at_threshold = (np.abs(overlap - metadata.iou_threshold) <= 10 * slack).any(1)
    excused = (np.abs(one.scores[alone] - limit) <= slack) | at_threshold
    # One box that stays or goes decides about those beneath it.
    beneath = overlap[:, alone] > metadata.iou_threshold
    return (excused | (beneath & excused[None]).any(1)).tolist()
