"""The result for an image, to be shown again and again with other thresholds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from negvision.inference.drawing import draw
from negvision.inference.runtime import Classification, Detections, LabelMap
from negvision.visualization.boxes import name_of

# Rows of a classifier's table.
_MOST_CLASSES = 20
# Pixels: larger images are slow to draw and to send at each move of a slider.
LONGEST = 1280


@dataclass(frozen=True)
class Scale:
    """How OOD scores are shown: as percentiles of known samples, if their quantiles are known.

    Attributes:
        quantiles: OOD scores of known samples at evenly spaced ranks; () if not known.
        threshold: Of the model, in scores; None if it has none.

    Example:
        >>> scale = Scale((-8.0, -4.0, 0.0), threshold=-1.0)
        >>> float(scale.shown(-6.0)), scale.start, scale.score(87.5), scale.score(50.0)
        (25.0, 87.5, -1.0, -4.0)
    """

    quantiles: tuple[float, ...] = ()
    threshold: float | None = None

    @property
    def word(self) -> str:
        """What is shown."""
        return "OOD percentile" if self.quantiles else "OOD score"

    @property
    def start(self) -> float:
        """Where the slider starts."""
        value = float(self.shown(self.threshold or 0.0))
        return round(value, 1) if self.quantiles else value

    def shown(self, scores: float | np.ndarray) -> float | np.ndarray:
        """Scores as they are shown."""
        if not self.quantiles:
            return scores
        return np.interp(scores, self.quantiles, np.linspace(0, 100, len(self.quantiles)))

    def score(self, shown: float) -> float:
        """The score of a place on the slider; at its start exactly the threshold."""
        if self.threshold is not None and shown == self.start:
            return self.threshold
        if not self.quantiles:
            return shown
        return float(np.interp(shown, np.linspace(0, 100, len(self.quantiles)), self.quantiles))


def headers_of(task: str, has_ood: bool, scale: Scale) -> list[str]:
    """The columns of the table for a task."""
    if task == "classification":
        return ["class", "probability"]
    if task == "segmentation":
        return ["class", "pixels %", *["of them unknown %"] * has_ood]
    ood = [scale.word, "unknown"] if has_ood else []
    return ["class", "score", *ood, "x1", "y1", "x2", "y2"]


@dataclass(frozen=True)
class Shown:
    """An image at the size of the page, with its result.

    Attributes:
        image: (H, W, 3) uint8 BGR; the longer side has at most ``LONGEST`` pixels.
        result: Boxes or maps in pixels of ``image``, or its class.
        zoom: Sides of ``image`` / sides of the original image.
        classes: Names.
        scale: How OOD scores are shown. Thresholds are scores everywhere.
    """

    image: np.ndarray
    result: Detections | LabelMap | Classification
    zoom: float
    classes: Sequence[str]
    scale: Scale = Scale()

    @property
    def has_ood(self) -> bool:
        """Whether there are OOD scores."""
        return self._ood_scores is not None

    @property
    def _ood_scores(self) -> np.ndarray | None:
        found = self.result
        if isinstance(found, Classification):
            return None if found.ood_score is None else np.array(found.ood_score)
        return found.ood_scores

    def ood_range(self, threshold: float | None = None) -> tuple[float, float]:
        """Lowest and highest finite OOD score and ``threshold``, rounded outward to thousandths."""
        values = [] if threshold is None else [threshold]
        scores = self._ood_scores
        scores = np.zeros(0) if scores is None else scores[np.isfinite(scores)]
        if scores.size:
            values += [float(scores.min()), float(scores.max())]
        low, high = min(values, default=0.0), max(values, default=0.0)
        return float(np.floor(low * 1000)) / 1000, float(np.ceil(high * 1000)) / 1000

    def drawing(self, score_threshold: float, ood_threshold: float | None) -> np.ndarray:
        """The result drawn with these thresholds: (H', W', 3) uint8 RGB."""
        return draw(
            self.image,
            self.result,
            self.classes,
            score_threshold=score_threshold,
            ood_threshold=ood_threshold,
            enlarge=True,
        )[..., ::-1]

    def table(self, score_threshold: float, ood_threshold: float | None) -> dict[str, list]:
        """``headers`` and ``data``: a row per class, or per box in pixels of the original image."""
        limit = np.inf if ood_threshold is None else ood_threshold
        found, rows = self.result, []
        if isinstance(found, Detections):
            return self._boxes(found.above(score_threshold), limit)
        if isinstance(found, Classification):
            for label in found.top(_MOST_CLASSES).tolist():
                score = _rounded(found.probabilities[label])
                rows.append([name_of(label, self.classes), score])
            return self._table("classification", rows)
        labels, counts = np.unique(found.labels, return_counts=True)
        for index in np.argsort(-counts, kind="stable"):
            label, count = int(labels[index]), int(counts[index])
            row = [name_of(label, self.classes), round(100 * count / found.labels.size, 1)]
            if found.ood_scores is not None:
                unknown = np.count_nonzero(found.ood_scores[found.labels == label] > limit)
                row.append(round(100 * unknown / count, 1))
            rows.append(row)
        return self._table("segmentation", rows)

    def _table(self, task: str, rows: list[list]) -> dict[str, list]:
        return {"headers": headers_of(task, self.has_ood, self.scale), "data": rows}

    def _boxes(self, found: Detections, limit: float) -> dict[str, list]:
        rows = []
        for index, box in enumerate(found.boxes / self.zoom):
            row = [name_of(int(found.labels[index]), self.classes), _rounded(found.scores[index])]
            if found.ood_scores is not None:
                score = found.ood_scores[index]
                row += [self._ood(score), "yes" if score > limit else ""]
            rows.append(row + [round(float(side)) for side in box])
        return self._table("detection", rows)

    def _ood(self, score: float) -> float:
        return round(float(self.scale.shown(score)), 1 if self.scale.quantiles else 3)

    def summary(self, score_threshold: float, ood_threshold: float | None) -> str:
        """What is drawn, in one line."""
        height, width = (round(side / self.zoom) for side in self.image.shape[:2])
        text, result = f"{width} x {height} pixels", self.result
        if isinstance(result, Detections):
            found = result.above(score_threshold)
            text += f"; {len(found)} of {len(result)} boxes"
            if len(result) and not len(found):
                text += f" (the highest score is {result.scores.max():.2f})"
            result = found
        if isinstance(result, Classification):
            if result.ood_score is not None:
                places = 1 if self.scale.quantiles else 3
                text += f"; {self.scale.word} {self._ood(result.ood_score):.{places}f}"
                if ood_threshold is not None and result.ood_score > ood_threshold:
                    text += ", unknown"
        elif result.ood_scores is not None and ood_threshold is not None:
            unknown = result.ood_scores > ood_threshold
            if isinstance(result, Detections):
                text += f", {np.count_nonzero(unknown)} of them unknown"
            else:
                text += f"; {100 * unknown.mean():.1f} % unknown"
        return text + "."


def at_page_size(
    image: np.ndarray,
    result: Detections | LabelMap | Classification,
    classes: Sequence[str],
    scale: Scale = Scale(),
) -> Shown:
    """Reduce a large image (H, W, 3) and its result to the size of the page."""
    zoom = min(LONGEST / max(image.shape[:2]), 1.0)
    if zoom == 1.0:
        return Shown(image, result, zoom, classes, scale)
    size = max(round(image.shape[1] * zoom), 1), max(round(image.shape[0] * zoom), 1)
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if isinstance(result, Detections):
        result = dataclasses.replace(result, boxes=result.boxes * zoom)
    if not isinstance(result, LabelMap):
        return Shown(image, result, zoom, classes, scale)
    # ``unknown`` is left out: the threshold of the slider defines it.
    labels = cv2.resize(result.labels, size, interpolation=cv2.INTER_NEAREST)
    scores = result.ood_scores
    if scores is not None:
        scores = cv2.resize(scores, size, interpolation=cv2.INTER_NEAREST)
    return Shown(image, LabelMap(labels, scores), zoom, classes, scale)


def _rounded(value: float) -> float:
    return round(float(value), 3)
