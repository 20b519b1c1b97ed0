"""Verification of templates, as on IJB-B and IJB-C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from mmengine.logging import print_log

from negvision.errors import ConfigError, DatasetError
from negvision.face.metrics.embedding_metric import PAIR_KEYS, EmbeddingMetric, checked_pairs
from negvision.face.metrics.embeddings import (
    EmbeddingError,
    EmbeddingTable,
    cosine_similarities,
    row_norms,
)
from negvision.face.metrics.roc import PairReport, checked_limits, checked_roc_file, write_roc
from negvision.face.metrics.verification_metric import pair_intervals
from negvision.registry import METRICS

# Columns that are summed at a time, so that only they are in memory as float64.
_COLUMNS = 64


@METRICS.register_module()
class TemplateVerificationMetric(EmbeddingMetric):
    """Are two templates of one person: the 1:1 protocol of IJB-B and IJB-C.

    The score of two templates is the cosine of their embeddings, see :func:`template_embeddings`.
    The dataset's ``metainfo`` has ``template_ids`` and ``media_ids`` (N,), one entry per sample,
    ``template_pairs`` (P, 2), template ids, and ``template_same`` (P,).

    Args:
        use_norm: Average the embeddings as they are, so that images with longer ones weigh more,
            as InsightFace's scripts for ArcFace do (their test mode N1). False normalizes first.
        use_detector_score: Also weigh each image by ``detection_scores`` (N,) of the metainfo
            (InsightFace's test mode D1, used for its published results).
        fars: Limits of FAR, as in
            :class:`negvision.face.metrics.verification_metric.VerificationMetric`; InsightFace's
            scripts take the nearest FAR, above or below.
        roc_file: As in ``VerificationMetric``.
        resamples: For intervals: how often the people are drawn anew with replacement; templates,
            if the people are not known. 0: none, the default, since IJB-C has 15 million pairs.
        **kwargs: Of :class:`negvision.face.metrics.embedding_metric.EmbeddingMetric`; ``prefix``
            is ``template`` by default.

    Returned keys: ``auc``, ``eer``, ``overlap``, ``positive_mean``, ``positive_std``,
    ``negative_mean``, ``negative_std``, ``tar@far=1e-1`` ..., ``positive_pairs``,
    ``negative_pairs``. With ``resamples`` also ``auc_low``, ``auc_high``, ``tar@far=1e-1_low`` and
    so on, the limits of the 95 % intervals.

    Raises:
        ConfigError: The dataset has no templates, or no detection scores to use.
        DatasetError: The templates and pairs do not fit each other.
        EmbeddingError: An embedding is missing, NaN, infinite or zero.
    """

    default_prefix = "template"
    keys = PAIR_KEYS
    protocol = ("template_ids", "media_ids", "template_pairs", "template_same")
    datasets = "negvision.FaceTemplateDataset"

    def __init__(
        self,
        use_norm: bool = True,
        use_detector_score: bool = False,
        fars: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
        roc_file: str | None = None,
        resamples: int = 0,
        **kwargs,
    ) -> None:
        super().__init__(resamples, **kwargs)
        self.use_norm = use_norm
        self.use_detector_score = use_detector_score
        self.fars = checked_limits("fars", fars)
        self.roc_file = checked_roc_file(roc_file)

    def check_protocol(self, meta: Mapping) -> None:
        pairs, _ = checked_pairs(meta, "template_pairs", "template_same")
        if self.use_detector_score and "detection_scores" not in meta:
            raise ConfigError(
                "use_detector_score needs 'detection_scores' in the dataset's metainfo, but its "
                "list of images has none. Remove use_detector_score."
            )
        if len(meta["template_ids"]) != len(meta["media_ids"]):
            raise DatasetError(
                "metainfo must have one template and one medium per sample, got "
                f"{len(meta['template_ids']):,} and {len(meta['media_ids']):,}."
            )
        unknown = np.setdiff1d(pairs, meta["template_ids"])
        if len(unknown):
            raise DatasetError(
                f"{len(unknown):,} templates of metainfo['template_pairs'] have no image (the "
                f"first: template {unknown[0]})."
            )

    def compare(self, table: EmbeddingTable, meta: Mapping, title: str) -> dict[str, float]:
        pairs, same = checked_pairs(meta, "template_pairs", "template_same")
        images = len(meta["template_ids"])
        rows = table.rows_of(np.arange(images))
        # Avoids a copy if the samples are exactly those of the templates, as they mostly are.
        embeddings = table.embeddings if len(table.embeddings) == images else table.embeddings[rows]
        ids, templates = template_embeddings(
            embeddings,
            np.asarray(meta["template_ids"]),
            np.asarray(meta["media_ids"]),
            use_norm=self.use_norm,
            weights=meta["detection_scores"] if self.use_detector_score else None,
        )
        scores = cosine_similarities(templates, np.searchsorted(ids, pairs))
        report = PairReport(scores, same, self.fars)
        limits, lines = {}, ""
        if self.resamples:
            owners, sides = np.full(len(ids), -1), np.searchsorted(ids, pairs)
            owners[np.searchsorted(ids, meta["template_ids"])] = table.labels[rows]
            limits, lines = pair_intervals(
                self, report, scores, same, owners[sides], sides, "templates"
            )
        print_log(
            f"{title}: {len(pairs):,} pairs of {len(ids):,} templates of {images:,} images"
            f"\n{report.table()}{lines}",
            logger="current",
        )
        if self.roc_file:
            write_roc(report.curve, self.roc_file, title)
        return {**report.values(), **limits}


def template_embeddings(
    embeddings: np.ndarray,
    template_ids: np.ndarray,
    media_ids: np.ndarray,
    use_norm: bool = True,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One unit vector per template: average each medium, sum the means, normalize the sum.

    The frames of a video are one medium, so that a long video weighs as much as a photograph. A
    medium that belongs to two templates is averaged separately in each.

    Of each image, ``embeddings`` (N, D), ``template_ids`` and ``media_ids`` (N,), any integers, and
    ``weights`` (N,), such as the scores of a face detector. ``use_norm=False`` normalizes first.
    Returns template ids (T,), ascending, and vectors (T, D), float64, of length 1. Raises
    ``EmbeddingError`` if the media of a template cancel out.

    Source: Crosswhite et al., "Template adaptation for face verification and identification",
    FG 2017 (media pooling); Whitelam et al., "IARPA Janus Benchmark-B Face Dataset", CVPRW 2017;
    Maze et al., "IARPA Janus Benchmark - C", ICB 2018.

    Example:
        >>> vectors = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, -9.0]])
        >>> ids, templates = template_embeddings(
        ...     vectors, np.array([4, 4, 4, 2]), np.array([0, 0, 1, 0]))
        >>> ids.tolist(), templates.round(4).tolist()
        ([2, 4], [[0.0, -1.0], [0.7071, 0.7071]])
    """
    if not len(template_ids):
        return np.empty(0, dtype=np.int64), np.empty((0, embeddings.shape[1]))
    order = np.lexsort((media_ids, template_ids))
    templates, media = np.asarray(template_ids)[order], np.asarray(media_ids)[order]
    new_template = np.append(True, templates[1:] != templates[:-1])
    new_medium = np.append(True, media[1:] != media[:-1]) | new_template
    media_starts = np.flatnonzero(new_medium)
    images = np.diff(np.append(media_starts, len(order)))
    # The first medium of each template.
    template_starts = np.flatnonzero(new_template[media_starts])

    factors = np.ones(len(order)) if weights is None else np.asarray(weights, np.float64)[order]
    if not use_norm:
        factors = factors / row_norms(embeddings)[order]
    sums = np.empty((len(template_starts), embeddings.shape[1]))
    for start in range(0, embeddings.shape[1], _COLUMNS):
        part = slice(start, start + _COLUMNS)
        weighted = embeddings[order, part] * factors[:, None]
        means = np.add.reduceat(weighted, media_starts, axis=0) / images[:, None]
        sums[:, part] = np.add.reduceat(means, template_starts, axis=0)

    ids, norms = templates[new_template], row_norms(sums)
    if (norms == 0).any():
        raise EmbeddingError(
            f"{int((norms == 0).sum()):,} of {len(ids):,} templates have a zero embedding (the "
            f"first: template {ids[np.argmax(norms == 0)]}): the embeddings of their media cancel "
            "out, or all their weights are zero"
        )
    return ids, sums / norms[:, None]
