"""Detection data sets.

Importing this package registers ``negvision.CocoDataset``, ``negvision.OODCocoDataset``,
``negvision.DigitsDataset`` and ``negvision.OODDigitsDataset``, and the transform
``negvision.PackDetInputs``.
"""

from negvision.detection.datasets.coco import CocoDataset
from negvision.detection.datasets.digits import DigitsDataset, OODDigitsDataset
from negvision.detection.datasets.ood import OODCocoDataset
from negvision.detection.datasets.transforms import PackDetInputs

__all__ = [
    "CocoDataset",
    "DigitsDataset",
    "OODCocoDataset",
    "OODDigitsDataset",
    "PackDetInputs",
]
