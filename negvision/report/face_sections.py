"""Sections of a run report about a face recognizer: verification of pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from negvision.face.metrics.embedding_metric import checked_pairs, sets_of
from negvision.face.metrics.embeddings import EmbeddingTable, cosine_similarities
from negvision.face.metrics.roc import PairReport, power
from negvision.face.metrics.verification_metric import FoldAccuracy, VerificationMetric
from negvision.report.image_samples import embedded, read_rgb
from negvision.report.page_parts import (
    Gallery,
    ImageSample,
    MetricRow,
    MetricTable,
    Plots,
    Section,
)
from negvision.report.plots import histogram, roc_of_pairs

_WORST = 6
_MEANINGS = {
    "accuracy": ("mean over the folds, each at the best threshold of the others", "higher"),
    "auc": ("area under the ROC", "higher"),
    "eer": ("error rate where FAR = 1 - TAR", "lower"),
    "overlap": ("smallest sum of the two error rates at any threshold", "lower"),
    "positive_mean": ("mean cosine of genuine pairs", ""),
    "negative_mean": ("mean cosine of impostor pairs", ""),
    "positive_pairs": ("genuine pairs", ""),
    "negative_pairs": ("impostor pairs", ""),
}


class PairCollector:
    """Collects the embeddings that a recognizer predicts in a test.

    Args:
        meta: ``metainfo`` of the test set, with ``pairs`` and ``same`` if it consists of pairs.
        evaluator: Arguments of the test evaluator, of which ``fars`` and ``num_folds`` are used.
        read: Of :func:`negvision.data.images.loading.reader_of`, for the images of the worst pairs.
    """

    def __init__(
        self, meta: Mapping, evaluator: Mapping, read: Callable[[str], np.ndarray] | None = None
    ) -> None:
        self.meta = meta
        self._read = read
        self._paths: dict[int, str] = {}
        options = {key: evaluator[key] for key in ("fars", "num_folds") if key in evaluator}
        self._metric = VerificationMetric(**options)

    def add(self, inputs: Sequence, samples: Sequence) -> None:
        """Add a batch of predicted data samples."""
        found = [sample.to_dict() for sample in samples]
        self._metric.process(None, found)
        self._paths.update({int(one["sample_idx"]): one.get("img_path", "") for one in found})

    def sections(self) -> list[Section]:
        """Metrics, TAR at FAR, ROC, the scores of both kinds of pairs, and the worst pairs."""
        return [self._section(name, meta) for name, meta in sets_of(self.meta).items()]

    def _section(self, set_name: str, meta: Mapping) -> Section:
        name, title = "verification", "Verification of pairs"
        if set_name:
            name, title = f"{name}-{set_name}", f"{title}: {set_name}"
        if "pairs" not in meta:
            missing = "The test set has no pairs of images, so there is no ROC."
            return Section(name, title, missing=missing)
        pairs, same = checked_pairs(meta, "pairs", "same")
        table = EmbeddingTable(self._metric.results)
        scores = cosine_similarities(table.embeddings, table.rows_of(pairs), table.norms)
        accuracy, _ = self._metric.fold_accuracy(scores, same, meta.get("folds"))
        report = PairReport(scores, same, self._metric.fars)
        worst = [
            Gallery(heading, [self._pair(pairs[row], scores[row]) for row in rows.tolist()], why)
            for heading, rows, why in _worst_pairs(scores, same)
        ]
        return Section(name, title, [*_parts(scores, same, report, accuracy), *worst])

    def _pair(self, pair: np.ndarray, score: float) -> ImageSample:
        paths = [self._paths[int(index)] for index in pair]
        images, problems = [], []
        for path in paths:
            image, problem = read_rgb(path, self._read)
            if image is None:
                problems.append(problem)
            else:
                images.append(embedded(image, path))
        return ImageSample(" | ".join(paths), [f"cosine {score:.4f}"], images, "; ".join(problems))


def _worst_pairs(scores: np.ndarray, same: np.ndarray) -> list[tuple[str, np.ndarray, str]]:
    """Heading, rows of the pairs, the worst first, and a caption, for both kinds of pairs."""
    order = np.argsort(scores, kind="stable")
    genuine, impostors = order[same[order]], order[~same[order]][::-1]
    return [
        ("Least similar images of one person", genuine[:_WORST], "Or a wrong label."),
        ("Most similar images of two people", impostors[:_WORST], "Or one person twice."),
    ]


def _parts(
    scores: np.ndarray, same: np.ndarray, report: PairReport, accuracy: FoldAccuracy | None
) -> list:
    values = {**(accuracy.values() if accuracy else {}), **report.values()}
    rows = [
        MetricRow(key, [values[key]], meaning, better)
        for key, (meaning, better) in _MEANINGS.items()
        if key in values
    ]
    points = [
        MetricRow(f"FAR {power(p.limit)}", [p.rate, p.threshold, f"{p.accepted:,}"])
        for p in report.points
        if p.rate is not None
    ]
    corners = report.curve.corners()
    roc = roc_of_pairs(corners.far, corners.tar, int(report.curve.total_negatives), "ROC")
    names = ("genuine pairs", "impostor pairs")
    label = "cosine of the two embeddings"
    densities, _ = histogram(scores, ~same, names, label, "Scores of pairs")
    columns = ("TAR", "threshold", "impostors accepted")
    caption = (
        "The largest share of genuine pairs accepted at any threshold that accepts at most this "
        "share of the impostor pairs. Limits with too few impostor pairs are left out."
    )
    return [
        MetricTable("Verification", "metric", ["value"], rows),
        MetricTable("TAR at FAR", "limit", columns, points, caption),
        Plots("ROC and scores", [roc, densities]),
    ]
