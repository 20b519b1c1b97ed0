"""Metrics of segmentation."""

from negvision.segmentation.metrics.pixel_metric import OODPixelMetric

__all__ = ["OODPixelMetric"]
