"""What the datasets of faces have in common."""

import copy
import os
from collections.abc import Mapping, Sequence

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init

from negvision.data.formats.paths import leaves_root
from negvision.data.images.bad_samples import BadSampleMixin
from negvision.errors import DatasetError


class FaceDataset(BadSampleMixin, BaseDataset):
    """Images of faces with the identity of each.

    A dataset of MMEngine (``pipeline``, ``lazy_init``, ``indices``, ``get_data_info``) that holds
    its samples in arrays rather than in a list of dicts: the 5.8 million images of MS1MV2 take
    some hundred MB, shared by all workers. Files are local.

    Subclasses implement :meth:`load_columns`.

    Args:
        ann_file: The file that lists the images, relative to ``data_root``.
        data_root: Folder that all other paths are relative to.
        data_prefix: ``img`` is the folder of the images.
        on_bad_sample: See :class:`negvision.data.images.bad_samples.BadSampleMixin`.
        **kwargs: ``metainfo``, ``indices``, ``pipeline``, ``test_mode``, ``lazy_init`` and
            ``max_refetch`` of ``mmengine.dataset.BaseDataset``.
    """

    # Arguments other than `ann_file` that name a file below `data_root`.
    _file_arguments: tuple[str, ...] = ()

    def __init__(
        self,
        ann_file: str = "",
        data_root: str = "",
        data_prefix: Mapping | None = None,
        **kwargs,
    ) -> None:
        self._columns: dict[str, Sequence] = {}
        self._rows: np.ndarray | None = None
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=dict(data_prefix or {"img": ""}),
            **kwargs,
        )

    def load_columns(self) -> dict[str, Sequence]:
        """Read and check what describes the images.

        Returns:
            Sequences of one entry a sample: ``label``, an int64 array, -1 where not known, and
            ``img_path`` below the image folder or ``img_bytes`` (an encoded image) or both.
        """
        raise NotImplementedError

    def full_init(self) -> None:
        """Load the columns, once."""
        if self._fully_initialized:
            return
        self._columns = self.load_columns()
        if self._indices is not None:
            self._rows = self._select(self._indices)
        self._fully_initialized = True

    @property
    def metainfo(self) -> dict:
        """What describes the set as a whole; its arrays are not copied and cannot be written."""
        return dict(self._metainfo)

    @property
    def labels(self) -> np.ndarray:
        """Shape (N,), int64: the identity of each sample, for samplers and statistics."""
        self.full_init()
        labels = np.asarray(self._columns["label"])
        return labels if self._rows is None else labels[self._rows]

    @force_full_init
    def __len__(self) -> int:
        return self._count()

    def _count(self) -> int:
        """The length, for methods that are sure of the columns: MMEngine's decorator takes longer
        than all else of reading one."""
        return len(self._columns["label"] if self._rows is None else self._rows)

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """One entry of each column, and ``sample_idx``."""
        row = self._row(idx)
        info = {
            # A path is looked up once, where it is joined to its folder.
            name: None if name == "img_path" else _own(column[row])
            for name, column in self._columns.items()
        }
        info["label"] = int(info["label"])
        info["img_path"] = self._describe(row)
        info["sample_idx"] = idx % self._count()
        return info

    @force_full_init
    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep the samples ``indices``; an int keeps the first, or if negative the last ones."""
        self._rows = self._select(indices)

    @force_full_init
    def get_subset(self, indices: int | Sequence[int]) -> "FaceDataset":
        """Like :meth:`get_subset_`, for a copy that shares the arrays."""
        subset = copy.copy(self)
        subset.get_subset_(indices)
        return subset

    def _select(self, indices: int | Sequence[int]) -> np.ndarray:
        rows = np.arange(len(self._columns["label"])) if self._rows is None else self._rows
        if isinstance(indices, int):
            return rows[:indices] if indices >= 0 else rows[indices:]
        return rows[np.asarray(indices, dtype=np.int64)]

    def _row(self, idx: int) -> int:
        count = self._count()
        if not -count <= idx < count:
            raise IndexError(f"index {idx} of a dataset of {count} samples")
        idx %= count
        return idx if self._rows is None else int(self._rows[idx])

    def _sample_name(self, idx: int) -> str:
        return self._describe(self._row(idx))

    def _describe(self, row: int) -> str:
        """The ``img_path`` of a sample, by which errors name it."""
        return self._image_path(self._columns["img_path"][row])

    def _image_path(self, name: str) -> str:
        return os.path.join(self.data_prefix.get("img", ""), name)

    def _leaves_root(self, name: str) -> bool:
        """Whether a list names an image outside of the data."""
        return leaves_root(name, self.data_prefix.get("img", ""), self.data_root)

    def _join_prefix(self) -> None:
        super()._join_prefix()
        for argument in self._file_arguments:
            name = getattr(self, argument)
            if name:
                setattr(self, argument, os.path.join(self.data_root or "", name))

    def _require_files(self) -> None:
        """Raise for the files that the config names and that are not there."""
        if not self.ann_file:
            raise DatasetError(
                f"ann_file is empty; name the file that {type(self).__name__} reads."
            )
        missing = [
            f"{name} {os.path.abspath(path)}"
            for name in ("ann_file", *self._file_arguments)
            if (path := getattr(self, name)) and not os.path.isfile(path)
        ]
        if missing:
            raise DatasetError(
                f"Missing: {', '.join(missing)}.\nPut the data there, or name the folder that "
                "holds it with --data-root DIR (data_root in the config)."
            )


class FaceProtocolDataset(FaceDataset):
    """Every distinct image of a verification protocol once; ``metainfo`` says what to compare.

    Always in ``test_mode``. It has no subsets, since the protocol names images by their index.
    """

    def __init__(self, *args, test_mode: bool = True, **kwargs) -> None:
        if not test_mode:
            raise ValueError(
                f"{type(self).__name__} is for evaluation only, and test_mode is False"
            )
        super().__init__(*args, test_mode=True, **kwargs)

    def _select(self, indices: int | Sequence[int]) -> np.ndarray:
        raise DatasetError(
            f"{type(self).__name__} has no subsets: its pairs name images by their index. "
            "Leave out indices, and shorten the file of pairs instead."
        )

    def _set_protocol(self, **arrays: Sequence) -> None:
        """Put arrays into ``metainfo``, protected from being written."""
        for name, values in arrays.items():
            array = np.asarray(values)
            array.setflags(write=False)
            self._metainfo[name] = array


def _own(value: object) -> object:
    """``value``, copied where a transform could change it in place."""
    return value if isinstance(value, str | bytes | np.generic) else copy.copy(value)
