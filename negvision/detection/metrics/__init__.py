"""Metrics of detection, registered in METRICS as ``negvision.<Name>``."""

from negvision.detection.metrics.coco_metric import CocoMetric
from negvision.detection.metrics.ood_box_metric import OODBoxMetric

__all__ = ["CocoMetric", "OODBoxMetric"]
