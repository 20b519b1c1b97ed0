"""Known people and the embeddings of their images, among which a photograph is searched."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from negvision.data.images.listing import PassedOver, is_stray
from negvision.data.packed import PackedStrings
from negvision.errors import DatasetError, UserError
from negvision.files import staged
from negvision.inference.runtime.results import Embedding
from negvision.inference.sources import LeaveOut, end_at_once

if TYPE_CHECKING:
    from negvision.inference.inferencer import Inferencer

_FORMAT = 1
_ABOUT, _VECTORS = "gallery.json", "embeddings.safetensors"
# Cosine of the embeddings that one model gives an image in PyTorch, ONNX Runtime and float16.
_SAME_MODEL = 0.999


@dataclass(frozen=True)
class Match:
    """A person of a gallery.

    Attributes:
        name: Of the person.
        similarity: The highest cosine of the photograph and an image of the person.
        file: That image.
        known: Whether the similarity reaches the threshold; None without a threshold.
    """

    name: str
    similarity: float
    file: str
    known: bool | None = None


class Gallery:
    """Embeddings of the images of known people.

    Args:
        names: The person on each image.
        embeddings: (N, D) of the images; they are normalized.
        files: Names of the images; default: none.
        probes: ``Inferencer.probes`` of the model, by which another one is refused.
        about: What the file says besides: ``model`` and ``face_detector``, paths.

    Raises:
        DatasetError: It has no image, or an embedding is not finite or is zero.

    Example:
        >>> gallery = Gallery(["bob", "ann"], np.array([[0.0, 2.0], [3.0, 0.0]], np.float32))
        >>> gallery.search(np.array([1.0, 0.1], np.float32), top=1)[0].name, len(gallery.people)
        ('ann', 2)
    """

    def __init__(
        self,
        names: Sequence[str],
        embeddings: np.ndarray,
        files: Sequence[str] | None = None,
        probes: np.ndarray | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        if not len(names):
            raise DatasetError("a gallery without an image: there is nobody to find.")
        files = files if files is not None else [""] * len(names)
        order = sorted(range(len(names)), key=lambda row: (names[row], row))
        vectors = np.asarray(embeddings, np.float32)[order]
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and norms.all()):
            raise DatasetError("an embedding is zero or not finite. Does the checkpoint fit?")
        vectors /= norms
        sorted_names = [names[row] for row in order]
        starts = [
            row
            for row, name in enumerate(sorted_names)
            if row == 0 or name != sorted_names[row - 1]
        ]
        self._set(
            vectors,
            np.array(starts, np.int64),
            PackedStrings(sorted_names[row] for row in starts),
            PackedStrings(files[row] for row in order),
            np.zeros((0, vectors.shape[1]), np.float32) if probes is None else probes,
            dict(about or {}),
        )

    def _set(
        self,
        vectors: np.ndarray,
        starts: np.ndarray,
        people: PackedStrings,
        files: PackedStrings,
        probes: np.ndarray,
        about: dict[str, Any],
    ) -> None:
        # The images of a person are consecutive rows.
        self.embeddings, self._starts = vectors, starts
        self.people, self._files = people, files
        self._probes, self.about = probes, about

    def __len__(self) -> int:
        """The number of images."""
        return len(self.embeddings)

    @classmethod
    def enroll(
        cls,
        model: Inferencer,
        folder: str | os.PathLike,
        batch_size: int = 1,
        leave_out: LeaveOut = end_at_once,
    ) -> Gallery:
        """A gallery of a folder with one folder of images for each person.

        Args:
            model: A face recognizer.
            folder: Of the people.
            batch_size: Images in a batch.
            leave_out: Called for an image that cannot be used.

        Raises:
            DatasetError: There is no image, or one cannot be used.
        """
        names, files = people_in(folder)
        vectors, kept = embed_files(model, files, batch_size, leave_out)
        if not len(kept):
            raise DatasetError(f"{folder}: no image is left to enroll.")
        about = {"model": model.path, "face_detector": model.face_detector_path}
        return cls(
            [names[row] for row in kept],
            vectors,
            [os.path.basename(files[row]) for row in kept],
            model.probes,
            about,
        )

    def save(self, folder: str | os.PathLike) -> None:
        """Write a folder with ``embeddings.safetensors`` and ``gallery.json``.

        Raises:
            UserError: It cannot be written.
        """
        from safetensors.numpy import save_file

        tensors = {
            "embeddings": self.embeddings,
            "starts": self._starts,
            "probes": np.ascontiguousarray(self._probes, np.float32),
            **_tensors("people", self.people),
            **_tensors("files", self._files),
        }
        about = {"format": _FORMAT, "images": len(self), "people": len(self.people), **self.about}
        try:
            with staged(Path(folder)) as new:
                save_file(tensors, new / _VECTORS)
                (new / _ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{folder}: the gallery cannot be written: {reason}") from None

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Gallery:
        """Read what :meth:`save` wrote.

        Raises:
            DatasetError: There is no gallery, or it is damaged.
        """
        from safetensors import SafetensorError, safe_open

        folder = Path(folder)
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            if about["format"] != _FORMAT:
                raise ValueError(f"it has the format {about['format']!r}")
            with safe_open(folder / _VECTORS, framework="numpy") as file:
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            vectors, starts = found["embeddings"], found["starts"]
            people, files = (_strings(found, name) for name in ("people", "files"))
            fits = (
                vectors.ndim == 2
                and len(vectors) == len(files) > 0
                and len(starts) == len(people)
                and starts[0] == 0
                and (np.diff(starts) > 0).all()
                and starts[-1] < len(vectors)
                and found["probes"].shape[1] == vectors.shape[1]
            )
            if not fits:
                raise ValueError("its parts do not fit each other")
        except FileNotFoundError as error:
            raise DatasetError(
                f"{folder}: no gallery, since {os.path.basename(error.filename or _VECTORS)} is "
                "missing. Make one with negvision enroll."
            ) from None
        except (OSError, ValueError, KeyError, TypeError, IndexError, SafetensorError) as error:
            raise DatasetError(
                f"{folder}: the gallery is damaged ({error}). Make it again with negvision enroll."
            ) from None
        gallery = cls.__new__(cls)
        gallery._set(vectors, starts, people, files, found["probes"], about)
        return gallery

    def require_model(self, model: Inferencer) -> None:
        """Raise unless ``model`` gives embeddings that can be compared with those here.

        Raises:
            UserError: It is another model than the one that made the gallery.
        """
        own, others = self._probes, model.probes
        if own.shape == others.shape:
            norms = np.linalg.norm(own, axis=1) * np.linalg.norm(others, axis=1)
            if ((own * others).sum(axis=1) >= _SAME_MODEL * norms).all():
                return
        raise UserError(
            f"the gallery was made by another model, {self.about.get('model', 'which is unknown')}"
            f", so its embeddings cannot be compared with those of {model.path}. Use that model, "
            "or make the gallery again with negvision enroll"
        )

    def search(
        self, embedding: np.ndarray | Embedding, top: int = 5, threshold: float | None = None
    ) -> list[Match]:
        """The people most similar to a photograph, best first.

        Exact: each image is compared.

        Args:
            embedding: (D,), of a model that :meth:`require_model` accepts.
            top: How many people.
            threshold: Similarity from which a person is known.

        Raises:
            DatasetError: The embedding has another length, is zero or not finite.
        """
        vector = embedding.vector if isinstance(embedding, Embedding) else np.asarray(embedding)
        vector = vector.astype(np.float32)
        norm = np.linalg.norm(vector)
        if vector.shape != self.embeddings.shape[1:] or not np.isfinite(norm) or not norm:
            raise DatasetError(
                f"an embedding of shape {vector.shape} and length {norm:g} cannot be compared with "
                f"those of the gallery, of shape {self.embeddings.shape[1:]}."
            )
        # A product of a matrix and a vector in BLAS takes twice as long, with two threads.
        scores = np.einsum("ij,j->i", self.embeddings, vector / norm)
        best = np.maximum.reduceat(scores, self._starts)
        count = min(top, len(best))
        chosen = np.argpartition(-best, count - 1)[:count]
        chosen = chosen[np.lexsort((chosen, -best[chosen]))]
        ends = np.append(self._starts[1:], len(scores))
        matches = []
        for person in chosen.tolist():
            start, end = int(self._starts[person]), int(ends[person])
            row = start + int(scores[start:end].argmax())
            similarity = float(scores[row])
            known = None if threshold is None else similarity >= threshold
            matches.append(Match(self.people[person], similarity, self._files[row], known))
        return matches


def people_in(folder: str | os.PathLike) -> tuple[list[str], list[str]]:
    """Images in one folder per person: names of the people and paths, (N,) each, by name.

    Raises:
        DatasetError: There is no such folder, or no image in a folder of it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DatasetError(f"{folder}: no such folder; give one with a folder for each person.")
    names, files, passed_over = [], [], PassedOver()
    for inner in sorted(path for path in root.iterdir() if path.is_dir()):
        if is_stray(inner.name):
            continue
        images = passed_over.named(sorted(os.listdir(inner)))
        names += [inner.name] * len(images)
        files += [str(inner / name) for name in images]
    if not files:
        raise DatasetError(
            f"{folder}: no folder in it has an image{passed_over.but()}. Give a folder with a "
            "folder of images for each person."
        )
    return names, files


