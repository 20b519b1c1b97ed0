"""Verification of pairs of images: cross-validated accuracy as on LFW, and TAR at FAR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.logging import print_log

from negvision.errors import DatasetError
from negvision.face.metrics.embedding_metric import PAIR_KEYS, EmbeddingMetric, checked_pairs
from negvision.face.metrics.embeddings import EmbeddingTable, cosine_similarities
from negvision.face.metrics.roc import (
    PairReport,
    checked_limits,
    checked_roc_file,
    power,
    roc_curve,
    write_roc,
)
from negvision.registry import METRICS


@METRICS.register_module()
class VerificationMetric(EmbeddingMetric):
    """Do two images show one person: accuracy as on LFW, TAR at FAR, AUC, EER, overlap.

    The score of a pair is the cosine of its embeddings. The dataset's ``metainfo`` has ``pairs``
    (P, 2), sample indices, and ``same`` (P,); ``folds`` (P,) if the file of pairs gives them.

    The accuracy of each fold uses the threshold that is best on the other folds. If the file has no
    folds or only one, fold i is the i-th tenth of the positive and of the negative pairs. TAR at a
    FAR is the largest of any threshold that at most that share of the negative pairs reaches; its
    key is missing with fewer than 1 / FAR negative pairs.

    Args:
        fars: Limits of FAR.
        num_folds: Number of folds to make if the file has none.
        resamples: For intervals: how often the people are drawn anew with replacement; images, if
            the people are not known. 0: none. None: 1,000 in ``negvision test``, none in a
            validation.
        roc_file: Where to write the ROC, see :func:`negvision.face.metrics.roc.write_roc`. Each
            evaluation replaces the file.
        **kwargs: Of :class:`negvision.face.metrics.embedding_metric.EmbeddingMetric`; ``prefix``
            tells several sets apart and is ``verification`` by default.

    Returned keys: ``accuracy``, ``accuracy_std``, ``accuracy_stderr``, ``threshold`` (the mean of
    the folds), ``auc``, ``eer``, ``overlap`` (see :class:`negvision.face.metrics.roc.RocCurve`),
    ``positive_mean``, ``positive_std``, ``negative_mean``, ``negative_std``, ``tar@far=1e-1`` ...,
    ``positive_pairs``, ``negative_pairs``. With ``resamples`` also ``auc_low``, ``auc_high``,
    ``tar@far=1e-1_low`` and so on, the limits of the 95 % intervals.

    Of several sets (:class:`negvision.face.datasets.verification_sets.FaceVerificationSets`), each
    key begins with the name of the set, and those without it are means over the sets.

    Raises:
        ConfigError: The dataset has no pairs.
        DatasetError: The pairs are of one kind, or malformed.
        EmbeddingError: An embedding is missing, NaN, infinite or zero.
    """

    default_prefix = "verification"
    keys = ("accuracy", "accuracy_std", "accuracy_stderr", "threshold", *PAIR_KEYS)
    protocol = ("pairs", "same")
    datasets = "negvision.FacePairDataset or negvision.FaceBinDataset"

    def __init__(
        self,
        fars: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
        num_folds: int = 10,
        roc_file: str | None = None,
        resamples: int | None = None,
        **kwargs,
    ) -> None:
        super().__init__(resamples, **kwargs)
        if num_folds < 2:
            raise ValueError(f"num_folds must be at least 2, got {num_folds!r}")
        self.fars = checked_limits("fars", fars)
        self.num_folds = num_folds
        self.roc_file = checked_roc_file(roc_file)

    def check_protocol(self, meta: Mapping) -> None:
        pairs, _ = checked_pairs(meta, "pairs", "same")
        folds = meta.get("folds")
        if folds is not None and np.shape(folds) != (len(pairs),):
            raise DatasetError(
                f"metainfo['folds'] must have one entry per pair, shape ({len(pairs)},), got "
                f"{np.shape(folds)}."
            )

    def compare(self, table: EmbeddingTable, meta: Mapping, title: str) -> dict[str, float]:
        pairs, same = checked_pairs(meta, "pairs", "same")
        scores = cosine_similarities(table.embeddings, table.rows_of(pairs), table.norms)
        report = PairReport(scores, same, self.fars)
        accuracy, line = self.fold_accuracy(scores, same, meta.get("folds"))
        limits, lines = {}, ""
        if self.resamples:
            rows = table.rows_of(pairs)
            limits, lines = pair_intervals(
                self, report, scores, same, table.labels[rows], rows, "images"
            )
        print_log(
            f"{title}: {len(pairs):,} pairs of {len(np.unique(pairs)):,} images\n"
            f"{line}\n{report.table()}{lines}",
            logger="current",
        )
        if self.roc_file:
            file = Path(self.roc_file)
            name = meta.get("set")
            file = file if name is None else file.with_name(f"{file.stem}_{name}{file.suffix}")
            write_roc(report.curve, str(file), title)
        return {**(accuracy.values() if accuracy else {}), **report.values(), **limits}

    def fold_accuracy(
        self, scores: np.ndarray, same: np.ndarray, folds: np.ndarray | None
    ) -> tuple[FoldAccuracy | None, str]:
        """The cross-validated accuracy of scored pairs, and a line for the log.

        If the pairs allow no cross-validation, the accuracy is None and the line has the reason.
        """
        if folds is None or len(np.unique(folds)) < 2:
            positives, negatives = int(same.sum()), int((~same).sum())
            if min(positives, negatives) < self.num_folds:
                return None, (
                    f"accuracy -  ({self.num_folds} folds need {self.num_folds} pairs of each "
                    f"kind; there are {positives:,} positive and {negatives:,} negative)"
                )
            folds = tenths(same, self.num_folds)
        try:
            accuracy = cross_validated_accuracy(scores, same, np.asarray(folds))
        except ValueError as error:
            return None, f"accuracy -  ({error})"
        return accuracy, accuracy.line()


def pair_intervals(
    metric: EmbeddingMetric,
    report: PairReport,
    scores: np.ndarray,
    same: np.ndarray,
    labels: np.ndarray,
    members: np.ndarray,
    what: str,
) -> tuple[dict[str, float], str]:
    """:meth:`.EmbeddingMetric.intervals` of AUC and of each TAR that there is.

    Args:
        metric: Whose resamples are drawn.
        report: Of the pairs.
        scores, same: (P,), of the pairs.
        labels: (P, 2), the people, who are drawn if all are known (from 0).
        members: (P, 2), numbers of ``what``, which are drawn otherwise.
        what: Name of the members, such as "images".
    """
    known = bool((labels >= 0).all())
    people, sides = np.unique(labels if known else members, return_inverse=True)
    fars = [point.limit for point in report.points if point.rate is not None]
    found = report.values()
    values = {name: found[name] for name in ("auc", *(f"tar@far={power(far)}" for far in fars))}
    figures = pair_figures(scores, same, sides.reshape(-1, 2), fars)
    return metric.intervals(values, figures, len(people), "people" if known else what)


def pair_figures(
    scores: np.ndarray, same: np.ndarray, people: np.ndarray, fars: Sequence[float]
) -> Callable[[np.ndarray], np.ndarray]:
    """AUC and the TAR at each FAR as functions of how often each person is drawn.

    A pair of two people counts as often as the product of the two, a pair of one person as often as
    that person: the pigeonhole bootstrap, whose intervals are rather too wide than too narrow.

    Args:
        scores: (P,) of the pairs.
        same: (P,), whether a pair shows one person.
        people: (P, 2), the number of the person in each image, from 0.
        fars: Limits of FAR.

    Source: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1, 2007.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, positive, people = scores[order], same[order], people[order]
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    one_person = people[:, 0] == people[:, 1]

    def figures(weights: np.ndarray) -> np.ndarray:
        return np.stack([of_draw(row.astype(np.float64)) for row in weights])

    def of_draw(row: np.ndarray) -> np.ndarray:
        first, second = row[people[:, 0]], row[people[:, 1]]
        weight = np.where(one_person, first, first * second)
        hits = np.cumsum(weight * positive)[ends]
        alarms = np.cumsum(weight * ~positive)[ends]
        if not hits[-1] or not alarms[-1]:
            return np.full(1 + len(fars), np.nan)
        far = alarms / alarms[-1]
        before = np.append(0, hits[:-1])
        auc = ((hits + before) / 2 * np.diff(alarms, prepend=0)).sum() / (hits[-1] * alarms[-1])
        places = np.searchsorted(far, fars, side="right") - 1
        rates = np.where(places >= 0, hits[places], 0) / hits[-1]
        return np.append(auc, rates)

    return figures


