"""Faces named by a text file, or sorted into one folder an identity."""

import os
from collections.abc import Sequence

import numpy as np

from negvision.data.formats.paths import LEAVES_ROOT
from negvision.data.formats.text_files import numbered_lines, parse_labeled
from negvision.data.images.files import FileListing
from negvision.errors import DatasetError, Problems
from negvision.face.datasets.identities import FaceIdentityDataset
from negvision.face.datasets.packed import PackedStrings
from negvision.face.datasets.text_files import read_landmarks
from negvision.registry import DATASETS

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@DATASETS.register_module()
class FaceListDataset(FaceIdentityDataset):
    """Images that a text file lists with their labels, one ``path label`` a line.

    All lines are checked when the file is loaded, and image folders are listed once for missing
    files. Unreadable images are met when they are loaded, given ``negvision.LoadImageFromFile``
    in the pipeline.

    Args:
        ann_file: The list. Paths are relative to ``data_prefix["img"]`` and may hold blanks.
        landmarks_file: Lines ``path x1 y1 ... x5 y5`` in pixels, for
            :class:`negvision.face.datasets.alignment.AlignFace`; paths as in the list.
        **kwargs: Of :class:`negvision.face.datasets.identities.FaceIdentityDataset`.

    Raises:
        DatasetError: a line, label or image is at fault and ``on_bad_sample`` is "error", or
            nothing is left.

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

    def load_columns(self) -> dict[str, Sequence]:
        """Read and check the list; see the base class."""
        self._require_files()
        problems = Problems()
        landmarks = read_landmarks(self.landmarks_file, problems) if self.landmarks_file else None
        files = FileListing()
        names, labels, total = [], [], 0
        for place, line in numbered_lines(self.ann_file):
            total += 1
            parsed = parse_labeled(place, line, problems)
            if parsed is None:
                continue
            name, label = parsed
            fault = self._label_fault(label)
            if fault:
                problems.add(fault, place, line)
            elif self._leaves_root(name):
                problems.add(LEAVES_ROOT, place, name)
            elif self._image_path(name) not in files:
                problems.add("missing image file", place, self._image_path(name))
            elif landmarks is not None and name not in landmarks:
                problems.add("image without landmarks", place, name)
            else:
                names.append(name)
                labels.append(label)
        self._settle_samples(self.ann_file, problems, total, len(names))
        kept, labels = self._number_identities(labels, self.ann_file)
        columns = {"img_path": PackedStrings(names[i] for i in kept), "label": labels}
        if landmarks is not None:
            columns["landmarks"] = np.stack([landmarks[names[i]] for i in kept])
        return columns


@DATASETS.register_module()
class FaceFolderDataset(FaceIdentityDataset):
    """Images in one folder an identity: ``data_prefix["img"]/identity/*.jpg``.

    Labels follow the sorted names of the folders, which ``identities`` lists. Files that are no
    JPEG, PNG, BMP or WebP by their names are left alone; folders inside are not looked into.

    Args:
        **kwargs: Of :class:`negvision.face.datasets.identities.FaceIdentityDataset`; ``ann_file``
            has no use here.

    Raises:
        DatasetError: there is no identity folder, or one holds no image and ``on_bad_sample`` is
            "error".

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

    def load_columns(self) -> dict[str, Sequence]:
        """List the folders; see the base class."""
        root = self.data_prefix.get("img", "") or "."
        if not os.path.isdir(root):
            raise DatasetError(
                f"Missing: image folder {os.path.abspath(root)}.\nName the folder that holds the "
                "data with --data-root DIR (data_root in the config)."
            )
        problems = Problems()
        names, labels, others = [], [], 0
        with os.scandir(root) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir())
        for folder in folders:
            inside = sorted(os.listdir(os.path.join(root, folder)))
            images = [name for name in inside if name.lower().endswith(_IMAGE_SUFFIXES)]
            others += len(inside) - len(images)
            label = labels[-1] + 1 if labels else 0
            fault = self._label_fault(label)
            if not images:
                problems.add("identity folder without an image", os.path.join(root, folder))
            elif fault:
                problems.add(fault, os.path.join(root, folder), label)
            else:
                names += [os.path.join(folder, name) for name in images]
                labels += [label] * len(images)
        if others:
            self._log(f"{root}: {others:,} files left alone that are no images by their names.")
        self._settle_samples(root, problems, len(names), len(names))
        kept, numbers = self._number_identities(labels, root)
        self.identities = sorted({names[i].split(os.sep)[0] for i in kept})
        return {"img_path": PackedStrings(names[i] for i in kept), "label": numbers}
