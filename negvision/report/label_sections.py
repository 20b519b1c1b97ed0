"""Sections for segmentors and classifiers, which compare predicted labels with the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from negvision.data.reliability import Reliability, reliability_by_class, reliability_of_sums
from negvision.report.detection_sections import calibration_parts
from negvision.report.image_samples import embedded, read_rgb
from negvision.report.page_parts import (
    Gallery,
    ImageSample,
    Matrix,
    MetricRow,
    MetricTable,
    Part,
    Section,
)
from negvision.segmentation.metrics.iou_metric import score_sums
from negvision.segmentation.metrics.pixel_metric import label_confusion
from negvision.visualization import Canvas, class_color

_WORST, _SIDE, _VOID = 12, 320, 255


class LabelCollector:
    """Counts what a classifier predicts in a test, for images of known classes."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.confusion = np.zeros((len(self.classes),) * 2, dtype=np.int64)
        self._scored: list[tuple[int, float, bool]] = []

    def add(self, inputs: Sequence, samples: Sequence) -> None:
        """Count a batch of predicted data samples."""
        for sample in samples:
            label, predicted = int(sample.get("label", -1)), int(sample.pred_label)
            if label >= 0 and not sample.get("is_ood", False):
                self.confusion[label, predicted] += 1
                self._scored.append((predicted, float(sample.pred_score), predicted == label))

    def sections(self) -> list[Section]:
        """Accuracy and confusions."""
        counts, total = self.confusion, int(self.confusion.sum())
        if not total:
            missing = "No image of the test set has a known class."
            return [Section("accuracy", "Accuracy", missing=missing)]
        accuracy = _share(np.trace(counts), total)
        row = MetricRow("accuracy", [accuracy], "share of correct images")
        columns = ("recall", "precision", "images")
        rows = [MetricRow(name, values[1:]) for name, values in _by_class(counts, self.classes)]
        tables = [
            MetricTable("Classification", "metric", ["value"], [row]),
            MetricTable("Accuracy by class", "class", columns, rows),
        ]
        names, caption = self.classes, "OOD images are excluded."
        title = "Images of known classes"
        matrix = Matrix(title, names, names, counts.tolist(), caption, "images")
        labels, scores, hits = (np.array(column) for column in zip(*self._scored, strict=True))
        named = reliability_by_class(names, labels, scores, hits)
        caption = "By the class that is predicted, the most probable one."
        return [
            Section("accuracy", "Accuracy", tables),
            Section("confusion", "Confused classes", [matrix]),
            _calibration(named, "images", caption),
        ]


@dataclass(frozen=True)
class _Seen:
    """An image: its share of wrong pixels, and reduced maps (h, w) of both labels."""

    path: str
    wrong: float
    truth: np.ndarray
    predicted: np.ndarray


