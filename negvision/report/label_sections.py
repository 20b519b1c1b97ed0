"""Sections for segmentors and classifiers, which compare predicted labels with the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
from negvision.segmentation.metrics.pixel_metric import label_confusion
from negvision.visualization import Canvas, class_color

_WORST, _SIDE, _VOID = 12, 320, 255


class LabelCollector:
    """Counts what a classifier predicts in a test, for images of known classes.

    Args:
        classes: Names, by label.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.confusion = np.zeros((len(self.classes),) * 2, dtype=np.int64)

    def add(self, inputs: Sequence, samples: Sequence) -> None:
        """Count a batch of predicted data samples."""
        for sample in samples:
            label = int(sample.get("label", -1))
            if label >= 0 and not sample.get("is_ood", False):
                self.confusion[label, int(sample.pred_label)] += 1

    def sections(self) -> list[Section]:
        """Accuracy and confusions."""
        counts, total = self.confusion, int(self.confusion.sum())
        if not total:
            missing = "No image of the test set has a known class."
            return [Section("accuracy", "Accuracy", missing=missing)]
        hits = np.diag(counts)
        accuracy = MetricRow("accuracy", [_share(hits.sum(), total)], "share of correct images")
        shares = zip(_shares(hits, counts.sum(1)), _shares(hits, counts.sum(0)), strict=True)
        rows = [
            MetricRow(name, [*pair, int(counts[label].sum())])
            for label, (name, pair) in enumerate(zip(self.classes, shares, strict=True))
        ]
        tables = [
            MetricTable("Classification", "metric", ["value"], [accuracy]),
            MetricTable("Accuracy by class", "class", ("recall", "precision", "images"), rows),
        ]
        matrix = Matrix(
            "Images of known classes",
            self.classes,
            self.classes,
            counts.tolist(),
            "OOD images are excluded.",
            "images",
        )
        return [
            Section("accuracy", "Accuracy", tables),
            Section("confusion", "Confused classes", [matrix]),
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

    Args:
        classes: Names, by label.
        palette: (K, 3) colors of the classes, or empty.
    """

    def __init__(self, classes: Sequence[str], palette: Sequence = ()) -> None:
        self.classes = tuple(classes)
        self.colors = np.zeros((_VOID + 1, 3), dtype=np.uint8)
        for label in range(len(self.classes)):
            self.colors[label] = palette[label] if label < len(palette) else class_color(label)
        self.confusion = np.zeros((len(self.classes),) * 2, dtype=np.int64)
        self._worst: list[_Seen] = []
        self._count = 0

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
            matrix = Matrix(
                "Pixels of the test set",
                self.classes,
                self.classes,
                self.confusion.tolist(),
                "All pixels except void.",
                "pixels",
            )
            caption = (
                f"The worst of {self._count:,} images, each beside its labels and the prediction. "
                "Void is black."
            )
            samples = [self._drawn(seen) for seen in self._worst]
            gallery = Gallery("Image, labels, prediction", samples, caption)
            parts = [_iou_tables(self.confusion, self.classes), [matrix], [gallery]]
        return [
            Section("iou", "IoU of classes", parts[0], missing),
            Section("confusion", "Confused classes", parts[1], missing),
            Section("worst", "Images with the most wrong pixels", parts[2], missing),
        ]

    def _drawn(self, seen: _Seen) -> ImageSample:
        images = [
            embedded(self.colors[np.minimum(labels, _VOID)], f"{seen.path}: {what}")
            for labels, what in ((seen.truth, "labels"), (seen.predicted, "prediction"))
        ]
        image, problem = read_rgb(seen.path)
        if image is not None:
            images.insert(0, embedded(Canvas(image, longest=_SIDE).picture(), seen.path))
        tag = f"{100 * seen.wrong:.1f} % of the pixels are wrong"
        return ImageSample(seen.path, [], images, problem, tag)


def _iou_tables(confusion: np.ndarray, classes: Sequence[str]) -> list[MetricTable]:
    """mIoU, and IoU, recall, and precision of each class, from (K, K) counts of pixels."""
    hits, truth, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    iou = _shares(hits, truth + predicted - hits)
    known = [value for value in iou if value is not None]
    overall = [
        MetricRow("mIoU", [float(np.mean(known))], "mean over classes present or predicted"),
        MetricRow("pixel accuracy", [_share(hits.sum(), truth.sum())], "share of correct pixels"),
    ]
    values = zip(iou, _shares(hits, truth), _shares(hits, predicted), map(int, truth), strict=True)
    rows = [MetricRow(name, row) for name, row in zip(classes, values, strict=True)]
    columns = ("IoU", "recall", "precision", "pixels")
    return [
        MetricTable("Segmentation", "metric", ["value"], overall),
        MetricTable("IoU by class", "class", columns, rows),
    ]


def _shares(parts: np.ndarray, totals: np.ndarray) -> list[float | None]:
    return [_share(*pair) for pair in zip(parts, totals, strict=True)]


def _share(part: int, total: int) -> float | None:
    return float(part / total) if total else None


def _reduced(labels: np.ndarray) -> np.ndarray:
    """Every n-th pixel, so that the longer side has about ``_SIDE``."""
    step = max(-(-max(labels.shape) // _SIDE), 1)
    return labels[::step, ::step].copy()
