"""What a model says about one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Detections:
    """Boxes of one image, by falling score.

    Attributes:
        boxes: (N, 4) float32 as x1, y1, x2, y2, in pixels of the image.
        scores: (N,) float32.
        labels: (N,) int64, places in the classes of the model.
        ood_scores: (N,) float32, higher is more OOD; None for a model without them.
        unknown: (N,) bool, None without a threshold.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    ood_scores: np.ndarray | None = None
    unknown: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class LabelMap:
    """Classes of the pixels of one image.

    Attributes:
        labels: (H, W) int32, places in the classes of the model.
        ood_scores: (H, W) float32, higher is more OOD; None for a model without them.
        unknown: (H, W) bool, None without a threshold.
    """

    labels: np.ndarray
    ood_scores: np.ndarray | None = None
    unknown: np.ndarray | None = None


@dataclass(frozen=True)
class Embedding:
    """A face.

    Attributes:
        vector: (D,) float32, not normalised.
    """

    vector: np.ndarray

    def similarity(self, other: Embedding) -> float:
        """Cosine of the angle to another one, in [-1, 1]; 0 where one is all zeros."""
        norms = float(np.linalg.norm(self.vector) * np.linalg.norm(other.vector))
        return float(self.vector @ other.vector) / norms if norms else 0.0


Result = Detections | LabelMap | Embedding
