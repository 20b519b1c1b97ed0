"""The file that a training leaves of its annotations: what it knew of each of them, by epoch."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from negvision.errors import DatasetError
from negvision.files import atomic_write

FILE_NAME = "sample_history.npz"
# Column -> type in the file: 26 bytes a row of an annotation, 36 one of a detection.
ROWS = {
    "annotation": np.int64, "epoch": np.int32, "loss": np.float32, "own": np.float16,
    "other": np.float16, "other_class": np.int32, "iou": np.float16,
}  # fmt: skip
FOUND = {
    "found_image": np.int64, "found_epoch": np.int32, "found_class": np.int32,
    "found_score": np.float32, "found_box": np.float32,
}  # fmt: skip


@dataclass(frozen=True)
class SampleHistory:
    """What a training computed of each annotation in each epoch.

    Written by :class:`negvision.SampleHistoryHook`. Row i is one annotation in one epoch; values
    are means over what the annotation had in that epoch (priors or RoIs, pixels, repetitions). An
    annotation without a row in an epoch was not drawn, was cut off, or had no prior.

    Attributes:
        task: "detection", "faces", "classification" or "segmentation".
        digest: SHA-256 of the annotation files, or "" if there are none (:func:`digest_of`).
        classes: Names of the classes; empty if the data set has none.
        annotation: (n,) int64, ascending within an epoch. Detection: the id in the COCO file; the
            running number over all boxes of the data set if it has no ids that are numbers and
            differ. Faces and classification: index of the image. Segmentation: index of the
            image times 65,536 plus the number of the connected region of one class, from 0, in
            the order of their first pixels.
        epoch: (n,) int32, from 0; passes over the data where the training counts iterations.
        loss: (n,) float32, at least 0: classification loss of the head.
        own: (n,) float16, score of the annotated class, in [0, 1]; faces: cosine to the own center.
        other: (n,) float16, score of the best other class; faces: cosine to the nearest other
            center.
        other_class: (n,) int32, that class or person, in the last iteration that saw the
            annotation.
        iou: (n,) float16. Detection: IoU of predicted and annotated box. Segmentation: share of
            the pixels that are predicted as their class. Otherwise NaN.
        found_image: (m,) int64, of confident predictions on background: the image's id in the COCO
            file, or its index.
        found_epoch, found_class: (m,) int32.
        found_score: (m,) float32, in [0, 1].
        found_box: (m, 4) float32, (x1, y1, x2, y2) in pixels of the original image.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / FILE_NAME
        >>> rows = dict(annotation=[7, 9, 7], epoch=[0, 0, 1], loss=[2.0, 1.0, 1.5])
        >>> SampleHistory.of("classification", "", ("cat",), **rows).save(path)
        >>> ids, epochs, losses = SampleHistory.load(path).table("loss")
        >>> ids.tolist(), epochs.tolist(), losses.tolist()
        ([7, 9], [0, 1], [[2.0, 1.5], [1.0, nan]])
    """

    task: str
    digest: str
    classes: tuple[str, ...]
    annotation: np.ndarray
    epoch: np.ndarray
    loss: np.ndarray
    own: np.ndarray
    other: np.ndarray
    other_class: np.ndarray
    iou: np.ndarray
    found_image: np.ndarray
    found_epoch: np.ndarray
    found_class: np.ndarray
    found_score: np.ndarray
    found_box: np.ndarray

    @classmethod
    def of(cls, task: str, digest: str, classes: tuple[str, ...], **columns) -> SampleHistory:
        """A history of the given columns; missing ones are NaN, -1, or empty."""
        n, m = len(columns.get("annotation", ())), len(columns.get("found_image", ()))
        arrays = {}
        for name, kind in (ROWS | FOUND).items():
            shape = (m if name in FOUND else n, *((4,) if name == "found_box" else ()))
            fill = -1 if np.issubdtype(kind, np.integer) else np.nan
            given = columns.get(name)
            arrays[name] = (
                np.full(shape, fill, kind) if given is None else np.asarray(given, kind)
            ).reshape(shape)
        return cls(task, digest, tuple(classes), **arrays)

    def save(self, path: str | Path) -> None:
        """Write the file, completely or not at all.

        Raises:
            UserError: It cannot be written.
        """
        content = {name: getattr(self, name) for name in (*ROWS, *FOUND)}
        with atomic_write(path) as partial, partial.open("wb") as file:
            np.savez(
                file, task=self.task, digest=self.digest, classes=np.array(self.classes, str),
                **content,
            )  # fmt: skip

    @classmethod
    def load(cls, path: str | Path) -> SampleHistory:
        """Read a file, without running code in it.

        Raises:
            DatasetError: There is none, or it is not one of these files.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                columns = {name: file[name] for name in (*ROWS, *FOUND)}
                task, digest = str(file["task"]), str(file["digest"])
                classes = tuple(map(str, file["classes"]))
            if len({len(columns[name]) for name in ROWS}) > 1:
                raise ValueError("columns differ in length")
        except FileNotFoundError:
            raise DatasetError(
                f"{path}: there is no such file. negvision train --history writes it"
            ) from None
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise DatasetError(
                f"{path}: it is damaged, or not a file of negvision.SampleHistoryHook ({error}). "
                "Train again with that hook"
            ) from None
        return cls.of(task, digest, classes, **columns)

    def table(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids (N,), epochs (E,), and the column ``name`` by both, (N, E) float32, NaN if missing.

        Ids and epochs are those that occur, ascending.
        """
        ids, row = np.unique(self.annotation, return_inverse=True)
        epochs, column = np.unique(self.epoch, return_inverse=True)
        values = np.full((len(ids), len(epochs)), np.nan, np.float32)
        values[row, column] = getattr(self, name)
        return ids, epochs, values

    def before(self, epoch: int) -> SampleHistory:
        """The rows of the epochs before ``epoch``."""
        kept = {name: getattr(self, name)[self.epoch < epoch] for name in ROWS}
        found = {name: getattr(self, name)[self.found_epoch < epoch] for name in FOUND}
        return dataclasses.replace(self, **kept, **found)

    def joined(self, other: SampleHistory) -> SampleHistory:
        """The rows of ``self``, then those of ``other``."""
        names = (*ROWS, *FOUND)
        both = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names}
        return dataclasses.replace(self, **both)


def digest_of(*paths: str | Path) -> str:
    """SHA-256 of the contents of files, in this order; "" for none."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest() if paths else ""