def embed_files(
    model: Inferencer, files: Sequence[str], batch_size: int, leave_out: LeaveOut = end_at_once
) -> tuple[np.ndarray, list[int]]:
    """Embeddings (K, D) of the images that can be used, and which of ``files`` they are.

    Args:
        model: A face recognizer.
        files: Images.
        batch_size: Images in a batch.
        leave_out: Called for an image that cannot be used.
    """
    model.require_faces()
    vectors, kept = [], []
    usable = _prepared(model, files, leave_out)
    while batch := list(islice(usable, batch_size)):
        found = model.embed([image for _, image in batch], batch_size, aligned=True)
        vectors.append(found)
        kept += [row for row, _ in batch]
    return np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32), kept


def _prepared(
    model: Inferencer, files: Sequence[str], leave_out: LeaveOut
) -> Iterator[tuple[int, np.ndarray]]:
    for row, file in enumerate(files):
        try:
            yield row, model.face_of(file)
        except UserError as error:
            leave_out(error)


def _tensors(name: str, packed: PackedStrings) -> dict[str, np.ndarray]:
    return {f"{name}.text": packed.buffer, f"{name}.ends": packed.ends}


def _strings(found: Mapping[str, np.ndarray], name: str) -> PackedStrings:
    return PackedStrings.of(found[f"{name}.text"], found[f"{name}.ends"])
