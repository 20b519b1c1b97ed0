"""Verification of templates, as on IJB-B and IJB-C, for MMEngine's evaluation loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from mmengine.logging import print_log

from negvision.errors import ConfigError, DatasetError
from negvision.face.metrics.base import EmbeddingMetric, checked_pairs
from negvision.face.metrics.embeddings import EmbeddingTable, cosine_similarities
from negvision.face.metrics.report import PairReport
from negvision.face.metrics.roc import checked_limits
from negvision.face.metrics.roc_file import checked_roc_file, write_roc
from negvision.face.metrics.templates import template_embeddings
from negvision.registry import METRICS


@METRICS.register_module()
class TemplateVerificationMetric(EmbeddingMetric):
    """Are two templates of one person: the 1:1 protocol of IJB-B and IJB-C.

    The embeddings of a template's images are averaged within each medium, the media's means are
    summed, and the sum is made of length one; the score of two templates is its cosine. The
    dataset's ``metainfo`` has ``template_ids`` and ``media_ids`` (N,), one entry a sample,
    ``template_pairs`` (P, 2), template ids, and ``template_same`` (P,).

    Args:
        use_norm: Average the embeddings as they are, so that images with longer ones weigh more,
            as InsightFace's scripts for ArcFace do (their test mode N1). False makes each of
            length one first, so that all images of a medium weigh the same.
        use_detector_score: Also weigh each image by ``detection_scores`` (N,) of the metainfo
            (InsightFace's test mode D1, on which its published figures stand).
        fars: Limits of FAR. TAR at a FAR is the largest of a threshold that at most that share of
            the negative pairs reaches; InsightFace's scripts take the nearest FAR, above or below.
            With fewer than 1 / FAR negative pairs there is no figure and no key.
        roc_file: As of :class:`negvision.face.metrics.verification_metric.VerificationMetric`.
        **kwargs: Of :class:`negvision.face.metrics.base.EmbeddingMetric`; ``prefix`` is
            ``template`` by default.

    Returned keys: ``tar@far=1e-1`` ..., ``auc``, ``eer``, ``overlap``, ``positive_mean``,
    ``positive_std``, ``negative_mean``, ``negative_std``, ``positive_pairs``,
    ``negative_pairs``.

    Raises:
        ConfigError: The dataset has no templates, or no detection scores to use.
        DatasetError: The templates and pairs do not fit one another.
        EmbeddingError: An embedding is missing, NaN, infinite or zero.

    Source: see :func:`negvision.face.metrics.templates.template_embeddings`.

    Example, in a config::

        val_evaluator = dict(
            type="negvision.TemplateVerificationMetric", use_detector_score=True, prefix="ijbc")
    """

    default_prefix = "template"
    protocol = ("template_ids", "media_ids", "template_pairs", "template_same")
    datasets = "negvision.FaceTemplateDataset"

    def __init__(
        self,
        use_norm: bool = True,
        use_detector_score: bool = False,
        fars: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
        roc_file: str | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.use_norm = use_norm
        self.use_detector_score = use_detector_score
        self.fars = checked_limits("fars", fars)
        self.roc_file = checked_roc_file(roc_file)

    def check_protocol(self, meta: Mapping) -> None:
        """See the base class."""
        pairs, _ = checked_pairs(meta, "template_pairs", "template_same")
        if self.use_detector_score and "detection_scores" not in meta:
            raise ConfigError(
                "use_detector_score needs 'detection_scores' in the dataset's metainfo, which its "
                "list of images does not give. Leave out use_detector_score."
            )
        per_sample = ["template_ids", "media_ids"]
        per_sample += ["detection_scores"] if self.use_detector_score else []
        shapes = {name: np.shape(meta[name]) for name in per_sample}
        if len(set(shapes.values())) > 1 or np.ndim(meta["template_ids"]) != 1:
            raise DatasetError(f"metainfo must have one entry a sample in each of {shapes}.")
        unknown = np.setdiff1d(pairs, meta["template_ids"])
        if len(unknown):
            raise DatasetError(
                f"{len(unknown):,} templates of metainfo['template_pairs'] have no image (the "
                f"first: template {unknown[0]})."
            )

    def compare(self, table: EmbeddingTable) -> dict[str, float]:
        """See the base class."""
        meta = self.dataset_meta
        pairs, same = checked_pairs(meta, "template_pairs", "template_same")
        images = len(meta["template_ids"])
        rows = table.rows_of(np.arange(images))
        # Without a copy where the samples are those of the templates, as they mostly are.
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
        print_log(
            f"{self.prefix}: {len(pairs):,} pairs of {len(ids):,} templates of {images:,} images"
            f"\n{report.table()}",
            logger="current",
        )
        if self.roc_file:
            write_roc(report.curve, self.roc_file, self.prefix)
        return report.figures()
