"""Segmentation data sets and the transforms that read their label images.

Importing this package registers ``negvision.SegDataset``, ``negvision.DigitsSegDataset``,
``negvision.LoadSegAnnotations``, ``negvision.LoadOODMap``, ``negvision.SegRandomCrop``,
``negvision.SegPhotoMetricDistortion`` and ``negvision.PackSegInputs``.
"""

from negvision.segmentation.datasets.augmentation import (
    SegPhotoMetricDistortion,
    SegRandomCrop,
)
from negvision.segmentation.datasets.digits import DigitsSegDataset
from negvision.segmentation.datasets.folder import SegDataset
from negvision.segmentation.datasets.transforms import (
    LoadOODMap,
    LoadSegAnnotations,
    PackSegInputs,
)

__all__ = [
    "DigitsSegDataset",
    "LoadOODMap",
    "LoadSegAnnotations",
    "PackSegInputs",
    "SegDataset",
    "SegPhotoMetricDistortion",
    "SegRandomCrop",
]
