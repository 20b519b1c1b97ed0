"""Predictions for one image."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from negvision.data.score_calibration import ScoreCalibration


@dataclass(frozen=True)
class Detections:
    """Boxes of one image, sorted by descending score.

    Attributes:
        boxes: (N, 4) float32 as x1, y1, x2, y2, in pixels of the image.
        scores: (N,) float32.
        labels: (N,) int64, indices into the classes of the model.
        ood_scores: (N,) float32, higher is more OOD; None for a model without an OOD score.
        unknown: (N,) bool; None without a threshold.
        masks: (N, H, W) bool, at the size of the image; None for a model without masks.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    ood_scores: np.ndarray | None = None
    unknown: np.ndarray | None = None
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def above(self, score_threshold: float) -> Detections:
        """The boxes whose score is at least ``score_threshold``.

        Example:
            >>> boxes = np.array([[0, 0, 9, 9], [5, 5, 8, 8]], np.float32)
            >>> found = Detections(boxes, np.array([0.9, 0.2]), np.array([1, 0]))
            >>> found.above(0.5).labels
            array([1])
        """
        return self._rows(self.scores >= score_threshold)

    def calibrated(self, calibration: ScoreCalibration | None) -> Detections:
        """The boxes with calibrated scores, the highest first; as they are without one."""
        if calibration is None:
            return self
        scores = calibration.apply(self.scores, self.labels)
        return replace(self, scores=scores)._rows(np.argsort(-scores, kind="stable"))

    def _rows(self, rows: np.ndarray) -> Detections:
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        chosen = {name: values[rows] for name, values in columns.items() if values is not None}
        return Detections(**chosen)


@dataclass(frozen=True)
class LabelMap:
    """Classes of the pixels of one image.

    Attributes:
        labels: (H, W) int32, indices into the classes of the model.
        ood_scores: (H, W) float32, higher is more OOD; None for a model without an OOD score.
        unknown: (H, W) bool; None without a threshold.
        scores: (H, W) float32, the probability of each label; None for a model that is not
            calibrated.
    """

    labels: np.ndarray
    ood_scores: np.ndarray | None = None
    unknown: np.ndarray | None = None
    scores: np.ndarray | None = None


@dataclass(frozen=True)
class Classification:
    """The class of a whole image.

    Attributes:
        probabilities: (C,) float32 by label; their sum is 1.
        ood_score: Higher is more OOD; None for a model without an OOD score.
        unknown: Whether the image shows something unknown; None without a threshold.
    """

    probabilities: np.ndarray
    ood_score: float | None = None
    unknown: bool | None = None

    def calibrated(self, calibration: ScoreCalibration | None) -> Classification:
        """The class with calibrated probabilities; as it is without a calibration."""
        if calibration is None:
            return self
        return replace(self, probabilities=calibration.of_probabilities(self.probabilities))

    def top(self, count: int = 1) -> np.ndarray:
        """The labels of the ``count`` most probable classes, at most (C,) int64, best first.

        Example:
            >>> Classification(np.array([0.2, 0.7, 0.1])).top(2)
            array([1, 0])
        """
        return np.argsort(-self.probabilities, kind="stable")[:count]


@dataclass(frozen=True)
class Embedding:
    """The embedding of a face.

    Attributes:
        vector: (D,) float32, not normalized.
    """

    vector: np.ndarray

    def similarity(self, other: Embedding) -> float:
        """Cosine similarity in [-1, 1]; 0 if one vector is all zeros.

        Example:
            >>> Embedding(np.array([1.0, 0.0])).similarity(Embedding(np.array([0.0, 2.0])))
            0.0
        """
        norms = float(np.linalg.norm(self.vector) * np.linalg.norm(other.vector))
        return float(self.vector @ other.vector) / norms if norms else 0.0


Result = Detections | LabelMap | Classification | Embedding