class LabelMapCollector:
    """Counts what a segmentor predicts in a test, and keeps its worst images.

    ``palette`` has the colors of the classes, (K, 3), or is empty; ``read`` reads images, as in
    :func:`negvision.report.image_samples.read_rgb`.
    """

    def __init__(
        self,
        classes: Sequence[str],
        palette: Sequence = (),
        read: Callable[[str], np.ndarray] | None = None,
    ) -> None:
        self.read = read
        self.classes = tuple(classes)
        self.colors = np.zeros((_VOID + 1, 3), dtype=np.uint8)
        for label in range(len(self.classes)):
            self.colors[label] = palette[label] if label < len(palette) else class_color(label)
        self.confusion = np.zeros((len(self.classes),) * 2, dtype=np.int64)
        self._worst: list[_Seen] = []
        self._count = 0
        self._sums: np.ndarray = np.zeros(0)

    def add(self, inputs: Sequence, samples: Sequence) -> None:
        """Count a batch of predicted data samples, except those without labels."""
        for sample in samples:
            path = str(sample.get("img_path", ""))
            predicted = sample.pred_sem_seg.data[0]
            counts = label_confusion(sample.to_dict(), predicted, len(self.classes), path)
            if counts is None or not counts.sum():
                continue
            self.confusion += counts
            self._count += 1
            own = score_sums(sample.to_dict(), _VOID, len(self.classes))
            if own is not None:
                self._sums = self._sums + own if self._sums.size else own
            wrong = 1 - float(np.diag(counts).sum() / counts.sum())
            truth = sample.gt_sem_seg.data[0].cpu().numpy()
            seen = _Seen(path, wrong, _reduced(truth), _reduced(predicted.cpu().numpy()))
            self._worst = sorted([*self._worst, seen], key=lambda one: -one.wrong)[:_WORST]

    def sections(self) -> list[Section]:
        """IoU, confusions, and worst images."""
        parts: list[Sequence[Part]] = [(), (), ()]
        missing = "The test pipeline loads no labels to compare with."
        if self._count:
            missing = ""
            names, title, caption = self.classes, "Pixels of the test set", "All except void."
            matrix = Matrix(title, names, names, self.confusion.tolist(), caption, "pixels")
            caption = (
                f"The worst of {self._count:,} images, each beside its labels and the prediction. "
                "Void is black."
            )
            samples = [self._drawn(seen) for seen in self._worst]
            gallery = Gallery("Image, labels, prediction", samples, caption)
            parts = [_iou_tables(self.confusion, self.classes), [matrix], [gallery]]
        without = missing or "The exported model predicts classes without scores."
        calibration = Section("calibration", "Calibration of the scores", missing=without)
        if self._sums.size:
            named = reliability_of_sums(self.classes, self._sums)
            caption = "By the class that is predicted, the most probable one of a pixel."
            calibration = _calibration(named, "pixels", caption)
        return [
            Section("iou", "IoU of classes", parts[0], missing),
            Section("confusion", "Confused classes", parts[1], missing),
            calibration,
            Section("worst", "Images with the most wrong pixels", parts[2], missing),
        ]

    def _drawn(self, seen: _Seen) -> ImageSample:
        images = [
            embedded(self.colors[np.minimum(labels, _VOID)], f"{seen.path}: {what}")
            for labels, what in ((seen.truth, "labels"), (seen.predicted, "prediction"))
        ]
        image, problem = read_rgb(seen.path, self.read)
        if image is not None:
            images.insert(0, embedded(Canvas(image, longest=_SIDE).image(), seen.path))
        tag = f"{100 * seen.wrong:.1f} % of the pixels are wrong"
        return ImageSample(seen.path, [], images, problem, tag)


def _calibration(named: Mapping[str, Reliability], what: str, caption: str) -> Section:
    parts = calibration_parts(named, what, caption)
    return Section("calibration", "Calibration of the scores", parts)


def _iou_tables(confusion: np.ndarray, classes: Sequence[str]) -> list[MetricTable]:
    """mIoU and pixel accuracy, and values of each class, from (K, K) counts of pixels."""
    by_class = _by_class(confusion, classes)
    mean = float(np.mean([values[0] for _, values in by_class if values[0] is not None]))
    accuracy = _share(np.trace(confusion), confusion.sum())
    overall = [
        MetricRow("mIoU", [mean], "mean over classes present or predicted"),
        MetricRow("pixel accuracy", [accuracy], "share of correct pixels"),
    ]
    columns = ("IoU", "recall", "precision", "pixels")
    rows = [MetricRow(name, values) for name, values in by_class]
    return [
        MetricTable("Segmentation", "metric", ["value"], overall),
        MetricTable("IoU by class", "class", columns, rows),
    ]


def _by_class(confusion: np.ndarray, classes: Sequence[str]) -> list[tuple[str, list]]:
    """IoU, recall, precision, and count of each class from (K, K) counts, rows for the truth."""
    hits, truth, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    return [
        (name, [_share(hit, t + p - hit), _share(hit, t), _share(hit, p), int(t)])
        for name, hit, t, p in zip(classes, hits, truth, predicted, strict=True)
    ]


def _share(part: int, total: int) -> float | None:
    return float(part / total) if total else None


def _reduced(labels: np.ndarray) -> np.ndarray:
    """Every n-th pixel, so that the longer side has about ``_SIDE``."""
    step = max(-(-max(labels.shape) // _SIDE), 1)
    return labels[::step, ::step].copy()
