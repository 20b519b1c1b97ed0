"""Detection data sets and the transforms that load their images.

Importing this package registers ``negvision.CocoDataset``, ``negvision.DigitsDataset`` and
``negvision.LoadImageFromFile``.
"""

from negvision.detection.datasets.coco import CocoDataset
from negvision.detection.datasets.digits import DigitsDataset
from negvision.detection.datasets.errors import DatasetError
from negvision.detection.datasets.loading import LoadImageFromFile

__all__ = ["CocoDataset", "DatasetError", "DigitsDataset", "LoadImageFromFile"]
