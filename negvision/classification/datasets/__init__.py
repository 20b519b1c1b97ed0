"""Data of image classification: sets in packs, lists and folders, and transforms.

Importing this package registers

* ``negvision.PackedImageDataset`` (all images in one ``.npz``), ``negvision.ImageListDataset``
  (lines ``path label``), ``negvision.ImageFolderDataset`` (a folder a class), and the embedded
  ``negvision.DigitsCropDataset``; with ``is_ood=True`` a set counts as out-of-distribution;
* transforms: ``negvision.RandomPadCrop``, ``negvision.TrivialAugment``,
  ``negvision.PackImageInputs``.

A pipeline begins with ``negvision.LoadImageFromFile`` and ends with ``negvision.PackImageInputs``.
An evaluation joins sets by MMEngine's ``ConcatDataset`` with ``ignore_keys=["classes"]``, the
in-distribution set first.
"""

from negvision.classification.datasets.digits import DigitsCropDataset
from negvision.classification.datasets.lists import ImageFolderDataset, ImageListDataset
from negvision.classification.datasets.packed import PackedImageDataset
from negvision.classification.datasets.transforms import (
    PackImageInputs,
    RandomPadCrop,
    TrivialAugment,
)

__all__ = [
    "DigitsCropDataset",
    "ImageFolderDataset",
    "ImageListDataset",
    "PackImageInputs",
    "PackedImageDataset",
    "RandomPadCrop",
    "TrivialAugment",
]
