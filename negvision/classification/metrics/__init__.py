"""Metrics of image classification; importing this registers ``negvision.OODImageMetric``."""

from negvision.classification.metrics.ood_image_metric import OODImageMetric

__all__ = ["OODImageMetric"]
