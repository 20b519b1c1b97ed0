"""The score threshold with the best F1 on the validation set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.structures import BaseDataElement

from negvision.detection.metrics.box_matching import ON_CROWD, best_threshold, match_boxes
from negvision.registry import HOOKS


class _Truth(NamedTuple):
    """The M objects of an image."""

    boxes: torch.Tensor  # (M, 4) float64, x1 y1 x2 y2 in pixels of the original image
    labels: np.ndarray  # (M,)
    crowd: np.ndarray  # (M,) bool, those that no box can take


class _Outcome(NamedTuple):
    """The N boxes of an image that count, and how many objects there are."""

    scores: np.ndarray  # (N,) float64
    hits: np.ndarray  # (N,) bool
    objects: int


@HOOKS.register_module()
class ScoreThresholdHook(Hook):
    """Find the score from which the boxes of a detector have the best F1 on the validation set.

    F1 is 2 TP / (2 TP + FP + FN) over the boxes of all classes and images. In each image, boxes
    take objects of their class in descending order of score, at an IoU of at least 0.5; boxes on a
    crowd, or on an object that is to be ignored, do not count. OOD images are left out.

    After each validation the runner's ``score_threshold`` is the result, a
    :class:`negvision.data.score_threshold.ScoreThreshold` or None. Checkpoints store it, and
    pictures, reports and pages show boxes from there on. It works with any metric, since the
    objects come from the data set.

    The runner adds it to every config; ``default_hooks = dict(score_threshold=None)`` removes it.
    """

    def __init__(self) -> None:
        self._truth: dict[str, _Truth] | None = None
        self._seen: dict[str, _Outcome] = {}

    def before_val_epoch(self, runner) -> None:
        self._seen = {}

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        for sample in outputs or ():
            if not isinstance(sample, BaseDataElement) or "pred_instances" not in sample:
                return
            if self._truth is None:
                self._truth = _truth_of(runner.val_dataloader.dataset)
            path = sample.get("img_path")
            found = sample.pred_instances
            if path in self._truth and all(key in found for key in ("bboxes", "scores", "labels")):
                self._seen[path] = _outcome(found, self._truth[path])

    def after_val_epoch(self, runner, metrics=None) -> None:
        # Each image was predicted by one rank, or by two if the sampler fills the last batch.
        seen = {
            path: found for rank in all_gather_object(self._seen) for path, found in rank.items()
        }
        self._seen = {}
        if not seen:
            return
        scores, hits = (np.concatenate([one[column] for one in seen.values()]) for column in (0, 1))
        found = best_threshold(scores, hits, sum(one.objects for one in seen.values()))
        # Scores of other models than mmdet's may not be probabilities.
        runner.score_threshold = found if found and 0 <= found.value <= 1 else None
        if runner.score_threshold:
            runner.logger.info(f"score threshold {runner.score_threshold}")


def _truth_of(dataset) -> dict[str, _Truth]:
    """The objects of each known image, by its path."""
    truth: dict[str, _Truth] = {}
    if not hasattr(dataset, "get_data_info"):
        return truth
    for info in map(dataset.get_data_info, range(len(dataset))):
        if info.get("is_ood") or "img_path" not in info:
            continue
        items = info.get("instances", [])
        if not all("bbox" in item and "bbox_label" in item for item in items):
            continue  # of another task, such as phrases
        boxes = torch.tensor([item["bbox"] for item in items], dtype=torch.float64)
        labels = np.array([item["bbox_label"] for item in items], dtype=np.int64)
        crowd = np.array([bool(item.get("ignore_flag")) for item in items], dtype=bool)
        truth[info["img_path"]] = _Truth(boxes.reshape(-1, 4), labels, crowd)
    return truth


def _outcome(found, truth: _Truth) -> _Outcome:
    boxes = getattr(found.bboxes, "tensor", found.bboxes).cpu().double()
    scores = found.scores.cpu().double()
    # A diverged model predicts NaN.
    order = torch.argsort(scores, descending=True, stable=True)
    order = order[(boxes.isfinite().all(1) & scores.isfinite())[order]]
    same = found.labels.cpu().numpy()[order.numpy()][:, None] == truth.labels
    taken = match_boxes(boxes[order], truth.boxes, truth.crowd, same=same)
    counted = taken != ON_CROWD
    objects = int((~truth.crowd).sum())
    return _Outcome(scores[order].numpy()[counted], (taken >= 0)[counted], objects)
