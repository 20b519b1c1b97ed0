"""Base classes of the metrics of all tasks: collection over ranks, and OOD evaluation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import broadcast_object_list, collect_results, get_world_size, is_main_process
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.logging import MMLogger, print_log

from negvision.bootstrap import RESAMPLES
from negvision.errors import ConfigError, UserError
from negvision.ood.metrics import METRIC_NAMES
from negvision.ood.records import (
    REFERENCE_PREVALENCE,
    OODEvaluation,
    OODRecords,
    evaluate_records,
)
from negvision.ood.scores import check_score_name


class CollectedMetric(BaseMetric):
    """Collects ``self.results`` of all ranks, evaluates on the first, returns values on all.

    Samplers repeat samples to fill the last batch; subclasses recognize repeated samples by their
    identity, since nothing is cut off by count. A user error is raised on every rank.

    Args:
        collect_device: "cpu" collects through files in ``collect_dir``, "gpu" through device
            memory.
        prefix: In front of each returned key.
        collect_dir: A folder that all ranks share; by default one in the current folder.

    Attributes:
        draws: Of the last evaluation with resamples: key without the prefix -> its value in each
            resample (R,), on the first rank.
        units: Number of images, or of whatever was drawn.
    """

    draws: Mapping[str, np.ndarray] = {}
    units = 0

    def __init__(
        self,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)

    def names(self) -> list[str]:
        """The keys that :meth:`compute_metrics` returns, known before: patterns of ``fnmatch``.

        The default says that they are not known.
        """
        return ["*"]

    def combine(self, parts: list[list[Any]]) -> list[Any]:
        """Join the results of all ranks for :meth:`compute_metrics`."""
        return [result for part in parts for result in part]

    def evaluate(self, size: int) -> dict[str, float]:
        """Collect from all ranks, evaluate on the first, and return the values on all.

        ``size`` is not used: cutting the results to it, as MMEngine does, could drop samples.
        """
        ranks = get_world_size()
        options = {"tmpdir": self.collect_dir} if self.collect_device == "cpu" else {}
        # One entry per rank, so that collecting neither reorders nor drops any.
        collected = collect_results([self.results], ranks, self.collect_device, **options)
        outcome: list[dict | UserError] = [{}]
        if is_main_process():
            try:
                values = self.compute_metrics(self.combine(collected or []))
                prefix = f"{self.prefix}/" if self.prefix else ""
                outcome = [{f"{prefix}{name}": value for name, value in values.items()}]
            except UserError as error:
                # The other ranks wait in the broadcast.
                outcome = [error]
        self.results.clear()
        broadcast_object_list(outcome)
        if isinstance(outcome[0], UserError):
            outcome[0].on_all_ranks = True
            raise outcome[0]
        return outcome[0]


class OODMetricBase(CollectedMetric):
    """Evaluates the OOD scores of one network output.

    Subclasses implement :meth:`records` and MMEngine's ``process``, which appends one pair for
    each image: the identity of the image and its result.

    Args:
        scores: Baselines to evaluate in addition to the model's own score, from the same logits;
            names in :data:`negvision.ood.SCORE_NAMES`.
        resamples: Of the bootstrap over images.
        scores_file: Where to write the scored samples for ``negvision ood-report``; a relative
            path is relative to the folder of the run's log file. None: they are not written.
        **kwargs: Of :class:`CollectedMetric`; ``prefix`` is ``ood`` by default.

    Returned keys: ``auroc``, ``ap_out``, ``ap_in``, ``fpr95_ood``, ``fpr95_id``,
    ``ap_out_at_0.1`` of the model's own score; ``<score>/auroc`` and so on of the others;
    ``prevalence``, ``num_ood``, ``num_id``, and what the task adds.

    Raises:
        OODDataError: There is no OOD or no ID sample, or a score is not finite.
    """

    default_prefix = "ood"
    # Keys that the task adds: patterns of fnmatch.
    added: tuple[str, ...] = ()

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
        """The scored samples of ``results``, which has one entry per image."""
        raise NotImplementedError

    def leave_out_extras(self) -> None:
        """Compute nothing that :meth:`sampled_records` does not need."""

    def sampled_records(self, results: list[Any]) -> OODRecords:
        """The scored samples of what ``process`` appended, on one rank."""
        # By identity: samplers repeat images to fill the last batch.
        return self.records(list(dict(results).values()))

    def names(self) -> list[str]:
        """See the base class."""
        own = [*METRIC_NAMES, f"ap_out_at_{REFERENCE_PREVALENCE:g}"]
        others = [f"{score}/{name}" for score in self.scores for name in own]
        return [*own, "prevalence", "num_ood", "num_id", *self.added, *others]

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return self.report(evaluate_records(self.sampled_records(results), self.resamples))

    def report(self, evaluation: OODEvaluation) -> dict[str, float]:
        """Log the table, write ``scores_file``, and return the values by name."""
        print_log(evaluation.table(), logger="current")
        if self.scores_file:
            path = evaluation.records.save(log_folder() / self.scores_file)
            print_log(f"OOD scores: {path} (show them with negvision ood-report)", logger="current")
        return evaluation.scalars()


def settle_for_test(evaluator: Evaluator) -> None:
    """Turn on what metrics do in a test alone: their options ``resamples`` and ``errors`` at None.

    Example:
        >>> from types import SimpleNamespace
        >>> metric = SimpleNamespace(resamples=None, errors=False)
        >>> settle_for_test(SimpleNamespace(metrics=[metric]))
        >>> metric.resamples, metric.errors
        (1000, False)
    """
    for metric in evaluator.metrics:
        for name, value in (("resamples", RESAMPLES), ("errors", True)):
            if getattr(metric, name, value) is None:
                setattr(metric, name, value)


def require_truth(evaluator: Evaluator) -> None:
    """Check that the metrics of an evaluator have something to compare predictions with.

    Raises:
        ConfigError: An annotation file has no annotations.
    """
    without = [metric for metric in evaluator.metrics if not getattr(metric, "has_truth", True)]
    if without:
        raise ConfigError(
            f"{getattr(without[0], 'ann_file', type(without[0]).__name__)}: has no annotations, so "
            "there is nothing to compare predictions with. To write them: negvision test with "
            "--out FILE.json or --drawings DIR"
        )


def log_folder() -> Path:
    """The folder of the run's log file; the current folder if there is none."""
    for handler in MMLogger.get_current_instance().handlers:
        if isinstance(handler, logging.FileHandler):
            return Path(handler.baseFilename).parent
    return Path()
