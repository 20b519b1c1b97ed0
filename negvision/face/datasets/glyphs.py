"""The embedded verification set as datasets."""

from negvision.face.datasets.list_file import FaceListDataset
from negvision.face.datasets.pairs import FacePairDataset
from negvision.registry import DATASETS
from negvision.toy.face_glyphs import default_root, ensure_face_glyphs


@DATASETS.register_module()
class GlyphListDataset(FaceListDataset):
    """:class:`FaceListDataset` on the embedded glyphs, which are generated at first use.

    Mirrored, some characters are others. So the pipeline must not contain ``RandomFlip``, and the
    model is tested without flipped images.

    Args:
        ann_file: "train.txt", "val.txt" or "test.txt".
        data_root: Folder of the set; :func:`negvision.toy.face_glyphs.default_root` by default.
        glyphs: Parameters of :func:`negvision.toy.face_glyphs.ensure_face_glyphs`; use the same in
            all datasets on one root, since other values generate the set again.
        **kwargs: Of :class:`FaceListDataset`.

    Example:
        >>> dataset = GlyphListDataset()
        >>> len(dataset), dataset.metainfo["num_classes"]
        (11200, 280)
    """

    generates_data = True

    def __init__(
        self,
        ann_file: str = "train.txt",
        data_root: str | None = None,
        glyphs: dict | None = None,
        **kwargs,
    ) -> None:
        root = ensure_face_glyphs(data_root or default_root(), **(glyphs or {}))
        super().__init__(ann_file=ann_file, data_root=str(root), **kwargs)


@DATASETS.register_module()
class GlyphPairDataset(FacePairDataset):
    """:class:`FacePairDataset` on the embedded glyphs; no training list has their identities.

    Args:
        ann_file: "val_pairs.txt" or "test_pairs.txt".
        data_root, glyphs: As in :class:`GlyphListDataset`.
        **kwargs: Of :class:`FacePairDataset`.

    Example:
        >>> dataset = GlyphPairDataset()
        >>> len(dataset), dataset.metainfo["pairs"].shape
        (1050, (6000, 2))
    """

    generates_data = True

    def __init__(
        self,
        ann_file: str = "test_pairs.txt",
        data_root: str | None = None,
        glyphs: dict | None = None,
        **kwargs,
    ) -> None:
        root = ensure_face_glyphs(data_root or default_root(), **(glyphs or {}))
        super().__init__(ann_file=ann_file, data_root=str(root), **kwargs)
