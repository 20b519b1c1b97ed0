"""Accuracy of a classifier, over all images and within each class."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.logging import print_log
from scipy.sparse import csr_array

from negvision.bootstrap import bootstrap, interval, mean_known, share
from negvision.data.reliability import reliability
from negvision.engine.metrics import CollectedMetric
from negvision.errors import ConfigError, DatasetError
from negvision.registry import METRICS


@METRICS.register_module()
class AccuracyMetric(CollectedMetric):
    """The share of images whose class is predicted.

    Images are identified by their path, so repeated ones count once.

    Args:
        resamples: For intervals: how often the images are drawn anew with replacement. 0: none.
            None: 1,000 in ``negvision test``, none in a validation.
        **kwargs: Of :class:`negvision.engine.metrics.CollectedMetric`; ``prefix`` is
            ``classification`` by default.

    Returned keys: ``accuracy``; ``mean_recall``, the mean over the classes that have images;
    ``recall/<class>`` of each of them; and ``ece``, the expected calibration error of the scores.
    With ``resamples`` also ``accuracy_low``, ``accuracy_high``, ``mean_recall_low`` and
    ``mean_recall_high``: the limits of the 95 % intervals. All in [0, 1].

    Raises:
        ConfigError: The predictions have no class.
        DatasetError: No image has a label.

    Example::

        val_evaluator = dict(type="negvision.AccuracyMetric")
    """

    default_prefix = "classification"

    def __init__(self, resamples: int | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        if resamples is not None and resamples < 0:
            raise ValueError(f"resamples must be at least 0, got {resamples!r}")
        self.resamples = resamples

    def process(self, data_batch: Any, data_samples: Sequence[Mapping]) -> None:
        """Store label and predicted label of each image."""
        for sample in data_samples:
            if "pred_label" not in sample:
                raise ConfigError(
                    "AccuracyMetric: the predictions have no pred_label, only "
                    f"{sorted(sample)}. Use a classifier such as negvision.OODClassifier"
                )
            pair = int(sample.get("label", -1)), int(sample["pred_label"])
            score = float(sample.get("pred_score", math.nan))
            self.results.append((str(sample["img_path"]), (*pair, score)))

    def compute_metrics(self, results: list[tuple[str, tuple]]) -> dict[str, float]:
        """Evaluate the images of all ranks; see the class for the keys."""
        rows = np.array([row for row in dict(results).values() if row[0] >= 0]).reshape(-1, 3)
        if not len(rows):
            raise DatasetError("AccuracyMetric: no image has a label, so nothing can be evaluated")
        labels, right = rows[:, 0].astype(np.int64), rows[:, 0] == rows[:, 1]
        names = (self.dataset_meta or {}).get("classes") or ()
        recalls = {}
        lines = [f"\n{'class':<20}  images  recall"]
        for label in np.unique(labels).tolist():
            name = str(names[label] if label < len(names) else label)
            chosen = right[labels == label]
            recalls[f"recall/{name}"] = float(chosen.mean())
            lines.append(f"{name:<20}  {len(chosen):>6,}  {chosen.mean():.4f}")
        mean = float(np.mean(list(recalls.values())))
        values = {"accuracy": float(right.mean()), "mean_recall": mean}
        limits = {}
        if self.resamples and len(labels) > 1:
            draws = bootstrap(_figures_of(labels, right), np.arange(len(labels)), self.resamples)
            self.draws, self.units = dict(zip(values, draws.T, strict=True)), len(labels)
            found = interval(np.array(list(values.values())), draws)
            lines.append(f"95 % intervals, {self.resamples:,} resamples of {len(labels):,} images")
            for name, low, high in zip(values, *found.tolist(), strict=True):
                limits |= {f"{name}_low": low, f"{name}_high": high}
                lines.append(f"{name:<20}  {low:.4f} to {high:.4f}")
        scores = reliability(rows[:, 2], right, from_score=0)
        ece = {"ece": scores.error} if scores.total else {}
        lines += [scores.line("images")] if ece else []
        print_log("\n".join(lines), logger="current")
        return {**values, **recalls, **ece, **limits}


def _figures_of(labels: np.ndarray, right: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Accuracy and mean recall of weighted images, from their labels (I,) and hits (I,)."""
    column = np.unique(labels, return_inverse=True)[1]
    classes = csr_array((np.ones(len(labels)), (np.arange(len(labels)), column)))

    def figures(weights: np.ndarray) -> np.ndarray:
        drawn, hits = weights @ classes, (weights * right) @ classes
        recalls = mean_known(share(hits, drawn), 1)
        return np.column_stack([share(hits.sum(1), drawn.sum(1)), recalls])

    return figures
