"""mmseg's mean IoU with intervals over images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from mmseg.evaluation.metrics import IoUMetric as _IoUMetric

from negvision.bootstrap import bootstrap, interval, mean_known, share
from negvision.data.reliability import Reliability, bin_sums
from negvision.engine.calibration import class_scores
from negvision.registry import METRICS

_NAMES = ("aAcc", "mIoU", "mAcc")


@METRICS.register_module()
class IoUMetric(_IoUMetric):
    """Mean IoU, mean accuracy over classes and accuracy of pixels, with intervals over images.

    The figures are those of mmseg's metric of the same name, in percent. An interval draws images
    with replacement; images with many pixels count for more, as in the figures.

    Args:
        resamples: How often the images are drawn anew. 0: no intervals. None: 1,000 in
            ``negvision test``, none in a validation.
        errors: Whether scores are probabilities: the expected calibration error. None: in
            ``negvision test``, not in a validation.
        **kwargs: Of mmseg's ``IoUMetric``: ``iou_metrics``, ``ignore_index`` and so on.

    Returned keys: those of mmseg's metric, and with ``resamples`` ``mIoU_low``, ``mIoU_high`` and
    the same of ``aAcc`` and ``mAcc``: the limits of the 95 % interval, in percent. With ``errors``
    also ``ece``, in [0, 1].

    Example::

        val_evaluator = dict(type="negvision.IoUMetric", iou_metrics=["mIoU"])
    """

    def __init__(self, resamples: int | None = None, errors: bool | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        if resamples is not None and resamples < 0:
            raise ValueError(f"resamples must be at least 0, got {resamples!r}")
        self.resamples, self.errors = resamples, errors
        # As of negvision.engine.metrics.CollectedMetric.
        self.draws: dict[str, np.ndarray] = {}
        self.units = 0

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Store what is counted in a batch."""
        first = len(self.results)
        super().process(data_batch, data_samples)
        if self.errors and not self.format_only:
            count = len(self.dataset_meta["classes"])
            sums = [score_sums(sample, self.ignore_index, count) for sample in data_samples]
            self.results[first:] = [
                areas if own is None else (*areas, torch.from_numpy(own))
                for areas, own in zip(self.results[first:], sums, strict=True)
            ]

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate the images; see the class for the keys."""
        sums = [image[4].cpu().numpy() for image in results if len(image) > 4]
        results = [image[:4] for image in results]
        metrics = super().compute_metrics(results)
        if sums and metrics:
            found = Reliability.of_sums(np.sum(sums, axis=(0, 1)))
            metrics["ece"] = found.error
            print_log(found.line("pixels"), logger="current")
        if not self.resamples or len(results) < 2 or not metrics:
            return metrics
        areas = np.stack([np.stack([np.asarray(one.cpu()) for one in image]) for image in results])
        ones = np.ones((1, len(areas)))
        figures = _figures_of(areas)
        draws = bootstrap(figures, np.arange(len(areas)), self.resamples)
        self.draws, self.units = dict(zip(_NAMES, 100 * draws.T, strict=True)), len(areas)
        limits = 100 * interval(figures(ones)[0], draws)
        shown = []
        for name, low, high in zip(_NAMES, *limits.tolist(), strict=True):
            if name in metrics:
                metrics |= {f"{name}_low": low, f"{name}_high": high}
                shown.append(f"{name} {low:.2f} to {high:.2f}")
        print_log(
            f"95 % intervals, {self.resamples:,} resamples of {len(areas):,} images: "
            + ", ".join(shown),
            logger="current",
        )
        return metrics


def _figures_of(areas: np.ndarray):
    """Figures in [0, 1] of weighted images from their pixels (I, 4, K): intersection, union, ..."""

    def figures(weights: np.ndarray) -> np.ndarray:
        sums = np.einsum("ri,iak->ark", weights.astype(np.float64), areas)
        both, union, _, truth = sums
        return np.column_stack(
            [
                share(both.sum(1), truth.sum(1)),
                mean_known(share(both, union), 1),
                mean_known(share(both, truth), 1),
            ]
        )

    return figures


def score_sums(sample: Mapping[str, Any], ignore_index: int, count: int) -> np.ndarray | None:
    """(K, 3, 15) of a predicted sample: :func:`.bin_sums` of the pixels of each predicted class.

    Scores are the calibrated ones if there are any. ``count`` is K. None without scores: exported
    models that are not calibrated predict classes alone.
    """
    if "pred_scores" not in sample and "seg_logits" not in sample:
        return None
    predicted = sample["pred_sem_seg"]["data"].squeeze()
    truth = sample["gt_sem_seg"]["data"].squeeze().to(predicted.device)
    if "pred_scores" in sample:
        scores = sample["pred_scores"]["data"][0]
    else:
        logits = sample["seg_logits"]["data"]
        if len(logits) > 1:
            scores = class_scores(logits[None])[0]
        else:
            scores = (logits[0].sigmoid() - 0.5).abs() + 0.5
    known = truth != ignore_index
    columns = (predicted, scores, predicted == truth)
    labels, values, hits = (column[known].cpu().numpy() for column in columns)
    return np.stack([bin_sums(values[labels == k], hits[labels == k], 0) for k in range(count)])
