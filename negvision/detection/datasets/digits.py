"""The embedded digits set as a dataset of a config."""

from negvision.detection.datasets.coco import CocoDataset
from negvision.detection.datasets.ood import OODCocoDataset
from negvision.registry import DATASETS
from negvision.toy.digits import GeneratesDigits


@DATASETS.register_module()
class DigitsDataset(GeneratesDigits, CocoDataset):
    """:class:`CocoDataset` on the embedded digits, which are generated at first use.

    Args:
        data_root, digits: As of :class:`negvision.toy.digits.GeneratesDigits`.

    Example:
        >>> dataset = DigitsDataset(
        ...     ann_file="annotations/instances_train.json", data_prefix=dict(img="train/"))
        >>> len(dataset)
        3200
    """


@DATASETS.register_module()
class OODDigitsDataset(GeneratesDigits, OODCocoDataset):
    """:class:`OODCocoDataset` on pictures of the embedded digits that show held-out ones alone.

    Args:
        data_root, digits: As of :class:`negvision.toy.digits.GeneratesDigits`.

    Example:
        >>> dataset = OODDigitsDataset(
        ...     ann_file="annotations/instances_test_ood.json", data_prefix=dict(img="test_ood/"),
        ...     metainfo=dict(classes=("zero", "one")))
        >>> len(dataset)
        100
    """
