"""Write the predictions of many images into a folder."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from negvision.errors import UserError
from negvision.inference.drawing import draw
from negvision.inference.inferencer import Inferencer
from negvision.inference.runtime import Detections, LabelMap
from negvision.inference.runtime.results import Result
from negvision.inference.sources import Frame
from negvision.inference.videos import VideoWriter

# Half the size of the default of 95; lower qualities smear thin lines.
_QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 92)
Entry = dict[str, Any]


class OutputFolder:
    """A folder whose files appear under their names only when they are complete.

    Files of the same names are replaced. Every method raises UserError if it cannot write.

    Args:
        path: The folder; it is created.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as path:
        ...     OutputFolder(path).write("labels/street.png", b"...").name
        'street.png'
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        # Fails before a model is loaded and hours are spent.
        self.begin("probe").unlink()

    def write(self, name: str, content: bytes) -> Path:
        """Write a file, and the folders above it."""
        partial = self.begin(name)
        with self.reported(name):
            partial.write_bytes(content)
        return self.keep(name)

    def begin(self, name: str) -> Path:
        """A new file that :meth:`keep` gives its name, to be written bit by bit."""
        partial = self._partial(name)
        with self.reported(name):
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.touch()
        return partial

    def keep(self, name: str) -> Path:
        """Give a complete file its name."""
        target = self.path / name
        with self.reported(name):
            os.replace(self._partial(name), target)
        return target

    def drop(self, name: str) -> None:
        """Remove an incomplete file."""
        with contextlib.suppress(OSError):
            self._partial(name).unlink(missing_ok=True)

    def _partial(self, name: str) -> Path:
        target = self.path / name
        return target.with_name(f".{os.getpid()}.{target.name}")

    @contextlib.contextmanager
    def reported(self, name: str) -> Iterator[None]:
        """Report OSError inside as UserError, and remove the incomplete file."""
        try:
            yield
        except OSError as error:
            self.drop(name)
            raise UserError(
                f"--out: {self.path / name} cannot be written: {error.strerror or error}. Choose "
                "another folder"
            ) from None


