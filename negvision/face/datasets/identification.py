"""A gallery of known people, and probes to be found in it."""

from collections.abc import Sequence

import numpy as np

from negvision.data.formats.paths import LEAVES_ROOT
from negvision.data.formats.text_files import numbered_lines, parse_labeled
from negvision.data.images.files import FileListing
from negvision.errors import Problems
from negvision.face.datasets.base import FaceProtocolDataset
from negvision.face.datasets.packed import PackedStrings
from negvision.face.datasets.text_files import read_landmarks
from negvision.registry import DATASETS


@DATASETS.register_module()
class FaceIdentificationDataset(FaceProtocolDataset):
    """The images of a gallery and of probes, two lists with labels in common.

    ``metainfo`` has ``gallery`` and ``probes``, int64 arrays of sample indices. A probe whose
    label no gallery image has is an impostor (open set).

    Args:
        ann_file: The gallery, lines ``path label``.
        probe_file: The probes, likewise.
        landmarks_file: As of :class:`negvision.face.datasets.list_file.FaceListDataset`.
        on_bad_sample: "error" raises for malformed lines, missing images and a probe that is a
            gallery image too. "skip" leaves them out, counted and logged.
        **kwargs: Of :class:`negvision.face.datasets.base.FaceProtocolDataset`.

    Raises:
        DatasetError: see above; also where the gallery or the probes are empty.

    Example:
        >>> import pathlib, tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("a.jpg", "b.jpg", "c.jpg"):
        ...     _ = (root / name).write_bytes(b"")
        >>> _ = (root / "gallery.txt").write_text("a.jpg 0\\n")
        >>> _ = (root / "probes.txt").write_text("b.jpg 0\\nc.jpg 7\\n")
        >>> dataset = FaceIdentificationDataset(
        ...     data_root=str(root), ann_file="gallery.txt", probe_file="probes.txt")
        >>> dataset.metainfo["gallery"].tolist(), dataset.metainfo["probes"].tolist()
        ([0], [1, 2])
    """

    _file_arguments = ("probe_file", "landmarks_file")

    def __init__(self, *args, probe_file: str, landmarks_file: str = "", **kwargs) -> None:
        self.probe_file = probe_file
        self.landmarks_file = landmarks_file
        super().__init__(*args, **kwargs)

    def load_columns(self) -> dict[str, Sequence]:
        """Read and check both lists; see the base class."""
        self._require_files()
        problems = Problems()
        landmarks = read_landmarks(self.landmarks_file, problems) if self.landmarks_file else None
        files = FileListing()
        found: dict[str, int] = {}
        sizes = []
        for path in (self.ann_file, self.probe_file):
            for place, line in numbered_lines(path):
                parsed = parse_labeled(place, line, problems)
                if parsed is None:
                    continue
                name, label = parsed
                if label < 0:
                    problems.add("negative label", place, line)
                elif name in found:
                    problems.add("image that is listed before", place, line)
                elif self._leaves_root(name):
                    problems.add(LEAVES_ROOT, place, name)
                elif self._image_path(name) not in files:
                    problems.add("missing image file", place, self._image_path(name))
                elif landmarks is not None and name not in landmarks:
                    problems.add("image without landmarks", place, name)
                else:
                    found[name] = label
            sizes.append(len(found) - sum(sizes))
        for path, size in zip((self.ann_file, self.probe_file), sizes, strict=True):
            if not size and not problems:
                problems.add("list without an image", path)
        self._settle(
            f"{self.ann_file} and {self.probe_file}",
            problems,
            "the gallery and the probes",
            min(sizes),
            nothing_left="The gallery or the probes are empty. Do data_root and "
            "data_prefix['img'] point to the images? They are looked for in "
            f"{self.data_prefix.get('img', '')!r}.",
        )
        self._set_protocol(gallery=np.arange(sizes[0]), probes=sizes[0] + np.arange(sizes[1]))
        columns: dict[str, Sequence] = {
            "img_path": PackedStrings(found),
            "label": np.array(list(found.values()), dtype=np.int64),
        }
        if landmarks is not None:
            columns["landmarks"] = np.stack([landmarks[name] for name in found])
        return columns
