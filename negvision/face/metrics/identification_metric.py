"""Identification in a gallery: ranks of probes, closed-set and open-set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from mmengine.logging import print_log

from negvision.bootstrap import share
from negvision.errors import DatasetError
from negvision.face.metrics.embedding_metric import EmbeddingMetric
from negvision.face.metrics.embeddings import EmbeddingTable, row_norms
from negvision.face.metrics.roc import (
    OperatingPoint,
    checked_limits,
    point_lines,
    point_values,
    roc_curve,
)
from negvision.face.metrics.verification_metric import pair_figures
from negvision.registry import METRICS

# Scores of one block of probes against the full gallery: 128 MiB in float64.
_BLOCK_SCORES = 1 << 24
_MOST_PROBES = 1024


@METRICS.register_module()
class IdentificationMetric(EmbeddingMetric):
    """Who is it: closed-set ranks (CMC) and open-set DIR at FPIR.

    The dataset's ``metainfo`` has ``gallery`` and ``probes``, sample indices; labels come with the
    samples. The score of an identity is that of its best gallery image, the cosine of the
    embeddings; ties count against the probe. Probes whose label is not in the gallery (or is -1)
    are impostors: only the open-set metrics use them.

    The key of rank k is missing for a gallery of k people or fewer, and that of an FPIR with fewer
    than 1 / FPIR impostors.

    Args:
        ranks: Ranks of the CMC to report.
        fpirs: Limits of the false positive identification rate.
        resamples: For intervals: how often the people of the probes are drawn anew with
            replacement; a probe without a label is drawn alone. The gallery stays. 0: none. None:
            1,000 in ``negvision test``, none in a validation.
        **kwargs: Of :class:`negvision.face.metrics.embedding_metric.EmbeddingMetric`; ``prefix``
            is ``identification`` by default.

    Returned keys: ``rank1``, ``rank5``, ``rank10``, ``dir@fpir=1e-1`` ..., ``mated_probes``,
    ``impostor_probes``, ``identities``. With ``resamples`` also ``rank1_low``, ``rank1_high``,
    ``dir@fpir=1e-1_low`` and so on, the limits of the 95 % intervals.

    Raises:
        ConfigError: The dataset has no gallery or no probes.
        DatasetError: One of them is empty, a probe is a gallery image, a gallery image has no
            label, or no probe has a mate in the gallery.
        EmbeddingError: An embedding is missing, NaN, infinite or zero.
    """

    default_prefix = "identification"
    keys = ("rank*", "dir@fpir=*", "mated_probes", "impostor_probes", "identities")
    protocol = ("gallery", "probes")
    datasets = "negvision.FaceIdentificationDataset"

    def __init__(
        self,
        ranks: Sequence[int] = (1, 5, 10),
        fpirs: Sequence[float] = (1e-1, 1e-2, 1e-3),
        resamples: int | None = None,
        **kwargs,
    ) -> None:
        super().__init__(resamples, **kwargs)
        if not ranks or min(ranks) < 1:
            raise ValueError(f"ranks must be positive numbers, got {ranks!r}")
        self.ranks = tuple(sorted(set(ranks)))
        self.fpirs = checked_limits("fpirs", fpirs)

    def check_protocol(self, meta: Mapping) -> None:
        for name in self.protocol:
            if not len(meta[name]) or len(np.unique(meta[name])) < len(meta[name]):
                raise DatasetError(
                    f"metainfo[{name!r}] must be distinct sample indices, got none or duplicates."
                )
        both = np.intersect1d(meta["gallery"], meta["probes"])
        if len(both):
            raise DatasetError(
                f"{len(both):,} probes are also gallery images and would find themselves (the "
                f"first: sample {both[0]})."
            )

    def compare(self, table: EmbeddingTable, meta: Mapping, title: str) -> dict[str, float]:
        parts = [np.asarray(meta[name]) for name in self.protocol]
        gallery, probes = np.split(table.rows_of(np.concatenate(parts)), [len(parts[0])])
        unknown = table.labels[gallery] < 0
        if unknown.any():
            raise DatasetError(
                f"{int(unknown.sum()):,} of {len(gallery):,} gallery images have no label (the "
                f"first: sample {table.sample_idx[gallery[np.argmax(unknown)]]})."
            )
        result = identify(
            table.embeddings[gallery],
            table.labels[gallery],
            table.embeddings[probes],
            table.labels[probes],
        )
        if not len(result.ranks):
            raise DatasetError(
                f"none of the {len(probes):,} probes has a label that is in the gallery. Do the "
                "labels of the two lists name the same people?"
            )
        rates = {rank: result.rank_rate(rank) for rank in self.ranks}
        points = [result.detection_rate(fpir) for fpir in self.fpirs]
        values = {f"rank{rank}": rate for rank, rate in rates.items() if rate is not None}
        values |= point_values("dir@fpir", points)
        known = [point.limit for point in points if point.rate is not None]
        ranks = [rank for rank, rate in rates.items() if rate is not None]
        # Those without a label are nobody twice.
        labels = table.labels[probes].astype(np.int64)
        labels = np.where(labels < 0, -1 - np.arange(len(labels)), labels)
        people, owner = np.unique(labels, return_inverse=True)
        has_mate = np.isin(labels, table.labels[gallery])
        figures = probe_figures(result, owner[has_mate], owner[~has_mate], ranks, known)
        limits, lines = self.intervals(values, figures, len(people), "people")
        print_log(
            f"{title}: {len(gallery):,} gallery images of {result.identities:,} people, "
            f"{len(result.ranks):,} probes of them, {len(result.impostor_scores):,} of others\n"
            f"{_table(result, rates, points)}{lines}",
            logger="current",
        )
        return {
            **values,
            **limits,
            "mated_probes": len(result.ranks),
            "impostor_probes": len(result.impostor_scores),
            "identities": result.identities,
        }


class Identification(NamedTuple):
    """How M probes whose identity is in the gallery, and Q others, score against it.

    A rank is the number of identities that score as high as the probe's own or higher, itself
    included.
    """

    ranks: np.ndarray  # (M,), int64, at least 1
    mate_scores: np.ndarray  # (M,), float32, of the own identity
    impostor_scores: np.ndarray  # (Q,), float32, the highest of each
    identities: int  # people in the gallery

    def rank_rate(self, rank: int) -> float | None:
        """The share of probes with a mate whose rank is at most ``rank`` (a point of the CMC).

        None without such a probe, or with at most ``rank`` people in the gallery.
        """
        if not len(self.ranks) or self.identities <= rank:
            return None
        return float(np.mean(self.ranks <= rank))

    def detection_rate(self, fpir: float) -> OperatingPoint:
        """Detection and identification rate (DIR, 1 - FNIR) at rank 1, at a limit of false alarms.

        The largest share of probes with a mate that have rank 1 and score at least a threshold,
        over all thresholds that the best scores of at most the share ``fpir`` of the impostors
        reach. With fewer than 1 / ``fpir`` impostors, or without a probe that has a mate, ``rate``
        is None.

        Source: Phillips, Grother and Micheals, "Evaluation methods in face recognition", Handbook
        of Face Recognition, 2nd edition, 2011, chapter 21.
        """
        mates, impostors = self.mate_scores, self.impostor_scores
        if not len(mates) or not len(impostors):
            return OperatingPoint(fpir, None, None, None, len(impostors))
        # A probe that is not of rank 1 is not identified at any threshold.
        found = np.where(self.ranks == 1, mates, -np.inf)
        same = np.arange(len(found) + len(impostors)) < len(found)
        return roc_curve(np.concatenate([found, impostors]), same).at_far(fpir)


def identify(
    gallery: np.ndarray, gallery_labels: np.ndarray, probes: np.ndarray, probe_labels: np.ndarray
) -> Identification:
    """Compare every probe to every gallery image.

    The score of an identity is that of its best image. Ties count against the probe: each of k
    identities that share the highest score gets rank k. Scores are cosines in float64 rounded to
    float32, see :func:`negvision.face.metrics.embeddings.cosine_similarities`.

    ``gallery`` (G, D), copied to float64, and ``probes`` (N, D) are finite, without zero rows;
    their labels are (G,) and (N,). A probe whose label no gallery image has is an impostor.

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


