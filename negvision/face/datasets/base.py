"""Base classes of the face datasets."""

import copy
import hashlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init

from negvision.data.formats.paths import LEAVES_ROOT, leaves_root
from negvision.data.formats.text_files import numbered_lines, parse_labeled
from negvision.data.images.bad_samples import BadSampleMixin
from negvision.data.images.files import FileListing
from negvision.data.packed import PackedStrings
from negvision.errors import DatasetError, Problems
from negvision.face.datasets.tables import read_landmarks


class FaceDataset(BadSampleMixin, BaseDataset):
    """Face images, each with its identity.

    A dataset of MMEngine that keeps its samples in arrays instead of a list of dicts: the
    5.8 million images of MS1MV2 take a few hundred MB, shared by all workers. Files must be local.

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
        self, ann_file: str = "", data_root: str = "", data_prefix: Mapping | None = None, **kwargs
    ) -> None:
        self._columns: dict[str, Any] = {}
        self._rows: np.ndarray | None = None
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=dict(data_prefix or {"img": ""}),
            **kwargs,
        )

    def load_columns(self) -> dict[str, Any]:
        """Read and check what describes the images; sequences with one entry per sample.

        ``label`` is an int64 array, -1 if unknown; ``img_path``, below the image folder,
        ``img_bytes`` (an encoded image) or both.
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
        """Description of the whole set; its arrays are read-only and not copied."""
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
        """The length of loaded columns, without MMEngine's slow decorator."""
        return len(self._columns["label"] if self._rows is None else self._rows)

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """One entry of each column, and ``sample_idx``."""
        row = self._row(idx)
        info = {
            name: _own(column[row]) for name, column in self._columns.items() if name != "img_path"
        }
        info["label"] = int(info["label"])
        info["img_path"] = self._describe(row)
        info["sample_idx"] = idx % self._count()
        return info

    @force_full_init
    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep the samples ``indices``; an int keeps the first ones, a negative int the last."""
        self._rows = self._select(indices)

    @force_full_init
    def get_subset(self, indices: int | Sequence[int]) -> "FaceDataset":
        """Like :meth:`get_subset_`, on a copy that shares the arrays."""
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
        """The ``img_path`` of a sample, which errors name it by."""
        return self._image_path(self._columns["img_path"][row])

    def _image_path(self, name: str) -> str:
        return os.path.join(self.data_prefix.get("img", ""), name)

    def _join_prefix(self) -> None:
        super()._join_prefix()
        for argument in self._file_arguments:
            name = getattr(self, argument)
            if name:
                setattr(self, argument, os.path.join(self.data_root or "", name))

    def _require_files(self) -> None:
        """Raise ``DatasetError`` if a file that the config names is missing."""
        if not self.ann_file:
            raise DatasetError(
                f"ann_file is empty. Set it to the file that {type(self).__name__} reads."
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

    def _label_problem(self, label: int) -> str | None:
        """What is wrong with a label, or None."""
        return "negative label" if label < 0 else None

    def _read_labeled(
        self, path: str, images: "ListedImages", problems: Problems
    ) -> tuple[list[str], list[int], int]:
        """Names and labels of the usable lines ``path label``, and the number of all lines."""
        names, labels, total = [], [], 0
        for place, line in numbered_lines(path):
            total += 1
            parsed = parse_labeled(place, line, problems)
            if parsed is None:
                continue
            name, label = parsed
            if kind := self._label_problem(label):
                problems.add(kind, place, line)
            elif problem := images.problem(name):
                problems.add(problem[0], place, problem[1])
            else:
                names.append(name)
                labels.append(label)
        return names, labels, total

    def _settle_samples(
        self, source: str, problems: Problems, counted: str, left: int, listed: str = "image"
    ) -> None:
        """Raise or log the problems found in ``counted``, of which ``left`` can be used."""
        if not left and not problems:
            raise DatasetError(f"{source}: lists no {listed}.")
        self._settle(
            source,
            problems,
            counted,
            left,
            nothing_left=f"No {listed} is left. Check that data_root and data_prefix['img'] point "
            f"to the images; they are expected in {self.data_prefix.get('img', '')!r}.",
        )


class ListedImages:
    """Decides which of the images that a file of ``dataset`` names can be used.

    An image must lie inside the data folders, exist, and have landmarks if the dataset has a
    ``landmarks_file``; ``unique`` refuses images that were accepted before. ``problems`` collects
    malformed lines of the landmarks file.
    """

    def __init__(self, dataset: FaceDataset, problems: Problems, unique: bool = False) -> None:
        path = getattr(dataset, "landmarks_file", "")
        self.landmarks = read_landmarks(path, problems) if path else None
        self._dataset, self._files = dataset, FileListing()
        self._accepted: set[str] | None = set() if unique else None
        # As the disk has them, names that the file spells otherwise.
        self._spelled: dict[str, str] = {}

    def problem(self, name: str) -> tuple[str, str] | None:
        """The kind of problem and the name or path to show; None for a usable image."""
        folder, root = self._dataset.data_prefix.get("img", ""), self._dataset.data_root
        if leaves_root(name, folder, root):
            return LEAVES_ROOT, name
        found = self._files.find(folder, name, root)
        if found is None:
            return "missing image file", self._dataset._image_path(name)
        if found != name:
            self._spelled[name] = found
        if self.landmarks is not None and name not in self.landmarks:
            return "image without landmarks", name
        if self._accepted is not None:
            if name in self._accepted:
                return "image listed twice", name
            self._accepted.add(name)
        return None

    def columns(self, names: Iterable[str]) -> dict[str, Any]:
        """The columns ``img_path`` and, if the dataset has them, ``landmarks``."""
        names = list(names)
        columns: dict[str, Any] = {
            "img_path": PackedStrings(self._spelled.get(name, name) for name in names)
        }
        if self.landmarks is not None:
            columns["landmarks"] = np.stack([self.landmarks[name] for name in names])
        return columns


class FaceIdentityDataset(FaceDataset):
    """A set in which every image has an identity; ``metainfo["num_classes"]`` counts them.

    Args:
        num_classes: Without it, labels are renumbered 0 ... C - 1 in ascending order, and the
            change is logged. With it, labels stay as they are and must be below ``num_classes``,
            so that several sets can share class centers.
        min_images: Identities with fewer images are dropped and logged. One image is enough for
            the classification pairs, but gives no positive metric pair.
        *args, **kwargs: Of :class:`FaceDataset`.
    """

    def __init__(
        self, *args, num_classes: int | None = None, min_images: int = 1, **kwargs
    ) -> None:
        for name, value in (("min_images", min_images), ("num_classes", num_classes)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be 1 or more")
        self.num_classes = num_classes
        self.min_images = min_images
        super().__init__(*args, **kwargs)

    def _label_problem(self, label: int) -> str | None:
        if self.num_classes is not None and label >= self.num_classes:
            return f"label out of range: num_classes is {self.num_classes}"
        return super()._label_problem(label)

    def _number_identities(
        self, labels: Sequence[int] | np.ndarray, source: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the samples to keep and their numbered identities, both int64 (N,).

        ``labels`` are those of all usable samples, not negative; messages name ``source``.
        """
        found, identity, counts = np.unique(
            np.asarray(labels, dtype=np.int64), return_inverse=True, return_counts=True
        )
        few = counts < self.min_images
        if few.all():
            raise DatasetError(
                f"{source}: no identity has min_images = {self.min_images} or more images; the "
                f"largest has {counts.max(initial=0)}."
            )
        if few.any():
            self._log(
                f"{source}: dropped {few.sum():,} of {len(found):,} identities, which have fewer "
                f"than {self.min_images} images ({counts[few].sum():,} of {len(labels):,} images).",
                logging.WARNING if 2 * counts[few].sum() > len(labels) else logging.INFO,
            )
        single = int(((counts == 1) & ~few).sum())
        if single:
            self._log(f"{source}: {single:,} of {(~few).sum():,} identities have one image.")
        kept = np.flatnonzero(~few[identity])
        if self.num_classes is not None:
            self._metainfo["num_classes"] = self.num_classes
            return kept, found[identity[kept]]
        self._metainfo["num_classes"] = int((~few).sum())
        left = found[~few]
        self._set_identities(left.tolist())
        if left[-1] != len(left) - 1:
            self._log(
                f"{source}: labels {left[0]} ... {left[-1]} of {len(left):,} identities become "
                f"0 ... {len(left) - 1}. Set num_classes to keep the labels."
            )
        return kept, (np.cumsum(~few) - 1)[identity[kept]]

    def _set_identities(self, identities: Sequence[object]) -> None:
        """Put a digest of the identities, in the order of their labels, into ``metainfo``.

        A checkpoint holds it, so that no other people take over the centers when it is resumed.
        """
        text = "\n".join(map(str, identities))
        self._metainfo["identities"] = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


class FaceProtocolDataset(FaceDataset):
    """Every distinct image of a verification protocol, once; ``metainfo`` says what to compare.

    Always in ``test_mode``. Subsets are refused, since the protocol refers to images by index.
    """

    def __init__(self, *args, test_mode: bool = True, **kwargs) -> None:
        if not test_mode:
            raise ValueError(
                f"{type(self).__name__} is for evaluation only, and test_mode is False"
            )
        super().__init__(*args, test_mode=True, **kwargs)

    def _select(self, indices: int | Sequence[int]) -> np.ndarray:
        raise DatasetError(
            f"{type(self).__name__} has no subsets, because its pairs refer to images by index. "
            "Remove indices, and shorten the file of pairs instead."
        )

    def _set_protocol(self, **arrays: np.ndarray) -> None:
        """Put read-only arrays into ``metainfo``."""
        for name, array in arrays.items():
            array.setflags(write=False)
            self._metainfo[name] = array


def _own(value: Any) -> Any:
    """``value``, copied if a transform could change it in place."""
    return value if isinstance(value, str | bytes | np.generic) else copy.copy(value)
