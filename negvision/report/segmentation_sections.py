"""What the page of a run tells of a segmentor: IoU of classes, confusions, worst images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from negvision.errors import DatasetError
from negvision.report.pictures import WrongSample, embedded, read_picture
from negvision.report.run_parts import FigureRow, FigureTable, Gallery, Matrix, Section
from negvision.segmentation.metrics.pixel_metric import label_confusion
from negvision.visualization import Canvas, class_color

_WORST, _SIDE, _VOID = 12, 320, 255


@dataclass(frozen=True)
class _Seen:
    """An image: its share of wrong pixels, and the reduced maps (h, w) of both labels."""

    path: str
    wrong: float
    truth: np.ndarray
    predicted: np.ndarray


class LabelMapCollector:
    """Counts what a segmentor predicts in a test, and keeps its worst images.

    Args:
        model: Not used; the maps come with the samples.
        classes: Names, by label.
        palette: (K, 3) colours of the classes, or empty.
    """

    def __init__(self, model: nn.Module, classes: Sequence[str], palette: Sequence = ()) -> None:
        self.classes = tuple(classes)
        self.colors = np.array(
            [
                palette[label] if label < len(palette) else class_color(label)
                for label in range(len(self.classes))
            ],
            dtype=np.uint8,
        )
        self.confusion = np.zeros((len(self.classes),) * 2, dtype=np.int64)
        self._worst: list[_Seen] = []
        self._count = 0

    def add(self, inputs: Sequence, samples: Sequence) -> None:
        """Count a batch of predicted data samples; those without labels are passed over."""
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
        """IoU, confusions and worst images."""
        titles = {
            "iou": "IoU of classes",
            "confusion": "Confused classes",
            "worst": "Images with the most wrong pixels",
        }
        if not self._count:
            missing = "The test pipeline loads no labels to compare with."
            return [Section(name, title, missing=missing) for name, title in titles.items()]
        matrix = Matrix(
            "Pixels of the test set",
            self.classes,
            self.classes,
            self.confusion.tolist(),
            "All pixels but void ones.",
            "pixels",
        )
        caption = (
            f"The worst of {self._count:,} images, each beside its labels and the prediction. "
            "Black is void."
        )
        samples = [self._drawn(seen) for seen in self._worst]
        gallery = Gallery("Image, labels, prediction", samples, caption)
        parts = (iou_parts(self.confusion, self.classes), [matrix], [gallery])
        return [
            Section(name, title, of_section)
            for (name, title), of_section in zip(titles.items(), parts, strict=True)
        ]

    def _drawn(self, seen: _Seen) -> WrongSample:
        share = f"{100 * seen.wrong:.1f} % of the pixels are wrong"
        maps = [
            embedded(self._colored(labels), f"{seen.path}: {what}")
            for labels, what in ((seen.truth, "labels"), (seen.predicted, "prediction"))
        ]
        try:
            picture = Canvas(read_picture(seen.path), longest=_SIDE).picture()
        except DatasetError as error:
            problem = str(error).removeprefix(f"{seen.path}: ")
            return WrongSample(seen.path, [], maps, problem, share)
        return WrongSample(seen.path, [], [embedded(picture, seen.path), *maps], tag=share)

    def _colored(self, labels: np.ndarray) -> np.ndarray:
        colors = np.zeros((_VOID + 1, 3), dtype=np.uint8)
        colors[: len(self.colors)] = self.colors
        return colors[np.minimum(labels, _VOID)]


def iou_parts(confusion: np.ndarray, classes: Sequence[str]) -> list[FigureTable]:
    """mIoU, and IoU, recall and precision of each class.

    Args:
        confusion: (K, K) pixels, rows are true classes.
        classes: K names.
    """
    hits, truth, found = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    union = truth + found - hits
    iou = [_share(*pair) for pair in zip(hits, union, strict=True)]
    there = [value for value in iou if value is not None]
    figures = [
        FigureRow("mIoU", [float(np.mean(there))], "mean over classes that occur or are predicted"),
        FigureRow("pixel accuracy", [_share(hits.sum(), truth.sum())], "share of right pixels"),
    ]
    rows = [
        FigureRow(
            name, [iou[k], _share(hits[k], truth[k]), _share(hits[k], found[k]), int(truth[k])]
        )
        for k, name in enumerate(classes)
    ]
    columns = ("IoU", "recall", "precision", "pixels")
    return [
        FigureTable("Segmentation", "figure", ["value"], figures),
        FigureTable("IoU by class", "class", columns, rows),
    ]


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _reduced(labels: np.ndarray) -> np.ndarray:
    """Every n-th pixel, so that the longer side has some 320."""
    step = max(-(-max(labels.shape) // _SIDE), 1)
    return labels[::step, ::step].copy()
