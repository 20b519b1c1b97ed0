"""Write the predictions of many images into a folder."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from negvision.data.formats.coco_masks import to_run_lengths
from negvision.errors import UserError
from negvision.files import atomic_write, staged, write_reason
from negvision.inference.drawing import draw
from negvision.inference.inferencer import Inferencer
from negvision.inference.runtime import Classification, Detections, Embedding, LabelMap
from negvision.inference.runtime.results import Result
from negvision.inference.sources import Frame
from negvision.inference.videos import VideoWriter
from negvision.visualization.boxes import name_of

# Half the size of the default of 95; lower qualities smear thin lines.
_QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 92)
_MOST_OF_JPEG = 65_500
_MOST_NAMED = 10
UNKNOWN = "unknown"
Entry = dict[str, Any]


class Writer:
    """Write results one by one; after an error no file is incomplete.

    - Detectors: ``predictions.json``, COCO results in which ``category_id`` is the label, with
      ``segmentation`` for models with masks.
    - Classifiers: ``predictions.json`` with ``image_id``, ``category_id`` and ``score`` of the most
      probable classes of each image, best first.
    - Segmentors: ``labels/NAME.png`` and ``ood_scores/NAME.npy``.
    - Faces: ``embeddings.npz`` with ``embeddings`` (N, D), ``names`` (N,) and ``frames`` (N,), -1
      for images.
    - All but faces: ``drawings/NAME.jpg`` or ``.mp4``, and ``images.json``, a COCO annotation file
      of images and classes in which ``id`` is the index of the image, or the label.

    Args:
        folder: To write to; it is created.
        model: The model that predicts.
        drawings: Whether to write ``drawings``.
        enlarge: As in :func:`negvision.inference.drawing.draw`.

    Raises:
        UserError: A file cannot be written.

    With a model, whose results are written as they come::

        with Writer("out", model) as writer:
            for frame in find_sources(["images/"]).read(model.decode):
                writer.add(frame, model.predict([frame.image])[0])
            files = writer.finish()
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        model: Inferencer,
        drawings: bool = True,
        enlarge: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.images: list[Entry] = []
        self._model = model
        self._enlarge = enlarge
        self._shown: Counter[str] = Counter()
        self._videos: dict[str, list[Counter[str]]] = {}  # what each frame shows
        self._draws = drawings and model.task != "face"
        self._names: set[str] = set()
        self._name = self._source = ""  # of the current image or video
        self._records = 0
        self._embeddings: list[tuple[np.ndarray, str, int]] = []
        self._files = contextlib.ExitStack()
        self._predictions: Any = None
        self._video: VideoWriter | None = None
        self._video_file = contextlib.ExitStack()

    def __enter__(self) -> Writer:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._model.task in ("detection", "classification"):
            partial = self._files.enter_context(atomic_write(self.folder / "predictions.json"))
            self._predictions = self._files.enter_context(partial.open("w", encoding="utf-8"))
        self._files.push(self._video_file)
        return self

    def __exit__(self, *error) -> bool | None:
        return self._files.__exit__(*error)

    def add(self, frame: Frame, result: Result) -> str:
        """Write the result of one image; what it shows, in a few words."""
        height, width = frame.image.shape[:2]
        entry: Entry = {
            "id": len(self.images),
            "file_name": frame.name,
            "width": width,
            "height": height,
        }
        # The first frame of a video may have been left out.
        if not frame.number or frame.name != self._source:
            self._finish_video()
            self._name, self._source = self._free_name(frame.name), frame.name
        name = self._name
        if frame.number is not None:
            entry["frame"] = frame.number
            name += f"_{frame.number:06d}"
        if isinstance(result, Detections):
            self._add_boxes(result, entry)
        elif isinstance(result, Classification):
            self._add_classes(result, entry)
        elif isinstance(result, LabelMap):
            self._add_maps(result, entry, name)
        else:
            self._embeddings.append((result.vector, frame.name, entry.get("frame", -1)))
        if self._draws:
            entry["drawing"] = self._add_drawing(frame, result)
        self.images.append(entry)
        shown = self._count(result)
        self._shown.update(shown)
        if frame.number is not None:
            self._videos.setdefault(frame.name, []).append(shown)
        return self._in_words(result, shown)

    def finish(self) -> list[Path]:
        """Write the files about all images; returns all files and folders."""
        self._finish_video()
        if self._model.task == "face":
            return [self._write_embeddings()]
        written = []
        if self._predictions is not None:
            self._predictions.write("]\n" if self._records else "[]\n")
            written.append(self.folder / "predictions.json")
        self._files.close()
        categories = [{"id": label, "name": name} for label, name in enumerate(self._model.classes)]
        # pycocotools accepts results only if there are annotations.
        index = {"images": self.images, "categories": categories, "annotations": []}
        written.append(self._write("images.json", json.dumps(index).encode()))
        parts = ("labels", "ood_scores", "drawing")
        files = {entry[part] for entry in self.images for part in parts if part in entry}
        folders = sorted({PurePosixPath(file).parts[0] for file in files})
        return [*written, *(self.folder / name for name in folders)]

    def videos(self) -> list[str]:
        """A line for each video: its frames, and what they show together."""
        lines = []
        for name, frames in self._videos.items():
            shown = sum(frames, Counter[str]())
            pixels = shown.total() - shown[UNKNOWN]
            words = _shares(shown, pixels) if self._model.task == "segmentation" else _counts(shown)
            line = f"{name}: {len(frames):,} frames"
            lines.append(line if self._model.task == "face" else f"{line}, {words or 'nothing'}")
        return lines

    def summary(self) -> str:
        """What all images show, by class: boxes from the threshold on, images, or pixels."""
        shown, task = self._shown, self._model.task
        if task == "face":
            return f"{len(self.images):,} embeddings"
        if task == "segmentation":
            pixels = sum(entry["width"] * entry["height"] for entry in self.images)
            return f"pixels: {_shares(shown, pixels)}"
        if task == "classification":
            return f"images: {_counts(shown)}"
        start, total = self._model.shown_threshold, shown.total()
        text = f"{total:,} boxes from score {start}" + f": {_counts(shown)}" * bool(total)
        rest = self._records - total
        return text + f"\n{rest:,} boxes of lower scores are in predictions.json too" * bool(rest)

    def _count(self, result: Result) -> Counter[str]:
        """What an image shows: boxes or pixels by class, or its class."""
        classes, found = self._model.classes, Counter[str]()
        if isinstance(result, Detections):
            result = result.above(self._model.shown_threshold.value)
            unknown = np.zeros(len(result)) if result.unknown is None else result.unknown
            for label, strange in zip(result.labels.tolist(), unknown, strict=True):
                found[UNKNOWN if strange else name_of(label, classes)] += 1
        elif isinstance(result, LabelMap):
            labels, counts = np.unique(result.labels, return_counts=True)
            for label, count in zip(labels.tolist(), counts.tolist(), strict=True):
                found[name_of(label, classes)] = count
            if result.unknown is not None:
                found[UNKNOWN] = int(np.count_nonzero(result.unknown))
        elif isinstance(result, Classification):
            [best] = result.top(1).tolist()
            found[UNKNOWN if result.unknown else name_of(best, classes)] = 1
        return found

    def _in_words(self, result: Result, shown: Counter[str]) -> str:
        if isinstance(result, LabelMap):
            return _shares(shown, result.labels.size)
        if isinstance(result, Classification):
            return f"{next(iter(shown))}, probability {result.probabilities.max():.2f}"
        if isinstance(result, Embedding):
            return f"embedding of {len(result.vector)} numbers"
        return _counts(shown) or "nothing"

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
        if result.masks is not None:
            known["segmentation"] = to_run_lengths(result.masks)
        for values in zip(*known.values(), strict=True):
            self._add_record(entry, dict(zip(known, values, strict=True)))

    def _add_classes(self, result: Classification, entry: Entry) -> None:
        ood = {"ood_score": result.ood_score, "is_ood": result.unknown}
        known = {key: value for key, value in ood.items() if value is not None}
        for label in result.top(self._model.top or 1).tolist():
            score = float(result.probabilities[label])
            self._add_record(entry, {"category_id": label, "score": score} | known)

    def _add_record(self, entry: Entry, record: Entry) -> None:
        same = {"image_id": entry["id"]} | {key: entry[key] for key in ("frame",) if key in entry}
        self._predictions.write((",\n" if self._records else "[") + json.dumps(same | record))
        self._records += 1

    def _add_maps(self, result: LabelMap, entry: Entry, name: str) -> None:
        # 16 bits for many classes, and if their number is not known.
        dtype = np.uint8 if 0 < len(self._model.classes) <= 256 else np.uint16
        entry["labels"] = f"labels/{name}.png"
        content = cv2.imencode(".png", result.labels.astype(dtype))[1]
        self._write(entry["labels"], content.tobytes())
        for kind, values in (("ood_scores", result.ood_scores), ("scores", result.scores)):
            if values is not None:
                entry[kind] = f"{kind}/{name}.npy"
                buffer = io.BytesIO()
                np.save(buffer, values.astype(np.float32))
                self._write(entry[kind], buffer.getvalue())

    def _write_embeddings(self) -> Path:
        vectors, names, frames = zip(*self._embeddings, strict=True)
        buffer = io.BytesIO()
        np.savez(buffer, embeddings=np.array(vectors), names=np.array(names), frames=frames)
        return self._write("embeddings.npz", buffer.getvalue())

    def _add_drawing(self, frame: Frame, result: Result) -> str:
        """Draw an image or the frame of a video; returns the name of its file."""
        model = self._model
        drawn = draw(
            frame.image,
            result,
            model.classes,
            score_threshold=model.shown_threshold.value,
            ood_threshold=model.ood_threshold,
            top=model.top,
            enlarge=self._enlarge,
        )
        if frame.number is None:
            fits = max(drawn.shape) <= _MOST_OF_JPEG
            suffix, options = (".jpg", _QUALITY) if fits else (".png", ())
            name = f"drawings/{self._name}{suffix}"
            self._write(name, cv2.imencode(suffix, drawn, options)[1].tobytes())
            return name
        name = f"{self._name}.mp4"
        if self._video is None:
            folder = self._video_file.enter_context(staged(self.folder / "drawings"))
            height, width = drawn.shape[:2]
            self._video = VideoWriter(folder / name, frame.rate or 25.0, (height, width))
            self._video_file.callback(self._video.close)
        self._video.add(drawn)
        return f"drawings/{name}"

    def _finish_video(self) -> None:
        self._video_file.close()
        self._video = None

    def _write(self, name: str, content: bytes) -> Path:
        """Write a small file. Unlike ``atomic_write``, this does not wait for the disk."""
        path = self.folder / name
        partial = path.with_name(f".{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            os.replace(partial, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise UserError(f"{path} cannot be written: {write_reason(error)}") from None
        return path

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


def _counts(shown: Counter[str]) -> str:
    """``9 cat, 6 dog``, most frequent first."""
    return _listed([f"{count:,} {name}" for name, count in shown.most_common()])


def _shares(shown: Counter[str], pixels: int) -> str:
    """``road 62.1 %, sky 37.9 %``, largest first; unknown pixels have a class too."""
    return _listed([f"{name} {100 * count / pixels:.1f} %" for name, count in shown.most_common()])


def _listed(parts: list[str]) -> str:
    more = len(parts) - _MOST_NAMED
    return ", ".join(parts[:_MOST_NAMED]) + f" and {more} more classes" * (more > 0)
