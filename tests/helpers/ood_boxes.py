"""Detections with ground truth, and on OOD images, as MMEngine hands them to a metric."""

import json

import numpy as np
import torch
from mmengine.structures import InstanceData

from helpers.coco_cases import random_case
from negvision.detection.metrics import OODBoxMetric

FEW = {"resamples": 3, "scores_file": None}


class Case:
    """Detections on ID images with ground truth, and on six OOD images with the same ids."""

    def __init__(self, tmp_path, seed: int = 3) -> None:
        self.ground_truth, detections = random_case(seed, most_detections=40)
        _, strange = random_case(seed + 100, images=6, most_detections=40)
        self.classes = tuple(c["name"] for c in self.ground_truth["categories"])
        self.ids = [c["id"] for c in self.ground_truth["categories"]]
        self.path = str(tmp_path / "id.json")
        (tmp_path / "id.json").write_text(json.dumps(self.ground_truth))
        self.rng = np.random.default_rng(seed)
        self.known = self._samples(self.ground_truth["images"], detections, "id", False)
        clashing = [{"id": image["id"]} for image in self.ground_truth["images"][:6]]
        renamed = {id_: clashing[k]["id"] for k, id_ in enumerate(_images_of(strange, 6))}
        strange = [{**d, "image_id": renamed[d["image_id"]]} for d in strange]
        self.unknown = self._samples(clashing, strange, "ood", True)
        self.detections = detections

    def _samples(self, images, detections, folder, is_ood):
        samples = []
        for image in images:
            here = [d for d in detections if d["image_id"] == image["id"]]
            boxes = torch.tensor([d["bbox"] for d in here], dtype=torch.float64).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            logits = torch.tensor(self.rng.normal(is_ood, 2, (len(here), 5)))
            temperature = torch.tensor(self.rng.uniform(0.1, 1, len(here)))
            found = InstanceData(
                bboxes=boxes,
                scores=torch.tensor([d["score"] for d in here], dtype=torch.float64),
                labels=torch.tensor([self.ids.index(d["category_id"]) for d in here]).long(),
                logits=logits,
                temperature=temperature,
                ood_score=-logits[:, :4].logsumexp(1),
            )
            found.set_metainfo({"ood_score_name": "abet"})
            sample = {
                "img_id": image["id"],
                "img_path": f"{folder}/{image['id']}.jpg",
                "pred_instances": found.to_dict(),
            }
            samples.append({**sample, "is_ood": True} if is_ood else sample)
        return samples

    def metric(self, **options):
        metric = OODBoxMetric(self.path, **{**FEW, **options})
        metric.dataset_meta = {"classes": self.classes}
        return metric

    def evaluated(self, samples=None, **options):
        metric = self.metric(**options)
        samples = self.known + self.unknown if samples is None else samples
        for start in range(0, len(samples), 4):
            metric.process({}, samples[start : start + 4])
        return metric.evaluate(len(samples))


def _images_of(detections, count):
    ids = sorted({d["image_id"] for d in detections})
    assert len(ids) <= count
    return ids