class Writer:
    """Write results one by one; after an error no file is incomplete.

    - Detectors: ``predictions.json``, COCO results in which ``category_id`` is the label.
    - Segmentors: ``labels/NAME.png`` and ``ood_scores/NAME.npy``.
    - Faces: ``embeddings.npz`` with ``embeddings`` (N, D), ``names`` (N,) and ``frames`` (N,), -1
      for images.
    - All but faces: ``pictures/NAME.jpg`` or ``.mp4``, and ``images.json``, a COCO annotation file
      of images and classes in which ``id`` is the index of the image, or the label.

    Args:
        folder: To write to.
        model: The model that predicts.
        drawings: Whether to write ``pictures``.

    Raises:
        UserError: A file cannot be written.

    With a model, whose results are written as they come::

        with Writer(OutputFolder("out"), model) as writer:
            for frame in find_sources(["images/"]).read(model.decode):
                writer.add(frame, model.predict([frame.image])[0])
            files = writer.finish()
    """

    def __init__(self, folder: OutputFolder, model: Inferencer, drawings: bool = True) -> None:
        self.folder = folder
        self.images: list[Entry] = []
        self._model = model
        self._draws = drawings and model.task != "face"
        self._names: set[str] = set()
        self._name = ""  # of the current image or video
        self._video: VideoWriter | None = None
        self._boxes = self._unknown = 0
        self._predictions: Any = None
        if model.task == "detection":
            self._predictions = folder.begin("predictions.json").open("w", encoding="utf-8")
        self._embeddings: list[tuple[np.ndarray, str, int]] = []

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error) -> None:
        if error[0] is None:
            return
        if self._predictions is not None:
            self._predictions.close()
            self.folder.drop("predictions.json")
        if self._video is not None:
            self._video.close()
            self.folder.drop(self._video_name())

    def add(self, frame: Frame, result: Result) -> None:
        """Write the result of one image."""
        height, width = frame.image.shape[:2]
        entry: Entry = {
            "id": len(self.images),
            "file_name": frame.name,
            "width": width,
            "height": height,
        }
        if not frame.number:
            self._finish_video()
            self._name = self._free_name(frame.name)
        name = self._name
        if frame.number is not None:
            entry["frame"] = frame.number
            name += f"_{frame.number:06d}"
        if isinstance(result, Detections):
            self._add_boxes(result, entry)
        elif isinstance(result, LabelMap):
            self._add_maps(result, entry, name)
        else:
            self._embeddings.append((result.vector, frame.name, entry.get("frame", -1)))
        if self._draws:
            entry["picture"] = self._add_drawing(frame, result)
        self.images.append(entry)

    def finish(self) -> list[Path]:
        """Write the files about all images; returns all files and folders."""
        self._finish_video()
        if self._model.task == "face":
            return [self._write_embeddings()]
        written = []
        if self._predictions is not None:
            with self.folder.reported("predictions.json"):
                self._predictions.write("]\n" if self._boxes else "[]\n")
                self._predictions.close()
            written.append(self.folder.keep("predictions.json"))
        categories = [{"id": label, "name": name} for label, name in enumerate(self._model.classes)]
        # pycocotools accepts results only if there are annotations.
        index = {"images": self.images, "categories": categories, "annotations": []}
        written.append(self.folder.write("images.json", json.dumps(index).encode()))
        parts = ("labels", "ood_scores", "picture")
        files = {entry[part] for entry in self.images for part in parts if part in entry}
        folders = sorted({PurePosixPath(file).parts[0] for file in files})
        return [*written, *(self.folder.path / name for name in folders)]

    def summary(self) -> str:
        """The number of images and boxes, in words."""
        parts = [f"{len(self.images):,} images"]
        if self._model.task == "detection":
            parts.append(f"{self._boxes:,} boxes")
        if self._unknown:
            parts.append(f"{self._unknown:,} of them unknown")
        return ", ".join(parts)

    def _add_boxes(self, result: Detections, entry: Entry) -> None:
        corners, sizes = result.boxes[:, :2], result.boxes[:, 2:] - result.boxes[:, :2]
        columns = {
            "category_id": result.labels,
            "bbox": np.concatenate([corners, sizes], 1),
            "score": result.scores,
            "ood_score": result.ood_scores,
            "is_ood": result.unknown,
        }
        known = {key: values.tolist() for key, values in columns.items() if values is not None}
        same = {"image_id": entry["id"]} | {key: entry[key] for key in ("frame",) if key in entry}
        with self.folder.reported("predictions.json"):
            for values in zip(*known.values(), strict=True):
                box = json.dumps(same | dict(zip(known, values, strict=True)))
                self._predictions.write((",\n" if self._boxes else "[") + box)
                self._boxes += 1
        self._unknown += sum(known.get("is_ood", ()))

    def _add_maps(self, result: LabelMap, entry: Entry, name: str) -> None:
        # 16 bits for many classes, and if their number is not known.
        dtype = np.uint8 if 0 < len(self._model.classes) <= 256 else np.uint16
        entry["labels"] = f"labels/{name}.png"
        content = cv2.imencode(".png", result.labels.astype(dtype))[1]
        self.folder.write(entry["labels"], content.tobytes())
        if result.ood_scores is not None:
            entry["ood_scores"] = f"ood_scores/{name}.npy"
            buffer = io.BytesIO()
            np.save(buffer, result.ood_scores.astype(np.float32))
            self.folder.write(entry["ood_scores"], buffer.getvalue())

    def _write_embeddings(self) -> Path:
        vectors, names, frames = zip(*self._embeddings, strict=True)
        buffer = io.BytesIO()
        np.savez(buffer, embeddings=np.array(vectors), names=np.array(names), frames=frames)
        return self.folder.write("embeddings.npz", buffer.getvalue())

    def _add_drawing(self, frame: Frame, result: Result) -> str:
        """Draw an image or the frame of a video; returns the name of its file."""
        model = self._model
        limit = {} if model.score_threshold is None else {"score_threshold": model.score_threshold}
        drawn = draw(frame.image, result, model.classes, ood_threshold=model.ood_threshold, **limit)
        if frame.number is None:
            name = f"pictures/{self._name}.jpg"
            self.folder.write(name, cv2.imencode(".jpg", drawn, _QUALITY)[1].tobytes())
            return name
        if self._video is None:
            partial = self.folder.begin(self._video_name())
            self._video = VideoWriter(partial, frame.rate or 25.0, drawn.shape[:2])
        self._video.add(drawn)
        return self._video_name()

    def _video_name(self) -> str:
        return f"pictures/{self._name}.mp4"

    def _finish_video(self) -> None:
        if self._video is not None:
            self._video.close()
            self._video = None
            self.folder.keep(self._video_name())

    def _free_name(self, source: str) -> str:
        """The stem of a source, numbered if another source has the same."""
        stem = Path(urlsplit(source).path if "://" in source else source).stem
        stem = stem.replace("webcam ", "webcam_") or "image"
        name, number = stem, 1
        while name in self._names:
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name)
        return name
