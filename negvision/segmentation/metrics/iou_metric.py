"""mmseg's mean IoU with intervals over images."""

from __future__ import annotations

import numpy as np
from mmengine.logging import print_log
from mmseg.evaluation.metrics import IoUMetric as _IoUMetric

from negvision.bootstrap import bootstrap, interval, mean_known, share
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
        **kwargs: Of mmseg's ``IoUMetric``: ``iou_metrics``, ``ignore_index`` and so on.

    Returned keys: those of mmseg's metric, and with ``resamples`` ``mIoU_low``, ``mIoU_high`` and
    the same of ``aAcc`` and ``mAcc``: the limits of the 95 % interval, in percent.

    Example::

        val_evaluator = dict(type="negvision.IoUMetric", iou_metrics=["mIoU"])
    """

    def __init__(self, resamples: int | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        if resamples is not None and resamples < 0:
            raise ValueError(f"resamples must be at least 0, got {resamples!r}")
        self.resamples = resamples
        # As of negvision.engine.metrics.CollectedMetric.
        self.draws: dict[str, np.ndarray] = {}
        self.units = 0

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate the images; see the class for the keys."""
        metrics = super().compute_metrics(results)
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
