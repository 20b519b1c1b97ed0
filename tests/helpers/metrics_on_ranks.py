"""Metrics of all tasks on the samples that a sampler deals to each rank."""

import json

import torch.distributed as dist
from mmengine.dataset import DefaultSampler
from mmengine.dist import get_dist_info

from helpers import face_cases, ood_boxes, ood_images, ood_pixels
from helpers.metric_names import named
from negvision.classification.ood_image_metric import OODImageMetric
from negvision.detection.metrics import CocoMetric
from negvision.segmentation.metrics import OODPixelMetric


def cases(folder):
    """For each metric: a function that builds it, and all samples of its dataset."""
    folder.mkdir(exist_ok=True)
    box_case = ood_boxes.Case(folder)
    meta, embeddings, labels = face_cases.random_case(21, identities=11, images=5)
    faces = face_cases.predictions(embeddings, labels, range(len(embeddings)))
    # Counts that neither two nor three divide.
    known, unknown = box_case.known[:7], box_case.unknown[:6]
    images = ood_images.samples((5, 4, 4))
    maps = [ood_pixels.prediction(seed) for seed in range(5)]

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
            lambda: of_classes(OODPixelMetric, ood_pixels.CLASSES, **ood_pixels.QUIET),
            [sample.to_dict() for sample in maps],
        ),
        "OODImageMetric": (
            lambda: of_classes(OODImageMetric, ("a", "b", "c", "d"), **ood_images.QUIET),
            [sample.to_dict() for sample in images],
        ),
        "VerificationMetric": (lambda: face_cases.build("VerificationMetric", meta), faces),
    }


def evaluated(folder):
    """For each metric: the results over all ranks, and the number of samples on this one."""
    found = {}
    for name, (build, samples) in cases(folder).items():
        dealt = list(DefaultSampler(range(len(samples)), shuffle=False, seed=0))
        metric = build()
        for start in range(0, len(dealt), 2):
            metric.process({}, [samples[index] for index in dealt[start : start + 2]])
        results = named(metric, metric.evaluate(len(samples)))
        found[name] = {"results": results, "dealt": len(dealt)}
    return json.loads(json.dumps(found))


def save_evaluated(folder):
    rank, ranks = get_dist_info()
    found = evaluated(folder / f"cases_{ranks}_{rank}")
    (folder / f"found_{ranks}_{rank}.json").write_text(json.dumps(found))
    dist.barrier()
