"""What a model said about an image, kept so that it can be drawn anew for other thresholds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from negvision.inference.drawing import draw
from negvision.inference.runtime import Detections, LabelMap
from negvision.visualization.boxes import name_of

# Of the picture on the page: larger ones are slow to draw and to send at each move of a slider.
LONGEST = 1280
BOX_COLUMNS = ("class", "score", "x1", "y1", "x2", "y2")
LABEL_COLUMNS = ("class", "pixels %")
OOD_COLUMNS = ("OOD score", "unknown")


@dataclass(frozen=True)
class Shown:
    """An image at the size of the page, with its result.

    Attributes:
        image: (H, W, 3) uint8, blue first; the longer side has ``LONGEST`` pixels at most.
        result: Boxes or maps in pixels of ``image``.
        zoom: Sides of ``image`` / sides of the image that was given.
        classes: Names.
    """

    image: np.ndarray
    result: Detections | LabelMap
    zoom: float
    classes: Sequence[str]

    @property
    def has_ood(self) -> bool:
        """Whether there are OOD scores."""
        return self.result.ood_scores is not None

    def ood_range(self, threshold: float | None) -> tuple[float, float]:
        """From the lowest to the highest finite OOD score, widened to hold ``threshold``.

        Rounded outwards to a thousandth, so that nothing lies above the upper end.
        """
        values = [] if threshold is None else [threshold]
        scores = self.result.ood_scores[np.isfinite(self.result.ood_scores)]
        if scores.size:
            values += [float(scores.min()), float(scores.max())]
        low, high = min(values, default=0.0), max(values, default=0.0)
        return float(np.floor(low * 1000)) / 1000, float(np.ceil(high * 1000)) / 1000

    def next_threshold(self, chosen: float, end: float | None, own: float | None) -> float:
        """Where the OOD slider goes for this image: it stays where it was left.

        For a model without a threshold it starts at the upper end, where nothing is unknown, and
        follows that end from image to image until it is moved.

        Args:
            chosen: Where it stands.
            end: The upper end of the scores of the image before, or None.
            own: The threshold of the model, or None.
        """
        if own is None and (end is None or chosen >= end):
            return self.ood_range(None)[1]
        return chosen

    def picture(self, score_threshold: float, ood_threshold: float | None) -> np.ndarray:
        """Drawn for these thresholds: (H', W', 3) uint8, red first."""
        drawn = draw(
            self.image,
            self.result,
            self.classes,
            score_threshold=score_threshold,
            ood_threshold=ood_threshold,
        )
        return drawn[..., ::-1]

    def columns(self) -> list[str]:
        """Headings of :meth:`rows`."""
        own = BOX_COLUMNS if isinstance(self.result, Detections) else LABEL_COLUMNS
        if not self.has_ood:
            return list(own)
        if isinstance(self.result, Detections):
            return [*own[:2], *OOD_COLUMNS, *own[2:]]
        return [*own, "of them unknown %"]

    def rows(self, score_threshold: float, ood_threshold: float | None) -> list[list]:
        """A row for each box in pixels of the given image, or for each class that has pixels."""
        if isinstance(self.result, Detections):
            return self._box_rows(score_threshold, ood_threshold)
        return self._label_rows(ood_threshold)

    def _box_rows(self, score_threshold: float, ood_threshold: float | None) -> list[list]:
        found, rows = self.result, []
        for index in np.flatnonzero(found.scores >= score_threshold):
            row = [name_of(int(found.labels[index]), self.classes), _rounded(found.scores[index])]
            if self.has_ood:
                ood = found.ood_scores[index]
                is_unknown = ood_threshold is not None and ood > ood_threshold
                row += [_rounded(ood), "yes" if is_unknown else ""]
            rows.append(row + [round(float(side)) for side in found.boxes[index] / self.zoom])
        return rows

    def _label_rows(self, ood_threshold: float | None) -> list[list]:
        found, rows = self.result, []
        labels, counts = np.unique(found.labels, return_counts=True)
        for index in np.argsort(-counts, kind="stable"):
            label, count = int(labels[index]), int(counts[index])
            row = [name_of(label, self.classes), round(100 * count / found.labels.size, 1)]
            if self.has_ood:
                unknown = 0
                if ood_threshold is not None:
                    own = found.ood_scores[found.labels == label]
                    unknown = np.count_nonzero(own > ood_threshold)
                row.append(round(100 * unknown / count, 1))
            rows.append(row)
        return rows

    def summary(self, score_threshold: float, ood_threshold: float | None) -> str:
        """What is drawn, in one line."""
        height, width = (round(side / self.zoom) for side in self.image.shape[:2])
        words = f"{width} x {height} pixels"
        scores, unknown = self.result.ood_scores, None
        if isinstance(self.result, Detections):
            kept = self.result.scores >= score_threshold
            words += f"; {int(kept.sum())} of {len(kept)} boxes"
            if not kept.any() and len(kept):
                words += f" (the highest score is {self.result.scores.max():.2f})"
            scores = scores[kept] if self.has_ood else None
        if scores is not None and ood_threshold is not None:
            unknown = np.count_nonzero(scores > ood_threshold)
            if isinstance(self.result, Detections):
                words += f", {unknown} of them unknown"
            else:
                words += f"; {100 * unknown / scores.size:.1f} % unknown"
        return words + "."


def at_page_size(image: np.ndarray, result: Detections | LabelMap, classes: Sequence[str]) -> Shown:
    """Reduce a large image, and bring its result to the new size.

    Args:
        image: (H, W, 3) uint8, blue first.
        result: Of the model on it.
        classes: Names.
    """
    zoom = min(LONGEST / max(image.shape[:2]), 1.0)
    if zoom == 1.0:
        return Shown(image, result, zoom, classes)
    height, width = (max(round(side * zoom), 1) for side in image.shape[:2])
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if isinstance(result, Detections):
        return Shown(image, dataclasses.replace(result, boxes=result.boxes * zoom), zoom, classes)
    maps = {}
    for field in dataclasses.fields(result):
        values = getattr(result, field.name)
        if values is not None:
            flat = values.astype(np.uint8) if values.dtype == bool else values
            resized = cv2.resize(flat, (width, height), interpolation=cv2.INTER_NEAREST)
            values = resized.astype(values.dtype)
        maps[field.name] = values
    return Shown(image, LabelMap(**maps), zoom, classes)


def _rounded(value: float) -> float:
    return round(float(value), 3)
