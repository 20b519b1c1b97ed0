"""A gallery of known people, and probes to be found in it."""

from typing import Any

import numpy as np

from negvision.errors import Problems
from negvision.face.datasets.base import FaceProtocolDataset, ListedImages
from negvision.registry import DATASETS


@DATASETS.register_module()
class FaceIdentificationDataset(FaceProtocolDataset):
    """The images of a gallery and of probes, two lists that share their labels.

    ``metainfo`` has ``gallery`` and ``probes``, int64 arrays of sample indices. A probe whose
    label is not in the gallery is an impostor (open set).

    Args:
        ann_file: The gallery, lines ``path label``.
        probe_file: The probes, in the same format.
        landmarks_file: As in :class:`negvision.face.datasets.list_file.FaceListDataset`.
        on_bad_sample: "error" raises for malformed lines, missing images and a probe that is also
            a gallery image. "skip" drops them and logs their number.
        **kwargs: Of :class:`negvision.face.datasets.base.FaceProtocolDataset`.

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

    def load_columns(self) -> dict[str, Any]:
        self._require_files()
        problems = Problems()
        images = ListedImages(self, problems, unique=True)
        gallery, labels, _ = self._read_labeled(self.ann_file, images, problems)
        probes, probe_labels, _ = self._read_labeled(self.probe_file, images, problems)
        self._settle_samples(
            f"{self.ann_file} and {self.probe_file}",
            problems,
            "the gallery and the probes",
            min(len(gallery), len(probes)),
            listed="gallery image or no probe",
        )
        self._set_protocol(
            gallery=np.arange(len(gallery)), probes=len(gallery) + np.arange(len(probes))
        )
        return {
            "label": np.array(labels + probe_labels, dtype=np.int64),
            **images.columns(gallery + probes),
        }
