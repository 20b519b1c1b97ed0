"""Identification in a gallery for MMEngine's evaluation loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from mmengine.logging import print_log

from negvision.errors import DatasetError
from negvision.face.metrics.base import EmbeddingMetric
from negvision.face.metrics.embeddings import EmbeddingTable
from negvision.face.metrics.identification import (
    Identification,
    detection_rate,
    identify,
    rank_rate,
)
from negvision.face.metrics.report import point_figures, point_lines
from negvision.face.metrics.roc import OperatingPoint, checked_limits
from negvision.registry import METRICS


@METRICS.register_module()
class IdentificationMetric(EmbeddingMetric):
    """Who is it: closed-set ranks (CMC) and open-set DIR at FPIR.

    The dataset's ``metainfo`` has ``gallery`` and ``probes``, sample indices; labels come with the
    samples. An identity scores as its best gallery image, the cosine of the embeddings; equal
    scores count against the probe. Probes whose label is not in the gallery (or is -1) are
    impostors: the closed-set figures leave them out, the open-set figures need them.

    There is no figure, and no key, for rank k in a gallery of k people or fewer, nor for an FPIR
    with fewer than 1 / FPIR impostors.

    Args:
        ranks: Ranks of the CMC to give.
        fpirs: Limits of the false positive identification rate.
        **kwargs: Of :class:`negvision.face.metrics.base.EmbeddingMetric`; ``prefix`` is
            ``identification`` by default.

    Returned keys: ``rank1``, ``rank5``, ``rank10``, ``dir@fpir=1e-1`` ..., ``mated_probes``,
    ``impostor_probes``, ``identities``.

    Raises:
        ConfigError: The dataset has no gallery or no probes.
        DatasetError: One of them is empty, a probe is a gallery image, a gallery image has no
            label, or no probe has a mate in the gallery.
        EmbeddingError: An embedding is missing, NaN, infinite or zero.

    Example, in a config::

        val_evaluator = dict(type="negvision.IdentificationMetric", ranks=(1, 10, 20))
    """

    default_prefix = "identification"
    protocol = ("gallery", "probes")
    datasets = "negvision.FaceIdentificationDataset"

    def __init__(
        self,
        ranks: Sequence[int] = (1, 5, 10),
        fpirs: Sequence[float] = (1e-1, 1e-2, 1e-3),
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if not ranks or min(ranks) < 1:
            raise ValueError(f"ranks must be positive numbers, got {ranks!r}")
        self.ranks = tuple(sorted(set(ranks)))
        self.fpirs = checked_limits("fpirs", fpirs)

    def check_protocol(self, meta: Mapping) -> None:
        """See the base class."""
        for name in self.protocol:
            if np.ndim(meta[name]) != 1 or not len(meta[name]):
                raise DatasetError(
                    f"metainfo[{name!r}] must be indices of samples, shape (N,), at least one; "
                    f"got shape {np.shape(meta[name])}."
                )
            if len(np.unique(meta[name])) < len(meta[name]):
                raise DatasetError(f"metainfo[{name!r}] names a sample twice.")
        both = np.intersect1d(meta["gallery"], meta["probes"])
        if len(both):
            raise DatasetError(
                f"{len(both):,} probes are gallery images too and would find themselves (the "
                f"first: sample {both[0]})."
            )

    def compare(self, table: EmbeddingTable) -> dict[str, float]:
        """See the base class."""
        parts = [np.asarray(self.dataset_meta[name]) for name in self.protocol]
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
        rates = {rank: rank_rate(result, rank) for rank in self.ranks}
        points = [detection_rate(result, fpir) for fpir in self.fpirs]
        print_log(
            f"{self.prefix}: {len(gallery):,} gallery images of {result.identities:,} people, "
            f"{len(result.ranks):,} probes of them, {len(result.impostor_scores):,} of others\n"
            f"{_table(result, rates, points)}",
            logger="current",
        )
        return {
            **{f"rank{rank}": rate for rank, rate in rates.items() if rate is not None},
            **point_figures("dir@fpir", points),
            "mated_probes": len(result.ranks),
            "impostor_probes": len(result.impostor_scores),
            "identities": result.identities,
        }


def _table(
    result: Identification, rates: Mapping[int, float | None], points: Sequence[OperatingPoint]
) -> str:
    lines = [f"{'rank':<8}{'rate':>8}"]
    for rank, rate in rates.items():
        if rate is None:
            reason = f"needs more than {rank} people in the gallery"
            lines.append(f"{rank:<8}{'-':>8}  {reason}")
        else:
            found = int((result.ranks <= rank).sum())
            lines.append(f"{rank:<8}{rate:>8.4f}  {found:,} of {len(result.ranks):,} probes")
    return "\n".join([*lines, "", *point_lines("FPIR", "DIR", "impostors", points)])
