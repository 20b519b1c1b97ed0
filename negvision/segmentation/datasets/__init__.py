"""Segmentation data sets, and transforms that read label images or augment them."""

from negvision.segmentation.datasets.augmentation import (
    SegPhotoMetricDistortion,
    SegRandomCrop,
)
from negvision.segmentation.datasets.folder import DigitsSegDataset, SegDataset
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
