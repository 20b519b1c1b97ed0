"""Verification pairs of image files."""

from collections.abc import Sequence

import numpy as np

from negvision.data.formats.paths import LEAVES_ROOT
from negvision.data.images.files import FileListing
from negvision.data.images.loading import decode_image
from negvision.errors import DatasetError, Problems
from negvision.face.datasets.base import FaceProtocolDataset
from negvision.face.datasets.packed import PackedStrings
from negvision.face.datasets.pairs_file import Pair, read_pairs
from negvision.face.datasets.text_files import read_landmarks
from negvision.registry import DATASETS


@DATASETS.register_module()
class FacePairDataset(FaceProtocolDataset):
    """Every distinct image that a file of pairs names, once.

    ``metainfo`` has ``pairs``, int64 (P, 2), the indices of the two samples, and ``same``, bool
    (P,); with LFW's own ``pairs.txt`` also ``folds``, int64 (P,). Labels are -1.

    Args:
        ann_file: Lines ``path path same`` with 1 or 0, or LFW's ``pairs.txt`` (see
            :func:`negvision.face.datasets.pairs_file.read_pairs`).
        landmarks_file: As of :class:`negvision.face.datasets.list_file.FaceListDataset`.
        suffix: Of the image files in LFW's format.
        on_bad_sample: "error" raises for a malformed line or a missing image; damaged images are
            met when they are loaded. "skip" reads every image once at the start, and leaves out
            the pairs that cannot be compared, counted and logged.
        **kwargs: Of :class:`negvision.face.datasets.base.FaceProtocolDataset`.

    Raises:
        DatasetError: see above; also where no pair is left.

    Example:
        >>> import pathlib, tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("a.jpg", "b.jpg"):
        ...     _ = (root / name).write_bytes(b"")
        >>> _ = (root / "pairs.txt").write_text("a.jpg b.jpg 0\\nb.jpg a.jpg 0\\n")
        >>> dataset = FacePairDataset(data_root=str(root), ann_file="pairs.txt")
        >>> len(dataset), dataset.metainfo["pairs"].tolist(), dataset.metainfo["same"].tolist()
        (2, [[0, 1], [1, 0]], [False, False])
    """

    _file_arguments = ("landmarks_file",)

    def __init__(self, *args, landmarks_file: str = "", suffix: str = ".jpg", **kwargs) -> None:
        self.landmarks_file = landmarks_file
        self.suffix = suffix
        super().__init__(*args, **kwargs)

    def load_columns(self) -> dict[str, Sequence]:
        """Read and check the pairs; see the base class."""
        self._require_files()
        problems = Problems()
        pairs, has_folds = read_pairs(self.ann_file, self.suffix, problems)
        if not pairs and not problems:
            raise DatasetError(f"{self.ann_file}: holds no pair.")
        landmarks = read_landmarks(self.landmarks_file, problems) if self.landmarks_file else None
        usable = self._usable_pairs(pairs, landmarks, problems)
        self._settle(
            self.ann_file,
            problems,
            f"{len(pairs):,} pairs",
            len(usable),
            nothing_left="No pair is left. Do data_root and data_prefix['img'] point to the "
            f"images? They are looked for in {self.data_prefix.get('img', '')!r}.",
        )
        index: dict[str, int] = {}
        for pair in usable:
            index.setdefault(pair.first, len(index))
            index.setdefault(pair.second, len(index))
        self._set_protocol(
            pairs=np.array([(index[p.first], index[p.second]) for p in usable], dtype=np.int64),
            same=np.array([pair.same for pair in usable], dtype=bool),
        )
        if has_folds:
            self._set_protocol(folds=np.array([pair.fold for pair in usable], dtype=np.int64))
        columns: dict[str, Sequence] = {
            "img_path": PackedStrings(index),
            "label": np.full(len(index), -1, dtype=np.int64),
        }
        if landmarks is not None:
            columns["landmarks"] = np.stack([landmarks[name] for name in index])
        return columns

    def _usable_pairs(
        self, pairs: list[Pair], landmarks: dict | None, problems: Problems
    ) -> list[Pair]:
        files = FileListing()
        faults: dict[str, tuple[str, str] | None] = {}
        usable = []
        for pair in pairs:
            for name in (pair.first, pair.second):
                if name not in faults:
                    faults[name] = self._image_fault(name, files, landmarks)
            found = [fault for fault in (faults[pair.first], faults[pair.second]) if fault]
            if found:
                kind, value = found[0]
                problems.add(kind, pair.place, value)
            else:
                usable.append(pair)
        return usable

    def _image_fault(
        self, name: str, files: FileListing, landmarks: dict | None
    ) -> tuple[str, str] | None:
        path = self._image_path(name)
        if self._leaves_root(name):
            return LEAVES_ROOT, name
        if path not in files:
            return "pair with a missing image file", path
        if landmarks is not None and name not in landmarks:
            return "pair with an image that has no landmarks", name
        if self.on_bad_sample == "skip":
            try:
                with open(path, "rb") as file:
                    decode_image(file.read(), path)
            except (DatasetError, OSError) as error:
                return "pair with an unreadable image", str(error)
        return None