class FoldAccuracy(NamedTuple):
    """Accuracy on each fold at the threshold chosen on the other folds."""

    accuracies: np.ndarray  # (F,), in [0, 1]
    thresholds: np.ndarray  # (F,), infinite if it is best to accept no pair, or all

    def values(self) -> dict[str, float]:
        """Mean, standard deviation (F - 1 in the denominator) and standard error over the folds.

        No ``threshold`` if that of a fold is infinite.
        """
        std = float(self.accuracies.std(ddof=1))
        values = {
            "accuracy": float(self.accuracies.mean()),
            "accuracy_std": std,
            "accuracy_stderr": std / len(self.accuracies) ** 0.5,
        }
        if np.isfinite(self.thresholds).all():
            values["threshold"] = float(self.thresholds.mean())
        return values

    def line(self) -> str:
        """One line for the log."""
        values = self.values()
        return (
            f"accuracy {values['accuracy']:.4f}   std {values['accuracy_std']:.4f}   standard "
            f"error {values['accuracy_stderr']:.4f}   ({len(self.accuracies)} folds, thresholds "
            f"{self.thresholds.min():.4f} to {self.thresholds.max():.4f})"
        )


def tenths(same: np.ndarray, num_folds: int = 10) -> np.ndarray:
    """Equal folds (P,), int64: fold i has the i-th tenth of the positive and the negative pairs.

    Example:
        >>> tenths(np.array([True, True, True, True, False, False]), num_folds=2).tolist()
        [0, 0, 1, 1, 0, 1]
    """
    folds = np.empty(len(same), dtype=np.int64)
    for kind in (True, False):
        where = np.flatnonzero(same == kind)
        folds[where] = np.arange(len(where)) * num_folds // max(len(where), 1)
    return folds


