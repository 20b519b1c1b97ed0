"""The embedded digits set as a dataset of a config."""

from negvision.data.digits import default_root, ensure_digits
from negvision.detection.datasets.coco import CocoDataset
from negvision.registry import DATASETS


@DATASETS.register_module()
class DigitsDataset(CocoDataset):
    """:class:`CocoDataset` on the embedded digits, which are generated at first use.

    Args:
        data_root: folder of the set; :func:`negvision.data.digits.default_root` by default.
        digits: parameters of :func:`negvision.data.digits.ensure_digits`; the same in all
            datasets on one root, since another choice generates the set anew.

    Example:
        >>> dataset = DigitsDataset(
        ...     ann_file="annotations/instances_train.json", data_prefix=dict(img="train/"))
        >>> len(dataset)
        3200
    """

    def __init__(
        self, *args, data_root: str | None = None, digits: dict | None = None, **kwargs
    ) -> None:
        root = ensure_digits(data_root or default_root(), **(digits or {}))
        super().__init__(*args, data_root=str(root), **kwargs)
