"""Metrics of segmentation.

Importing this package registers ``negvision.OODPixelMetric``.
"""

from negvision.segmentation.metrics.pixel_metric import OODPixelMetric

__all__ = ["OODPixelMetric"]
