"""The metric of false positives on images without objects."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.logging import print_log

from negvision.detection.metrics.coco_evaluation import CocoDetections
from negvision.detection.metrics.coco_metric import CocoMetric
from negvision.detection.metrics.error_kinds import error_kinds
from negvision.detection.metrics.froc import FROC, RATES, RECALLS, fppi_names
from negvision.registry import METRICS


@METRICS.register_module()
class FPPIMetric(CocoMetric):
    """False positives per image on images without objects, and the FROC curve.

    :class:`negvision.CocoMetric` gives both in ``negvision test`` with these recalls and rates;
    this metric also does in validations, and takes others. Detections of all classes have one
    threshold, and find objects of their class at IoU 0.5, at most 100 for each image and class.

    Args:
        ann_file: COCO ground truth with images that have no annotation. Read at construction.
        recalls: Each gives ``fppi@RECALL``: the false positives per image without objects, at the
            highest threshold with this recall.
        rates: Each gives ``froc@RATE``: the recall at the lowest threshold with at most so many
            false positives per image, over all images.
        resamples, group_by, collect_device, prefix: As in :class:`negvision.CocoMetric`; the prefix
            is ``negatives`` by default.

    Returned keys: as above, NaN without objects, without such images, or where the recall is not
    reached; with ``resamples`` also ``fppi@0.8_low`` and ``fppi@0.8_high`` and so on, the limits of
    95 % intervals.

    Raises:
        ValueError: A recall is not in (0, 1], or a rate is not above 0.
        FileNotFoundError, ConfigError: As :class:`negvision.CocoMetric`.

    Example, in a config::

        val_evaluator = [
            dict(type="negvision.CocoMetric", ann_file=ann_file),
            dict(type="negvision.FPPIMetric", ann_file=ann_file, recalls=[0.95])]
    """

    default_prefix = "negatives"

    def __init__(
        self,
        ann_file: str,
        recalls: Sequence[float] = RECALLS,
        rates: Sequence[float] = RATES,
        resamples: int | None = None,
        group_by: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        options = {"collect_device": collect_device, "prefix": prefix}
        super().__init__(ann_file, resamples=resamples, group_by=group_by, errors=False, **options)
        if not all(0 < value <= 1 for value in recalls):
            raise ValueError(f"recalls must be above 0 and at most 1, got {recalls!r}")
        if not all(value > 0 for value in rates):
            raise ValueError(f"rates must be above 0, got {rates!r}")
        self.levels = (tuple(recalls), tuple(rates))

    def names(self) -> list[str]:
        """See the base class."""
        ends = ("", "_low", "_high") if self.resamples else ("",)
        return [name + end for name in fppi_names(*self.levels) for end in ends]

    def _evaluate(self, detections: CocoDetections, iou_type: str) -> dict[str, float]:
        found = FROC.of(error_kinds(self.ground_truth, detections, self._category_ids))
        figures, lines = found.measured(self._units, self.resamples or 0, *self.levels)
        print_log(lines, logger="current")
        return figures
