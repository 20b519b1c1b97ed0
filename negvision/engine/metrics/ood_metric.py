"""What the OOD metrics of boxes, pixels and images have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log

from negvision.engine.metrics.collected import CollectedMetric, log_folder
from negvision.ood.evaluation import OODEvaluation, evaluate_records
from negvision.ood.records import OODRecords
from negvision.ood.scores import check_score_name


class OODMetric(CollectedMetric):
    """Evaluates the OOD scores of one network output.

    Subclasses implement :meth:`records`, and ``process`` of MMEngine, which keeps one result an
    image, a pair of the image's identity and what is kept of it.

    Args:
        scores: Baselines to evaluate beside the model's own score, of
            :data:`negvision.ood.scores.SCORE_NAMES`, from the same logits.
        resamples: Of the bootstrap over images.
        scores_file: Where to write the scored samples for ``tools/ood_report.py``; a relative path
            is one in the folder of the run's log file. None: nowhere.
        **kwargs: Of :class:`negvision.engine.metrics.collected.CollectedMetric`; ``prefix`` is
            ``ood`` by default.

    Returned keys: ``auroc``, ``ap_out``, ``ap_in``, ``fpr95_ood``, ``fpr95_id``,
    ``ap_out_at_0.1`` of the model's own score; ``<score>/auroc`` and so on of the others;
    ``prevalence``, ``num_ood``, ``num_id``, and what the task adds.

    Raises:
        OODDataError: There is no OOD or no ID sample, or a score is not finite.
    """

    default_prefix = "ood"

    def __init__(
        self,
        scores: Sequence[str] = ("msp", "max_logit", "entropy", "energy"),
        resamples: int = 1000,
        scores_file: str | None = "ood_scores.npz",
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.scores = tuple(check_score_name(name) for name in scores)
        if resamples < 1:
            raise ValueError(f"resamples must be at least 1, got {resamples}")
        self.resamples = resamples
        self.scores_file = scores_file

    def records(self, results: Sequence[Any]) -> OODRecords:
        """The scored samples of ``results``, one an image, each image once."""
        raise NotImplementedError

    def compute_metrics(self, results: list[tuple[Any, Any]]) -> dict[str, float]:
        """Evaluate what all ranks collected; see the class for the keys."""
        # By identity: samplers repeat images to fill up the last batch.
        records = self.records(list(dict(results).values()))
        evaluation: OODEvaluation = evaluate_records(records, self.resamples)
        print_log(evaluation.table(), logger="current")
        if self.scores_file:
            path = records.save(log_folder() / self.scores_file)
            print_log(f"OOD scores: {path} (tools/ood_report.py shows them)", logger="current")
        return evaluation.figures()
