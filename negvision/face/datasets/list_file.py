"""Faces listed in a text file, or sorted into one folder per identity."""

import os
from typing import Any

from negvision.data.images.listing import PassedOver, is_stray
from negvision.data.packed import PackedStrings
from negvision.errors import DatasetError, Problems
from negvision.face.datasets.base import FaceIdentityDataset, ListedImages
from negvision.registry import DATASETS


@DATASETS.register_module()
class FaceListDataset(FaceIdentityDataset):
    """Images that a text file lists with their labels, one ``path label`` per line.

    All lines are checked on loading, and image folders are listed once to find missing files.
    Unreadable images are found when they are loaded, by ``negvision.LoadImageFromFile``.

    Args:
        ann_file: The list. Paths are relative to ``data_prefix["img"]`` and may contain spaces.
        landmarks_file: Lines ``path x1 y1 ... x5 y5`` in pixels, for
            :class:`negvision.face.datasets.transforms.AlignFace`; paths as in the list.
        **kwargs: Of :class:`negvision.face.datasets.base.FaceIdentityDataset`.

    Example:
        >>> import pathlib, tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("a.jpg", "b.jpg"):
        ...     _ = (root / name).write_bytes(b"")
        >>> _ = (root / "train.txt").write_text("a.jpg 0\\nb.jpg 0\\n")
        >>> dataset = FaceListDataset(data_root=str(root), ann_file="train.txt")
        >>> len(dataset), dataset.metainfo["num_classes"]
        (2, 1)
    """

    _file_arguments = ("landmarks_file",)

    def __init__(self, *args, landmarks_file: str = "", **kwargs) -> None:
        self.landmarks_file = landmarks_file
        super().__init__(*args, **kwargs)

    def load_columns(self) -> dict[str, Any]:
        self._require_files()
        problems = Problems()
        images = ListedImages(self, problems)
        names, labels, total = self._read_labeled(self.ann_file, images, problems)
        self._settle_samples(self.ann_file, problems, f"{total:,} images", len(names))
        kept, numbers = self._number_identities(labels, self.ann_file)
        return {"label": numbers, **images.columns(names[i] for i in kept)}


@DATASETS.register_module()
class FaceFolderDataset(FaceIdentityDataset):
    """Images in one folder per identity: ``data_prefix["img"]/identity/*.jpg``.

    Labels follow the sorted names of the folders, which ``identities`` lists. Only files with the
    suffix of an image are used; hidden files and folders and subfolders are ignored.

    Args:
        **kwargs: Of :class:`negvision.face.datasets.base.FaceIdentityDataset`, without
            ``ann_file``.

    Example:
        >>> import pathlib, tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("ann", "bob"):
        ...     (root / name).mkdir()
        ...     _ = (root / name / "1.jpg").write_bytes(b"")
        ...     _ = (root / name / "2.jpg").write_bytes(b"")
        >>> dataset = FaceFolderDataset(data_root=str(root))
        >>> dataset.identities, dataset.labels.tolist()
        (['ann', 'bob'], [0, 0, 1, 1])
    """

    def load_columns(self) -> dict[str, Any]:
        root = self.data_prefix.get("img", "") or "."
        if not os.path.isdir(root):
            raise DatasetError(
                f"Missing: image folder {os.path.abspath(root)}.\nName the folder that holds the "
                "data with --data-root DIR (data_root in the config)."
            )
        problems = Problems()
        names, labels, passed_over = [], [], PassedOver()
        with os.scandir(root) as entries:
            folders = sorted(e.name for e in entries if e.is_dir() and not is_stray(e.name))
        for folder in folders:
            path = os.path.join(root, folder)
            images = passed_over.named(sorted(os.listdir(path)))
            label = labels[-1] + 1 if labels else 0
            if not images:
                problems.add("identity folder without an image", path)
            elif kind := self._label_problem(label):
                problems.add(kind, path, label)
            else:
                names += [os.path.join(folder, name) for name in images]
                labels += [label] * len(images)
        self._mention(root, passed_over.notes())
        self._settle_samples(root, problems, f"{len(names):,} images", len(names))
        kept, numbers = self._number_identities(labels, root)
        self.identities = sorted({names[i].split(os.sep)[0] for i in kept})
        self._set_identities(self.identities)
        return {"img_path": PackedStrings(names[i] for i in kept), "label": numbers}
