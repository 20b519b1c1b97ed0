"""A metric that is computed once all ranks' results are there, on one rank, with errors on all."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, collect_results, get_world_size, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from negvision.errors import UserError


class CollectedMetric(BaseMetric):
    """Collects ``self.results`` of all ranks, evaluates on the first, returns figures on all.

    Samples that come twice, which is how samplers fill up the last batch, are for subclasses to
    tell by an identity of their own: nothing is cut off by count. An error of the user's is raised
    on every rank.

    Args:
        collect_device: "cpu" collects through files in ``collect_dir``, "gpu" through the
            devices' memory.
        collect_dir: A folder that all ranks share; by default one in the current folder.
        prefix: In front of each returned key.
    """

    def __init__(
        self,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)

    def combine(self, parts: list[list[Any]]) -> list[Any]:
        """The results of all ranks, ``parts``, as :meth:`compute_metrics` takes them."""
        return [result for part in parts for result in part]

    def evaluate(self, size: int) -> dict[str, float]:
        """Collect from all ranks, evaluate on the first, and return the figures on all.

        Args:
            size: Not used: duplicates are told by their identity, and cutting the results to this
                length could lose other samples instead.
        """
        ranks = get_world_size()
        options = {"tmpdir": self.collect_dir} if self.collect_device == "cpu" else {}
        # One entry a rank, so that collecting neither reorders nor drops any.
        collected = collect_results([self.results], ranks, self.collect_device, **options)
        outcome: list[dict | UserError | None] = [None]
        if is_main_process():
            try:
                figures = self.compute_metrics(self.combine(collected))
                prefix = f"{self.prefix}/" if self.prefix else ""
                outcome = [{f"{prefix}{name}": value for name, value in figures.items()}]
            except UserError as error:
                # The other ranks wait in the broadcast: they must hear of it.
                outcome = [error]
        self.results.clear()
        broadcast_object_list(outcome)
        if isinstance(outcome[0], UserError):
            raise outcome[0]
        return outcome[0]


def log_folder() -> Path:
    """The folder of the run's log file; without a log file, the current folder."""
    for handler in MMLogger.get_current_instance().handlers:
        if isinstance(handler, logging.FileHandler):
            return Path(handler.baseFilename).parent
    return Path()
