"""Detection data sets.

Importing this package registers ``negvision.CocoDataset`` and ``negvision.DigitsDataset``.
"""

from negvision.detection.datasets.coco import CocoDataset
from negvision.detection.datasets.digits import DigitsDataset

__all__ = ["CocoDataset", "DigitsDataset"]
