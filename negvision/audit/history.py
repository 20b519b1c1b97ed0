"""Which annotations and detections the history of a training makes suspect."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from negvision.data.sample_history import SampleHistory
from negvision.ops import pairwise_box_iou


class BadPairs(NamedTuple):
    """Result of :func:`mine_bad_pairs` for N samples."""

    deviation: np.ndarray  # (N,) float64: standard deviations from the mean; NaN without a value
    suspect: np.ndarray  # (N,) bool
    weight: np.ndarray  # (N,) float64, in [0, 1]


def mine_bad_pairs(values: np.ndarray, beta: float = 2.0) -> BadPairs:
    """Samples whose history lies far from that of the others, by Dynamic Bad Pair Mining.

    A sample's memory is the mean of its values over the epochs. With the mean and standard
    deviation of these memories over all samples, a sample more than ``beta`` deviations away is a
    suspect. It gets the weight ``exp(-d^2 / 2)``, d its distance in deviations; others get 1. Of
    losses, those above the mean (``deviation > 0``) are labels the training never fits, those below
    are trivial.

    This follows the paper. The authors' code differs: it multiplies later epochs by larger factors
    before it takes the mean, and weights a suspect by the density at its current loss. The
    paper's density is scaled here so that it is 1 at the mean, and a weight never exceeds 1.
    The paper mines pairs of views of time series; its transfer to labels is an analogy.

    Args:
        values: Shape (N, E), such as the losses of :meth:`SampleHistory.table`; NaN where an epoch
            has no value of a sample. A sample without any is no suspect and has weight 1.
        beta: At least 0.

    Raises:
        ValueError: ``beta`` is negative, or ``values`` is not a table.

    Source: Lan, Yan, Hong, Feng, ICLR 2024, "Towards Enhancing Time Series Contrastive Learning: A
    Dynamic Bad Pair Mining Approach", section 4. arXiv:2302.03357

    Example:
        >>> losses = np.array([[1.0, 1.0]] * 9 + [[5.0, 7.0]])
        >>> found = mine_bad_pairs(losses)
        >>> found.suspect.nonzero()[0].tolist(), found.deviation[9].item()
        ([9], 3.0)
    """
    values = np.asarray(values, np.float64)
    if not beta >= 0 or values.ndim != 2:
        raise ValueError(f"beta must be at least 0 and values 2-D, got {beta} and {values.shape}")
    known = np.isfinite(values)
    counts = known.sum(1)
    memory = np.where(known, values, 0).sum(1) / np.where(counts, counts, np.nan)
    deviation = memory - (np.nanmean(memory) if counts.any() else np.nan)
    scale = np.sqrt(np.nanmean(deviation**2)) if counts.any() else 0.0
    if scale > 0:
        deviation = deviation / scale
    suspect = np.abs(deviation) > beta if scale > 0 else np.zeros(len(values), bool)
    return BadPairs(deviation, suspect, np.where(suspect, np.exp(-(deviation**2) / 2), 1.0))


class FoundObjects(NamedTuple):
    """Result of :func:`found_objects`, K objects, the most persistent first."""

    image: np.ndarray  # (K,) int64
    label: np.ndarray  # (K,) int64, the class of the highest score
    box: np.ndarray  # (K, 4) float32, mean of its boxes weighted by their scores
    score: np.ndarray  # (K,) float64, mean over all epochs; 0 in those without it
    epochs: np.ndarray  # (K,) int64, epochs that found it
    first: np.ndarray  # (K,) int64, the first of them


def found_objects(history: SampleHistory, iou: float = 0.5) -> FoundObjects:
    """Join the detections on background of all epochs to objects.

    A real object without a label is found early and persistently, noise is not: ``score`` is the
    mean over all epochs of the history, so it measures both. In each image, the detection of the
    highest score starts an object, and those that overlap it by at least ``iou`` join it, whatever
    their class; of an epoch the best one counts.

    Args:
        history: Of a detection training.
        iou: In (0, 1].

    Raises:
        ValueError: ``iou`` is out of its range.
    """
    if not 0 < iou <= 1:
        raise ValueError(f"iou must be in (0, 1], got {iou}")
    total = max(len(np.unique(history.epoch)), 1)
    order = np.lexsort((-history.found_score, history.found_image))
    images, starts = np.unique(history.found_image[order], return_index=True)
    rows = []
    for image, members in zip(images, np.split(order, starts)[1:], strict=True):
        boxes = torch.from_numpy(history.found_box[members])
        near = (pairwise_box_iou(boxes, boxes) >= iou).numpy()
        left = np.ones(len(members), bool)
        while left.any():
            first = left.argmax()
            # A box without an area overlaps nothing, not even itself.
            joins = left & near[first]
            joins[first] = True
            left &= ~joins
            epochs, best = np.unique(history.found_epoch[members[joins]], return_index=True)
            best = members[joins][best]
            scores = history.found_score[best].astype(np.float64)
            box = np.average(history.found_box[best], axis=0, weights=scores + 1e-9)
            label = history.found_class[members[first]]
            rows.append((image, label, box, scores.sum() / total, len(epochs), epochs[0]))
    rows.sort(key=lambda row: -row[3])
    image, label, box, score, epochs, first = zip(*rows, strict=True) if rows else [()] * 6
    return FoundObjects(
        np.array(image, np.int64),
        np.array(label, np.int64),
        np.array(box, np.float32).reshape(-1, 4),
        np.array(score, np.float64),
        np.array(epochs, np.int64),
        np.array(first, np.int64),
    )
