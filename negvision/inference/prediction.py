"""What a model finds in one image, with the image and the names of the classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from negvision.data.formats.coco_masks import to_run_lengths
from negvision.errors import UserError
from negvision.inference.runtime import Classification, Detections, Embedding, LabelMap
from negvision.inference.runtime.results import Result

if TYPE_CHECKING:
    import pandas
    import supervision


@dataclass(frozen=True)
class Prediction:
    """The prediction of an image.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        source: Its file or URL; "" for an array.
        result: Boxes, a label map, the probabilities of classes or an embedding.
        classes: Names of all classes, indexed by label.
        frame: Number of the frame of a video, or None.
        top: How many classes of a classifier ``names``, ``labels`` and ``scores`` have; None: all.
        shown_from: Score from which boxes are drawn unless another is given.

    Example:
        >>> found = Detections(np.array([[1.0, 2, 30, 40]]), np.array([0.9]), np.array([1]))
        >>> one = Prediction(np.zeros((64, 64, 3), np.uint8), "a.jpg", found, ("cat", "dog"))
        >>> one.names, one.boxes.tolist(), one.to_json()
        (['dog'], [[1.0, 2.0, 30.0, 40.0]], '[{"name": "dog", "label": 1, "score": 0.9, "box": \
[1.0, 2.0, 30.0, 40.0]}]')
    """

    image: np.ndarray
    source: str
    result: Result
    classes: tuple[str, ...] = ()
    frame: int | None = None
    top: int | None = None
    shown_from: float = 0.0

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) x1, y1, x2, y2 in pixels of the image, by descending score."""
        return self._detections.boxes

    @property
    def scores(self) -> np.ndarray:
        """(N,) in [0, 1], of each box; of the most probable classes, for a classifier."""
        if isinstance(self.result, Classification):
            return self.result.probabilities[self.labels]
        return self._detections.scores

    @property
    def probs(self) -> np.ndarray:
        """(C,) float32, of a classifier: the probability of each class, by label."""
        if isinstance(self.result, Classification):
            return self.result.probabilities
        raise UserError(f"this model classifies no images: its result is {self._kind}")

    @property
    def embedding(self) -> np.ndarray:
        """(D,) float32, not normalized, of a face recognizer."""
        if isinstance(self.result, Embedding):
            return self.result.vector
        raise UserError(f"this model gives no embedding: its result is {self._kind}")

    @property
    def labels(self) -> np.ndarray:
        """(N,) indices into the classes; (H, W) for a segmentor; best first for a classifier."""
        if isinstance(self.result, LabelMap):
            return self.result.labels
        if isinstance(self.result, Classification):
            return self.result.top(self.top or len(self.result.probabilities))
        return self._detections.labels

    @property
    def masks(self) -> np.ndarray | None:
        """(N, H, W) bool, at the size of the image; None for a model without masks."""
        return self._detections.masks

    @property
    def names(self) -> list[str]:
        """The class of each box; the classes that a label map shows, or those of ``labels``."""
        labels = self.labels
        if isinstance(self.result, LabelMap):
            labels = np.unique(labels)
        return [self._name(label) for label in labels.tolist()]

    @property
    def unknown(self) -> np.ndarray | bool | None:
        """(N,) or (H, W) bool, one of a classifier; None for a model without an OOD threshold."""
        return None if isinstance(self.result, Embedding) else self.result.unknown

    def plot(self, score_threshold: float | None = None, enlarge: bool = False) -> np.ndarray:
        """The image with what was found, (H', W', 3) uint8 RGB.

        Args:
            score_threshold: Boxes with a lower score are not drawn; None for ``shown_from``.
            enlarge: As in :func:`negvision.inference.drawing.draw`.
        """
        from negvision.inference.drawing import draw

        if isinstance(self.result, Embedding):
            raise UserError("an embedding cannot be drawn; compare embeddings by similarity()")
        start = self.shown_from if score_threshold is None else score_threshold
        limits = {"score_threshold": start, "top": self.top}
        drawn = draw(self.image, self.result, self.classes, enlarge=enlarge, **limits)
        return cv2.cvtColor(drawn, cv2.COLOR_BGR2RGB)

    def to_records(self) -> list[dict[str, Any]]:
        """One dict per box, or per class of a classifier: name, label, score, box and what else.

        That is ``segmentation``, the mask as in COCO results, OOD score and unknown.
        """
        records = []
        if isinstance(self.result, Classification):
            return self._records_of_classes(self.result)
        found = self._detections
        segmentations = None if found.masks is None else to_run_lengths(found.masks)
        for row, name in enumerate(self.names):
            record: dict[str, Any] = {
                "name": name,
                "label": int(found.labels[row]),
                "score": round(float(found.scores[row]), 4),
                "box": [round(float(side), 2) for side in found.boxes[row]],
            }
            if segmentations is not None:
                record["segmentation"] = segmentations[row]
            if found.ood_scores is not None:
                record["ood_score"] = float(found.ood_scores[row])
            if found.unknown is not None:
                record["unknown"] = bool(found.unknown[row])
            records.append(record)
        return records

    def to_json(self) -> str:
        """:meth:`to_records` as text."""
        return json.dumps(self.to_records())

    def to_pandas(self) -> pandas.DataFrame:
        """One row per box, or per class of a classifier.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UserError("pandas is not installed: pip install pandas") from None
        rows = self.to_records()
        for row in rows:
            row |= zip(("x1", "y1", "x2", "y2"), row.pop("box", ()), strict=False)
        return pandas.DataFrame(rows)

    def to_supervision(self) -> supervision.Detections | supervision.Classifications:
        """The boxes as ``supervision.Detections``, or classes as ``supervision.Classifications``.

        Raises:
            UserError: supervision is not installed.
        """
        from negvision.inference.supervision import to_supervision

        is_classified = isinstance(self.result, Classification)
        found = self.result if is_classified else self._detections
        return to_supervision(found, self.classes)

    def __len__(self) -> int:
        return len(self.labels if isinstance(self.result, Classification) else self._detections)

    def _records_of_classes(self, found: Classification) -> list[dict[str, Any]]:
        ood = {"ood_score": found.ood_score, "unknown": found.unknown}
        known = {key: value for key, value in ood.items() if value is not None}
        return [
            {"name": name, "label": label, "score": round(score, 4), **known}
            for name, label, score in zip(
                self.names, self.labels.tolist(), self.scores.tolist(), strict=True
            )
        ]

    @property
    def _detections(self) -> Detections:
        if isinstance(self.result, Detections):
            return self.result
        raise UserError(f"this model finds no boxes: its result is {self._kind}")

    @property
    def _kind(self) -> str:
        return {
            "Detections": "boxes (prediction.boxes)",
            "LabelMap": "a label map (prediction.labels)",
            "Classification": "the probabilities of classes (prediction.probs)",
            "Embedding": "an embedding (prediction.embedding)",
        }[type(self.result).__name__]

    def _name(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else str(label)


def as_bgr(image: Any, name: str = "image", as_stored: bool = False) -> np.ndarray:
    """An image of PIL, or an array in its order of channels, as (H, W, 3) uint8 BGR.

    Args:
        image: PIL image, or (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA uint8. Transparent
            pixels keep their color.
        name: For error messages.
        as_stored: Ignore the EXIF orientation of a PIL image.

    Raises:
        UserError: It has another shape or type.

    Example:
        >>> as_bgr(np.full((2, 3), 7, np.uint8)).shape
        (2, 3, 3)
    """
    if hasattr(image, "convert"):  # PIL
        from PIL import ImageOps

        image = np.asarray((image if as_stored else ImageOps.exif_transpose(image)).convert("RGB"))
    array = np.asarray(image)
    if array.dtype.kind in "OSU" or not array.ndim:
        kind = type(image).__name__
        raise UserError(f"{name}: a {kind}; give a path, a PIL image, an array, or a list of these")
    if array.dtype != np.uint8:
        raise UserError(f"{name}: an array of {array.dtype}; give uint8, from 0 to 255")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise UserError(
            f"{name}: an array of shape {array.shape}; give (H, W), (H, W, 3) RGB or (H, W, 4) RGBA"
        )
    code = {1: cv2.COLOR_GRAY2BGR, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGR}[array.shape[2]]
    return cv2.cvtColor(array, code)


def is_path(source: Any) -> bool:
    """Whether ``source`` names a file, folder, pattern or URL."""
    return isinstance(source, str) or hasattr(source, "__fspath__")


def is_many(source: Any) -> bool:
    """Whether ``source`` is a list of sources."""
    return isinstance(source, Sequence) and not isinstance(source, str | bytes)
