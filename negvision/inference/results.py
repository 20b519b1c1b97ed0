"""What is written of predictions, by task: COCO results, label maps, embeddings."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from negvision.inference.output import OutputFolder, Partial
from negvision.inference.runtime import Detections, Embedding, LabelMap

_EIGHT_BITS = 256
Entry = dict[str, Any]


class Results(Protocol):
    """Takes the results of one task one by one."""

    def add(self, result, entry: Entry, name: str) -> None:
        """Take a result; ``entry`` is its image in ``images.json``, ``name`` that of its files."""

    def finish(self) -> list[Path]:
        """Write what sums up all of them; the files that came of it."""

    def drop(self) -> None:
        """Leave nothing that is not whole."""

    def counted(self) -> list[str]:
        """What there is beside images, with its number, in words."""


class BoxResults:
    """``predictions.json``: COCO results, ``category_id`` being the place of the class.

    Args:
        folder: To write to.
    """

    def __init__(self, folder: OutputFolder) -> None:
        self._partial: Partial = folder.begin("predictions.json")
        self._file = self._partial.path.open("w", encoding="utf-8")
        self._between = "["
        self.boxes = self.unknown = 0

    def add(self, result: Detections, entry: Entry, name: str) -> None:
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
        with self._partial.explained():
            for values in zip(*known.values(), strict=True):
                text = json.dumps(same | dict(zip(known, values, strict=True)))
                self._file.write(f"{self._between}{text}")
                self._between = ",\n"
        self.boxes += len(result)
        self.unknown += sum(known.get("is_ood", ()))

    def finish(self) -> list[Path]:
        with self._partial.explained():
            self._file.write("]\n" if self.boxes else "[]\n")
            self._file.close()
        return [self._partial.keep()]

    def drop(self) -> None:
        self._file.close()
        self._partial.drop()

    def counted(self) -> list[str]:
        unknown = [f"{self.unknown:,} of them unknown"] if self.unknown else []
        return [f"{self.boxes:,} boxes", *unknown]


class MapResults:
    """``labels/NAME.png`` and ``ood_scores/NAME.npy`` of each image.

    Args:
        folder: To write to.
        num_classes: PNGs have 8 bits for up to 256, else 16; so they do for 0, not known.
    """

    def __init__(self, folder: OutputFolder, num_classes: int) -> None:
        self._folder = folder
        self._dtype = np.uint8 if 0 < num_classes <= _EIGHT_BITS else np.uint16

    def add(self, result: LabelMap, entry: Entry, name: str) -> None:
        _, content = cv2.imencode(".png", result.labels.astype(self._dtype))
        entry["labels"] = f"labels/{name}.png"
        self._folder.write(entry["labels"], content.tobytes())
        if result.ood_scores is not None:
            held = io.BytesIO()
            np.save(held, result.ood_scores.astype(np.float32))
            entry["ood_scores"] = f"ood_scores/{name}.npy"
            self._folder.write(entry["ood_scores"], held.getvalue())

    def finish(self) -> list[Path]:
        return []

    def drop(self) -> None:
        """Each file is whole as soon as it is there."""

    def counted(self) -> list[str]:
        return []


class FaceResults:
    """``embeddings.npz``: ``embeddings`` (N, D), ``names`` (N,), ``frames`` (N,), -1 for images.

    Args:
        folder: To write to.
    """

    def __init__(self, folder: OutputFolder) -> None:
        self._folder = folder
        self._rows: list[tuple[np.ndarray, str, int]] = []

    def add(self, result: Embedding, entry: Entry, name: str) -> None:
        self._rows.append((result.vector, entry["file_name"], entry.get("frame", -1)))

    def finish(self) -> list[Path]:
        columns = zip(("embeddings", "names", "frames"), zip(*self._rows, strict=True), strict=True)
        held = io.BytesIO()
        np.savez(held, **{name: np.array(values) for name, values in columns})
        return [self._folder.write("embeddings.npz", held.getvalue())]

    def drop(self) -> None:
        """Nothing is written before the end."""

    def counted(self) -> list[str]:
        return []