def best_threshold(scores: np.ndarray, same: np.ndarray) -> float:
    """The threshold of the highest accuracy.

    Thresholds lie midway between neighboring distinct scores, and beyond both ends (infinity: no
    pair is accepted, -infinity: all are). Of equally good ones the highest is taken, which accepts
    the fewest pairs.

    Example:
        >>> best_threshold(np.array([0.875, 0.5, 0.25]), np.array([True, True, False]))
        0.375
    """
    curve = roc_curve(scores, same)
    gain = curve.positives - curve.negatives
    best = int(gain.argmax())
    if gain[best] <= 0:
        return np.inf
    if best == len(gain) - 1:
        return -np.inf
    accepted, rejected = curve.thresholds[best : best + 2].tolist()
    middle = rejected + (accepted - rejected) / 2
    # There is no float between neighboring floats.
    return middle if middle > rejected else accepted


def cross_validated_accuracy(
    scores: np.ndarray, same: np.ndarray, folds: np.ndarray
) -> FoldAccuracy:
    """Accuracy on each fold at the best threshold of all pairs outside it.

    ``folds`` (P,) has the fold of each pair, any integers. Raises ``ValueError`` if positive or
    negative pairs are in fewer than two folds: the pairs outside some fold would be of one kind.

    Source: Huang, Ramesh, Berg and Learned-Miller, "Labeled Faces in the Wild", technical report
    07-49, University of Massachusetts, 2007: the protocol of View 2.
    """
    for kind, name in ((True, "positive"), (False, "negative")):
        number = len(np.unique(folds[same == kind]))
        if number < 2:
            raise ValueError(f"needs {name} pairs in at least 2 folds, they are in {number}")
    # In float32, the midpoint of neighboring scores would be rounded to one of them.
    scores = np.asarray(scores, dtype=np.float64)
    accuracies, thresholds = [], []
    for fold in np.unique(folds):
        held_out = folds == fold
        threshold = best_threshold(scores[~held_out], same[~held_out])
        accuracies.append(np.mean((scores[held_out] >= threshold) == same[held_out]))
        thresholds.append(threshold)
    return FoldAccuracy(np.array(accuracies), np.array(thresholds))
