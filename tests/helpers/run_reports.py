"""Reports of runs made by hand, with every kind of part."""

import cv2
import numpy as np

from negvision.report.image_samples import embedded
from negvision.report.page_parts import (
    ConfigChange,
    Gallery,
    ImageSample,
    Matrix,
    MetricRow,
    MetricTable,
    Plots,
    RunReport,
    Section,
)
from negvision.report.plots import count_bars, precision_plot, roc_of_pairs, two_histograms
from negvision.report.train_log import TrainLog


def make_log(name: str, last: float = 0.5, evaluations: int = 2) -> TrainLog:
    steps = [10, 20, 30]
    scores = [0.1, last][-evaluations:]
    return TrainLog(
        name,
        [],
        {
            "loss": (steps, [3.0, 2.0, 1.0]),
            "lr": (steps, [0.1, 0.1, 0.01]),
            "grad": (steps, [1] * 3),
        },
        {
            "coco/bbox_mAP": ([10, 30][-evaluations:], scores),
            "coco/bbox_mAP/cat": ([10, 30], [0.1, 0.2]),
        },
    )


def picture(alt: str = "a picture"):
    rough = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return embedded(cv2.resize(rough, (320, 200)), alt)


def make_report(name: str = "run", ap: float = 0.5, missed: int = 3, **changes) -> RunReport:
    """A run whose AP is ``ap``, with ``missed`` of ten dogs that were not found."""
    recall = np.linspace(0, 1, 101)
    rng = np.random.default_rng(1)
    rows = [
        MetricRow("mAP", [ap], "AP of all"),
        MetricRow("mAP_l", [float("nan")], "AP of large objects"),
        MetricRow("eer", [0.25], "error", better="lower"),
    ]
    classes = [MetricRow("cat", [ap + 0.1, 1234]), MetricRow("dog", [ap - 0.1, 10])]
    counts = [[990, 10, 234], [0, 10 - missed, missed], [2, 1, 0]]
    plots = [
        precision_plot("all", {"IoU 0.5": 1 - recall, "mean IoU": 0.5 - recall / 2}, recall),
        roc_of_pairs(recall, recall**0.2, 500, "ROC"),
        two_histograms(rng.normal(size=90), rng.normal(size=90) + 2, ("a", "b"), "x", "Scores"),
        count_bars(np.array([0, 3, 3, 40]), "positives", "boxes", "Positives"),
    ]
    samples = [
        ImageSample("a.jpg", ["2 objects, 1 found"], [picture()], tag="loss 3.200"),
        ImageSample("b.jpg", [], [], "No such file", "loss 3.100"),
    ]
    report = {
        "name": name,
        "facts": {"checkpoint": f"{name}/iter_30.pth", "commit of negvision": "abc123"},
        "changes": [
            ConfigChange("Against its base", ["--- base", "+++ own", "-lr = 0.1", "+lr = 0.2"]),
            ConfigChange("Options"),
        ],
        "config": ["lr = 0.2", "model.type = 'ATSS'"],
        "log": make_log(name, ap),
        "log_problem": "",
        "sections": [
            Section(
                "figures",
                "Average precision",
                [
                    MetricTable("COCO metrics", "metric", ["value"], rows),
                    MetricTable("AP by class", "class", ["AP", "objects"], classes),
                    MetricTable("Hidden", "metric", ["value"], rows[:1], hidden=True),
                ],
            ),
            Section("curves-of-test", "Curves of the test", [Plots("Plots", plots, {}, "Four.")]),
            Section(
                "confusion",
                "Confused classes",
                [
                    Matrix(
                        "Boxes",
                        ["cat", "dog", "background"],
                        ["cat", "dog", "missed"],
                        counts,
                        "How it was counted.",
                        "boxes",
                    )
                ],
            ),
            Section("worst", "Worst images", [Gallery("Pictures", samples, "The worst.")]),
            Section("ood", "Out of distribution", missing="There is no OOD metric."),
        ],
    }
    return RunReport(**report | changes)
