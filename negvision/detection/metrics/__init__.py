"""Metrics of detection, registered in METRICS as ``negvision.<Name>``."""

from negvision.detection.metrics.coco_metric import CocoMetric

__all__ = ["CocoMetric"]