def probe_figures(
    result: Identification,
    mated: np.ndarray,
    impostors: np.ndarray,
    ranks: Sequence[int],
    fpirs: Sequence[float],
) -> Callable[[np.ndarray], np.ndarray]:
    """Rank rates, then DIR at FPIR, as functions of how often each person is drawn.

    Args:
        result: Of all probes.
        mated, impostors: (M,) and (Q,), the number of the person of each probe, from 0.
        ranks, fpirs: Of the figures.
    """
    within = np.stack([result.ranks <= rank for rank in ranks], 1) if ranks else np.zeros((1, 0))
    # Below all cosines: a probe that is not of rank 1 is not identified at any threshold.
    found = np.where(result.ranks == 1, result.mate_scores, -2)
    owner = np.concatenate([mated, impostors])
    same = np.arange(len(owner)) < len(mated)
    scores = np.concatenate([found, result.impostor_scores])
    of_pairs = pair_figures(scores, same, np.stack([owner, owner], 1), fpirs)

    def figures(weights: np.ndarray) -> np.ndarray:
        own = weights[:, mated].astype(np.float64)
        rates = share(own @ within, own.sum(1, keepdims=True)) if ranks else own[:, :0]
        return np.concatenate([rates, of_pairs(weights)[:, 1:]], 1)

    return figures


def _table(
    result: Identification, rates: Mapping[int, float | None], points: Sequence[OperatingPoint]
) -> str:
    lines = [f"{'rank':<8}{'rate':>8}"]
    for rank, rate in rates.items():
        if rate is None:
            lines.append(f"{rank:<8}{'-':>8}  needs more than {rank} people in the gallery")
        else:
            found = int((result.ranks <= rank).sum())
            lines.append(f"{rank:<8}{rate:>8.4f}  {found:,} of {len(result.ranks):,} probes")
    return "\n".join([*lines, "", *point_lines("FPIR", "DIR", "impostors", points)])
