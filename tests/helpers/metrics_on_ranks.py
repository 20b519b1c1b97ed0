"""Run by the ranks of test_metrics_over_ranks.py: each metric on what a sampler deals to them."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.dataset import DefaultSampler

TESTS = Path(__file__).parents[1]
for folder in ("detection/metrics", "segmentation", "classification", "face/metrics"):
    sys.path.append(str(TESTS / folder))

import test_image_metric as images  # noqa: E402
import test_ood_box_metric as boxes  # noqa: E402
import test_pixel_metric as pixels  # noqa: E402

from helpers import face_cases  # noqa: E402
from negvision.classification.ood_image_metric import OODImageMetric  # noqa: E402
from negvision.detection.metrics import CocoMetric  # noqa: E402
from negvision.segmentation.metrics import OODPixelMetric  # noqa: E402


def cases(folder):
    """Name -> a function that builds the metric, and all samples of its data set."""
    folder.mkdir(exist_ok=True)
    box_case = boxes.Case(folder)
    meta, embeddings, labels = face_cases.random_case(21, identities=11, images=5)
    faces = face_cases.predictions(embeddings, labels, range(len(embeddings)))
    # Of each kind, and of numbers that neither two nor three divide.
    known, unknown = box_case.known[:7], box_case.unknown[:6]
    pictures = images.samples((5, 4, 4))
    maps = [pixels.prediction(seed) for seed in range(5)]

    def coco():
        metric = CocoMetric(box_case.path)
        metric.dataset_meta = {"classes": box_case.classes}
        return metric

    def of_classes(kind, classes, **options):
        metric = kind(**options)
        metric.dataset_meta = {"classes": classes}
        return metric

    return {
        "CocoMetric": (coco, box_case.known[:7]),
        "OODBoxMetric": (box_case.metric, known + unknown),
        "OODPixelMetric": (
            lambda: of_classes(OODPixelMetric, pixels.CLASSES, **pixels.QUIET),
            [sample.to_dict() for sample in maps],
        ),
        "OODImageMetric": (
            lambda: of_classes(OODImageMetric, ("a", "b", "c", "d"), **images.QUIET),
            [sample.to_dict() for sample in pictures],
        ),
        "VerificationMetric": (lambda: face_cases.build("VerificationMetric", meta), faces),
    }


def evaluated(folder):
    """Of each metric: its figures over all ranks, and how many samples this one was dealt."""
    found = {}
    for name, (build, samples) in cases(folder).items():
        dealt = list(DefaultSampler(range(len(samples)), shuffle=False, seed=0))
        metric = build()
        for start in range(0, len(dealt), 2):
            metric.process({}, [samples[index] for index in dealt[start : start + 2]])
        found[name] = {"values": metric.evaluate(len(samples)), "dealt": len(dealt)}
    return json.loads(json.dumps(found))


def run(rank, folder):
    # The same processes as a group of three, then two of them as a group of two.
    torch.set_num_threads(1)
    for ranks in (3, 2):
        if rank < ranks:
            store = f"file://{folder}/store_{ranks}"
            dist.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks)
            found = evaluated(Path(folder, f"cases_{rank}"))
            Path(folder, f"found_{ranks}_{rank}.json").write_text(json.dumps(found))
            dist.barrier()
            dist.destroy_process_group()
