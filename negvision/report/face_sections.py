"""What the page of a run tells of a face recogniser: verification of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from negvision.face.metrics.base import checked_pairs
from negvision.face.metrics.embeddings import EmbeddingTable, cosine_similarities
from negvision.face.metrics.report import PairReport, accuracy_figures, power
from negvision.face.metrics.verification import FoldAccuracy, cross_validated_accuracy
from negvision.face.metrics.verification_metric import VerificationMetric
from negvision.report.run_parts import FigureRow, FigureTable, Plots, Section
from negvision.report.run_plots import roc_of_pairs, two_histograms

_MEANINGS = {
    "accuracy": ("mean over the folds, each at the threshold that the others chose", "higher"),
    "auc": ("area under the ROC", "higher"),
    "eer": ("error rate where FAR = 1 - TAR", "lower"),
    "overlap": ("least sum of the two error rates that a threshold can have", "lower"),
    "positive_mean": ("mean cosine of genuine pairs", ""),
    "negative_mean": ("mean cosine of impostor pairs", ""),
    "positive_pairs": ("genuine pairs", ""),
    "negative_pairs": ("impostor pairs", ""),
}


class PairCollector:
    """Keeps the embeddings that a recogniser predicts in a test.

    Args:
        model: Not used; the embeddings come with the samples.
        meta: ``metainfo`` of the test set, with ``pairs`` and ``same`` where it is of pairs.
        evaluator: Arguments of the test evaluator: its ``fars`` and ``num_folds`` are taken.
    """

    def __init__(self, model: nn.Module, meta: Mapping, evaluator: Mapping) -> None:
        self.meta = meta
        options = {key: evaluator[key] for key in ("fars", "num_folds") if key in evaluator}
        self._metric = VerificationMetric(**options)

    def add(self, inputs: Sequence, samples: Sequence) -> None:
        """Keep a batch of predicted data samples."""
        self._metric.process(None, [sample.to_dict() for sample in samples])

    def sections(self) -> list[Section]:
        """Figures, TAR at FAR, ROC, and the scores of both kinds of pairs."""
        name, title = "verification", "Verification of pairs"
        if "pairs" not in self.meta:
            missing = "The test set has no pairs of images, so there is no ROC."
            return [Section(name, title, missing=missing)]
        pairs, same = checked_pairs(self.meta, "pairs", "same")
        table = EmbeddingTable(self._metric.results)
        scores = cosine_similarities(table.embeddings, table.rows_of(pairs), table.norms)
        self._metric.dataset_meta = self.meta
        folds, obstacle = self._metric.folds_of(same)
        accuracy = None if obstacle else cross_validated_accuracy(scores, same, folds)
        report = PairReport(scores, same, self._metric.fars)
        return [Section(name, title, pair_parts(scores, same, report, accuracy))]


def pair_parts(
    scores: np.ndarray, same: np.ndarray, report: PairReport, accuracy: FoldAccuracy | None
) -> list:
    """Tables and plots of scored pairs.

    Args:
        scores: (P,) cosines.
        same: (P,) bool, which pairs are genuine.
        report: Of these.
        accuracy: Of the folds; None without folds.
    """
    figures = {**accuracy_figures(accuracy), **report.figures()}
    rows = [
        FigureRow(key, [figures[key]], meaning, better)
        for key, (meaning, better) in _MEANINGS.items()
        if key in figures
    ]
    points = [
        FigureRow(f"FAR {power(p.limit)}", [p.rate, p.threshold, f"{p.accepted:,}"])
        for p in report.points
        if p.rate is not None
    ]
    corners = report.curve.corners()
    roc = roc_of_pairs(corners.far, corners.tar, report.curve.negatives, "ROC")
    scores_of = two_histograms(
        scores[same],
        scores[~same],
        ("genuine pairs", "impostor pairs"),
        "cosine of the two embeddings",
        "Scores of pairs",
    )
    columns = ("TAR", "threshold", "impostors accepted")
    caption = (
        "The largest share of genuine pairs accepted at a threshold that accepts at most this "
        "share of the impostor pairs. Limits that the number of pairs cannot support are left out."
    )
    return [
        FigureTable("Verification", "figure", ["value"], rows),
        FigureTable("TAR at FAR", "limit", columns, points, caption),
        Plots("ROC and scores", [roc, scores_of]),
    ]
