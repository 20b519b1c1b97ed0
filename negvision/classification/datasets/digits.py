"""The embedded digits, one by one."""

from negvision.classification.datasets.packed import PackedImageDataset
from negvision.registry import DATASETS
from negvision.toy.digits import GeneratesDigits


@DATASETS.register_module()
class DigitsCropDataset(GeneratesDigits, PackedImageDataset):
    """:class:`PackedImageDataset` on single digits of the embedded set, 32 x 32 pixels.

    Args:
        ann_file: "crops/train_id.npz", "crops/val_id.npz" or "crops/test_id.npz" with the eight
            classes that are not held out, or "crops/test_ood.npz" with the others.
        data_root, digits: As of :class:`negvision.toy.digits.GeneratesDigits`.
        **kwargs: Of :class:`PackedImageDataset`.

    Example:
        >>> dataset = DigitsCropDataset(ann_file="crops/test_id.npz")
        >>> len(dataset.metainfo["classes"])
        8
    """
