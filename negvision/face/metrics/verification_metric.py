"""Verification of pairs of images for MMEngine's evaluation loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from mmengine.logging import print_log

from negvision.errors import DatasetError
from negvision.face.metrics.base import EmbeddingMetric, checked_pairs
from negvision.face.metrics.embeddings import EmbeddingTable, cosine_similarities
from negvision.face.metrics.report import PairReport, accuracy_figures, accuracy_line
from negvision.face.metrics.roc import checked_limits
from negvision.face.metrics.roc_file import checked_roc_file, write_roc
from negvision.face.metrics.verification import (
    cross_validated_accuracy,
    obstacle_to_folds,
    tenths,
)
from negvision.registry import METRICS


@METRICS.register_module()
class VerificationMetric(EmbeddingMetric):
    """Are two images of one person: accuracy as on LFW, TAR at FAR, AUC, EER, overlap.

    The score of a pair is the cosine of its embeddings. The dataset's ``metainfo`` has ``pairs``
    (P, 2), sample indices, and ``same`` (P,); ``folds`` (P,) if the file of pairs gives them.

    Accuracy is that on each fold at the threshold which is best on the other folds, of all that
    lie midway between neighbouring scores (the highest of equally good ones). Without folds in
    the file, or if it has one alone, fold i is the i-th tenth of the positive and of the negative
    pairs. TAR at a FAR is the largest of a threshold that at most that share of the negative pairs
    reaches; with fewer than 1 / FAR negative pairs there is no figure and no key.

    Args:
        fars: Limits of FAR.
        num_folds: Parts to make where the file has no folds.
        roc_file: Where to write the ROC, see
            :func:`negvision.face.metrics.roc_file.write_roc`. Each evaluation replaces the file.
        **kwargs: Of :class:`negvision.face.metrics.base.EmbeddingMetric`; ``prefix`` tells
            several sets apart and is ``verification`` by default.

    Returned keys: ``accuracy``, ``accuracy_std``, ``accuracy_stderr``, ``threshold`` (the mean of
    the folds), ``auc``, ``eer``, ``overlap`` (see
    :class:`negvision.face.metrics.roc.RocCurve`), ``positive_mean``, ``positive_std``,
    ``negative_mean``, ``negative_std``, ``tar@far=1e-1`` ..., ``positive_pairs``,
    ``negative_pairs``.

    Raises:
        ConfigError: The dataset has no pairs.
        DatasetError: The pairs are of one kind, or malformed.
        EmbeddingError: An embedding is missing, NaN, infinite or zero.

    Example, in a config::

        val_evaluator = dict(type="negvision.VerificationMetric", prefix="lfw", roc_file="lfw.png")
    """

    default_prefix = "verification"
    protocol = ("pairs", "same")
    datasets = "negvision.FacePairDataset or negvision.FaceBinDataset"

    def __init__(
        self,
        fars: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
        num_folds: int = 10,
        roc_file: str | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if num_folds < 2:
            raise ValueError(f"num_folds must be at least 2, got {num_folds!r}")
        self.fars = checked_limits("fars", fars)
        self.num_folds = num_folds
        self.roc_file = checked_roc_file(roc_file)

    def check_protocol(self, meta: Mapping) -> None:
        """See the base class."""
        pairs, _ = checked_pairs(meta, "pairs", "same")
        folds = meta.get("folds")
        if folds is not None and np.shape(folds) != (len(pairs),):
            raise DatasetError(
                f"metainfo['folds'] must have one entry a pair, shape ({len(pairs)},), got "
                f"{np.shape(folds)}."
            )

    def compare(self, table: EmbeddingTable) -> dict[str, float]:
        """See the base class."""
        pairs, same = checked_pairs(self.dataset_meta, "pairs", "same")
        scores = cosine_similarities(table.embeddings, table.rows_of(pairs), table.norms)
        report = PairReport(scores, same, self.fars)
        folds, obstacle = self.folds_of(same)
        accuracy = None if obstacle else cross_validated_accuracy(scores, same, folds)
        print_log(
            f"{self.prefix}: {len(pairs):,} pairs of {len(np.unique(pairs)):,} images\n"
            f"{accuracy_line(accuracy, obstacle)}\n{report.table()}",
            logger="current",
        )
        if self.roc_file:
            write_roc(report.curve, self.roc_file, self.prefix)
        return {**accuracy_figures(accuracy), **report.figures()}

    def folds_of(self, same: np.ndarray) -> tuple[np.ndarray, str]:
        """The fold of each pair, and what is wrong with them, "" if nothing."""
        folds = self.dataset_meta.get("folds")
        if folds is not None and len(np.unique(folds)) > 1:
            return np.asarray(folds), obstacle_to_folds(same, np.asarray(folds)) or ""
        fewest = int(min(same.sum(), (~same).sum()))
        if fewest < self.num_folds:
            return np.zeros(0), (
                f"{self.num_folds} folds need {self.num_folds} pairs of each kind; there are "
                f"{int(same.sum()):,} positive and {int((~same).sum()):,} negative"
            )
        return tenths(same, self.num_folds), ""
