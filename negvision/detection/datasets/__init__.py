"""Detection data sets.

Importing this package registers ``negvision.CocoDataset``, ``negvision.OODCocoDataset`` and
``negvision.DigitsDataset``.
"""

from negvision.detection.datasets.coco import CocoDataset
from negvision.detection.datasets.digits import DigitsDataset
from negvision.detection.datasets.ood import OODCocoDataset

__all__ = ["CocoDataset", "DigitsDataset", "OODCocoDataset"]
