"""What the page of a run tells of a classifier of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from negvision.report.run_parts import FigureRow, FigureTable, Matrix, Section


class LabelCollector:
    """Counts what a classifier predicts in a test, of images whose class is known.

    Args:
        model: Not used; the labels come with the samples.
        classes: Names, by label.
    """

    def __init__(self, model: nn.Module, classes: Sequence[str]) -> None:
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
        total = int(self.confusion.sum())
        if not total:
            missing = "No image of the test set has a known class."
            return [Section("accuracy", "Accuracy", missing=missing)]
        hits, truth, found = (
            np.diag(self.confusion),
            self.confusion.sum(1),
            self.confusion.sum(0),
        )
        accuracy = FigureRow("accuracy", [float(hits.sum() / total)], "share of right images")
        rows = [
            FigureRow(
                name,
                [
                    float(hits[k] / truth[k]) if truth[k] else None,
                    float(hits[k] / found[k]) if found[k] else None,
                    int(truth[k]),
                ],
            )
            for k, name in enumerate(self.classes)
        ]
        columns = ("recall", "precision", "images")
        tables = [
            FigureTable("Classification", "figure", ["value"], [accuracy]),
            FigureTable("Accuracy by class", "class", columns, rows),
        ]
        matrix = Matrix(
            "Images of known classes",
            self.classes,
            self.classes,
            self.confusion.tolist(),
            "OOD images are left out.",
            "images",
        )
        return [
            Section("accuracy", "Accuracy", tables),
            Section("confusion", "Confused classes", [matrix]),
        ]
