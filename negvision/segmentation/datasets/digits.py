"""The embedded digits with a class for each pixel."""

from __future__ import annotations

from negvision.errors import ConfigError, did_you_mean
from negvision.registry import DATASETS
from negvision.segmentation.datasets.folder import SegDataset
from negvision.toy.digits import DigitsParameters, default_root, ensure_digits
from negvision.toy.glyphs import CLASS_NAMES

_SPLITS = ("train", "val", "test", "test_ood")


@DATASETS.register_module()
class DigitsSegDataset(SegDataset):
    """:class:`SegDataset` on the embedded digits, which are generated at first use.

    Ids of its label images are 0 for the background and 1 ... 10 for the digits 0 ... 9. The
    digits that the set holds out (7 and 9) are not among the classes unless ``metainfo`` says so:
    their pixels are void in training, and out of distribution for
    ``dict(type="negvision.LoadOODMap", ood_classes=["seven", "nine"])``.

    Args:
        split: "train", "val", "test" (pictures of all digits), or "test_ood" (held-out digits on
            their background alone).
        data_root: Folder of the set; :func:`negvision.toy.digits.default_root` by default.
        digits: Parameters of :func:`negvision.toy.digits.ensure_digits`; the same in all
            datasets on one root, since another choice generates the set anew.

    Raises:
        ConfigError: No such split.

    Example:
        >>> dataset = DigitsSegDataset(split="val")
        >>> len(dataset), dataset.metainfo["classes"][:3]
        (200, ('background', 'zero', 'one'))
    """

    generates_data = True
    METAINFO = {"classes": ("background", *CLASS_NAMES)}

    def __init__(
        self,
        *args,
        split: str,
        data_root: str | None = None,
        digits: dict | None = None,
        metainfo: dict | None = None,
        **kwargs,
    ) -> None:
        if split not in _SPLITS:
            raise ConfigError(
                f"split must be one of {', '.join(_SPLITS)}, got {split!r}"
                f"{did_you_mean(str(split), _SPLITS)}"
            )
        digits = digits or {}
        root = ensure_digits(data_root or default_root(), **digits)
        held_out = {CLASS_NAMES[digit] for digit in DigitsParameters(**digits).held_out}
        known = tuple(name for name in self.METAINFO["classes"] if name not in held_out)
        super().__init__(
            *args,
            data_root=str(root),
            data_prefix={"img_path": split, "seg_map_path": f"masks/{split}"},
            metainfo={"classes": known, **(metainfo or {})},
            **kwargs,
        )
