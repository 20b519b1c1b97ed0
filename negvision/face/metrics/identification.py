"""Who is it: ranks of probes in a gallery, closed-set and open-set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from negvision.face.metrics.embeddings import row_norms
from negvision.face.metrics.roc import OperatingPoint, roc_curve

# Scores of one block of probes against the whole gallery: 128 MiB in float64.
_BLOCK_SCORES = 1 << 24
_MOST_PROBES = 1024


class Identification(NamedTuple):
    """How probes score against the people of a gallery.

    Attributes:
        ranks: Shape (M,), int64, at least 1, of each probe whose identity is in the gallery: how
            many identities score as high as its own or higher, itself included.
        mate_scores: Shape (M,), float32, the score of its own identity.
        impostor_scores: Shape (Q,), float32, the highest score of each other probe.
        identities: People in the gallery.
    """

    ranks: np.ndarray
    mate_scores: np.ndarray
    impostor_scores: np.ndarray
    identities: int


def identify(
    gallery: np.ndarray, gallery_labels: np.ndarray, probes: np.ndarray, probe_labels: np.ndarray
) -> Identification:
    """Compare every probe to every gallery image.

    An identity's score is that of its best image. Ties count against the probe: of k identities
    that share the highest score each gets rank k. Scores are cosines of float64 rounded to
    float32, see :func:`negvision.face.metrics.embeddings.cosine_similarities`.

    Args:
        gallery: Shape (G, D), finite, no row zero. A copy in float64 is held.
        gallery_labels: Shape (G,), the identity of each image.
        probes: Shape (N, D), likewise.
        probe_labels: Shape (N,). A probe whose label no gallery image has is an impostor.

    Returns:
        Probes with and without a mate in the gallery, each in the order of ``probes``.

    Example:
        >>> gallery = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> probes = np.array([[2.0, 1.0], [2.0, 1.0], [1.0, 1.0]])
        >>> result = identify(gallery, np.array([5, 6]), probes, np.array([5, 6, 9]))
        >>> result.ranks.tolist(), round(float(result.impostor_scores[0]), 4)
        ([1, 2], 0.7071)
    """
    order = np.argsort(gallery_labels, kind="stable")
    identities, starts = np.unique(np.asarray(gallery_labels)[order], return_index=True)
    unit_gallery = gallery[order] / row_norms(gallery)[order, None]
    own = np.minimum(np.searchsorted(identities, probe_labels), len(identities) - 1)
    has_mate = identities[own] == probe_labels

    ranks = np.zeros(len(probes), dtype=np.int64)
    scores = np.empty(len(probes), dtype=np.float32)
    step = int(np.clip(_BLOCK_SCORES // len(gallery), 1, _MOST_PROBES))
    for start in range(0, len(probes), step):
        block = probes[start : start + step]
        cosines = (block / row_norms(block)[:, None]) @ unit_gallery.T
        best = np.maximum.reduceat(cosines.astype(np.float32), starts, axis=1)
        rows = np.arange(len(block))
        mates = best[rows, own[start : start + step]]
        ranks[start : start + step] = (best >= mates[:, None]).sum(axis=1)
        scores[start : start + step] = np.where(
            has_mate[start : start + step], mates, best.max(axis=1)
        )
    return Identification(ranks[has_mate], scores[has_mate], scores[~has_mate], len(identities))


def rank_rate(result: Identification, rank: int) -> float | None:
    """The share of probes with a mate whose rank is at most ``rank`` (a point of the CMC).

    Returns:
        In [0, 1]; None where there is no such probe, or no more than ``rank`` people in the
        gallery, where every probe would be within the rank.
    """
    if not len(result.ranks) or result.identities <= rank:
        return None
    return float(np.mean(result.ranks <= rank))


def detection_rate(result: Identification, fpir: float) -> OperatingPoint:
    """Detection and identification rate (DIR, 1 - FNIR) at rank 1, at a limit of false alarms.

    The largest share of probes with a mate that are of rank 1 and score at least a threshold, of
    all thresholds that at most the share ``fpir`` of the impostors reaches with the best score.
    Impostors must be 1 / ``fpir`` at least; with fewer, or without a probe that has a mate, there
    is no figure (``rate`` is None).

    Source: Phillips, Grother and Micheals, "Evaluation methods in face recognition", Handbook of
    Face Recognition, 2nd edition, 2011, chapter 21.

    Args:
        result: Of :func:`identify`.
        fpir: False positive identification rate, in (0, 1).
    """
    mates, impostors = result.mate_scores, result.impostor_scores
    if not len(mates) or not len(impostors):
        return OperatingPoint(fpir, None, None, None, len(impostors))
    # A probe that is not of rank 1 is not identified at any threshold.
    found = np.where(result.ranks == 1, mates, -np.inf)
    same = np.arange(len(found) + len(impostors)) < len(found)
    return roc_curve(np.concatenate([found, impostors]), same).at_far(fpir)
