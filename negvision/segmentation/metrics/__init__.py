"""Metrics of segmentation."""

from negvision.segmentation.metrics.iou_metric import IoUMetric
from negvision.segmentation.metrics.pixel_metric import OODPixelMetric

__all__ = ["IoUMetric", "OODPixelMetric"]
