"""What models of any task find of each class, at the false positives of another model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from negvision.bootstrap import RESAMPLES, bootstrap, interval, share
from negvision.compat.patches import captured_pycocotools
from negvision.data.formats.coco_file import find_classes
from negvision.data.score_threshold import FIXED, ScoreThreshold
from negvision.detection.metrics.box_matching import best_threshold
from negvision.detection.metrics.coco_annotations import load_coco_annotations
from negvision.detection.metrics.coco_evaluation import CocoDetections, number_images
from negvision.detection.metrics.error_kinds import error_kinds
from negvision.errors import ConfigError
from negvision.inference.torch_model import task_of
from negvision.report.run_evaluation import evaluator_of, runner_of_test

# Probabilities of pixels are counted in so many bins.
_BINS = 100
_VOID = 255


@dataclass(frozen=True)
class Outcomes:
    """What a model finds of each class on I images: N candidates with scores.

    A candidate is a box, an image with the probability of a class, or the pixels of an image that
    share one.

    Attributes:
        classes: K names.
        label, image: (N,), index of the class and of the image.
        score: (N,).
        count: (N,), boxes, images or pixels.
        hit: (N,) bool, whether it is an object of the class.
        shown: (N,) bool, whether the model gives it this class at its own threshold.
        objects: (I, K), what there is to find: objects, images or pixels.
        threshold: Of the scores of boxes, the best by F1; None for others.
    """

    classes: Sequence[str]
    label: np.ndarray
    image: np.ndarray
    score: np.ndarray
    count: np.ndarray
    hit: np.ndarray
    shown: np.ndarray
    objects: np.ndarray
    threshold: ScoreThreshold | None = None

    def false_positives(self, weights: np.ndarray) -> np.ndarray:
        """Of what is shown, by class, where images count ``weights`` (R, I) times: (R, K)."""
        wrong = np.where(self.shown & ~self.hit, self.count, 0)
        own = weights[:, self.image] * wrong
        places = range(len(self.classes))
        return np.stack([own[:, self.label == place].sum(1) for place in places], axis=1)

    def figures(self, weights: np.ndarray, limits: np.ndarray) -> np.ndarray:
        """Recall, precision and misses at the lowest scores with few enough false positives.

        Args:
            weights: (R, I), how often each image counts.
            limits: (R, K), false positives of each class.

        Returns:
            (R, 3, K); NaN where a class has no object, or nothing is found.
        """
        result = np.full((len(weights), 3, len(self.classes)), np.nan)
        for place, (rows, ends) in enumerate(self._ordered):
            own = weights[:, self.image[rows]] * self.count[rows]
            right = np.cumsum(own * self.hit[rows], axis=1)[:, ends]
            wrong = np.cumsum(own * ~self.hit[rows], axis=1)[:, ends]
            reached = (wrong <= limits[:, place, None] + 1e-9).sum(1)
            at = np.arange(len(weights)), reached
            found, false = (np.pad(one, ((0, 0), (1, 0)))[at] for one in (right, wrong))
            total = weights @ self.objects[:, place].astype(np.float64)
            result[:, 0, place] = share(found, total)
            result[:, 1, place] = share(found, found + false)
            result[:, 2, place] = total - found
        return result

    @cached_property
    def _ordered(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """By class the candidates by falling score, and the ends of equal scores."""
        found = []
        for place in range(len(self.classes)):
            rows = np.flatnonzero(self.label == place)
            rows = rows[np.argsort(-self.score[rows], kind="stable")]
            ends = np.flatnonzero(np.append(np.diff(self.score[rows]) != 0, True))[: len(rows)]
            found.append((rows, ends))
        return found


def figures_of(now: Outcomes, original: Outcomes, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Recall, precision and misses of each class, at the false positives of the original.

    Args:
        now, original: On the same images. Each class has as many false positives as the original
            has at its own threshold.
        resamples: For 95 % intervals.

    Returns:
        Class to ``recall``, ``precision`` and ``missed``, each a list of value, low and high end;
        and ``objects``. A value is None if it is undefined.
    """

    def figures(weights: np.ndarray) -> np.ndarray:
        limits = original.false_positives(weights)
        return now.figures(weights, limits).reshape(len(weights), -1)

    images, classes = now.objects.shape
    values = figures(np.ones((1, images)))[0]
    draws = bootstrap(figures, np.arange(images), resamples)
    highest = np.repeat([1.0, 1.0, np.inf], classes)
    rows = np.vstack([values, interval(values, draws, highest=highest)]).reshape(3, 3, classes)
    known = rows.astype(object)
    known[np.isnan(rows)] = None
    return {
        name: {
            "objects": int(now.objects[:, place].sum()),
            **{
                key: known[:, number, place].tolist()
                for number, key in enumerate(("recall", "precision", "missed"))
            },
        }
        for place, name in enumerate(now.classes)
    }


class _Collector(Hook):
    """Keeps what a test predicts, in the form of its task."""

    priority = "LOW"

    def __init__(self) -> None:
        self.classes: Sequence[str] = ()
        self.size = (0, 0)
        self.rows: list[Any] = []

    def before_test_epoch(self, runner) -> None:
        self.classes = (runner.test_evaluator.metrics[0].dataset_meta or {}).get("classes") or ()
        self.size = tuple(runner.test_dataloader.dataset[0]["inputs"].shape[-2:])

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=()) -> None:
        for sample in outputs or ():
            if "pred_instances" in sample:
                found = sample.pred_instances
                kept = {key: found[key].cpu().numpy() for key in ("bboxes", "scores", "labels")}
                self.rows.append({"image_id": sample.img_id, **kept})
            elif "seg_logits" in sample:
                self.rows.append(_pixels(sample))
            else:
                self.rows.append(
                    (int(sample.label), sample.logits.float().softmax(0).cpu().numpy())
                )


def _pixels(sample: Any) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (C, 2, 2, bins) by class, hit, shown and probability, and of each class (C,)."""
    logits, truth = sample.seg_logits.data.float().cpu(), sample.gt_sem_seg.data[0].cpu()
    count = len(logits)
    if count == 1:
        raise ConfigError(
            "the segmentor has one output channel for two classes; negvision compress needs one "
            "for each class (out_channels of its decode_head)"
        )
    valid = truth != _VOID
    truth, logits = truth[valid].long(), logits[:, valid]
    scores, winner = logits.softmax(0), logits.argmax(0)
    cells = (scores * _BINS).long().clamp(max=_BINS - 1)
    counts = [
        torch.bincount(
            ((truth == label) * 2 + (winner == label)) * _BINS + cells[label], minlength=4 * _BINS
        )
        for label in range(count)
    ]
    table = torch.stack(counts).view(count, 2, 2, _BINS).numpy()
    return table, table[:, 1].sum((1, 2))


def outcomes_of(cfg: Config, checkpoint: Path, folder: Path) -> tuple[Outcomes, tuple[int, int]]:
    """Test a checkpoint on the test set of ``cfg``; also height and width of its first image.

    Raises:
        ConfigError: The predictions are neither boxes, nor label maps, nor classes of images.
    """
    hook = _Collector()
    with captured_pycocotools():
        runner = runner_of_test(cfg.copy(), checkpoint, folder)
        runner.register_hook(hook)
        runner.test()
    if not hook.rows:
        raise ConfigError("the validation set has no images")
    task = task_of(runner.model)
    if task == "detection":
        return _of_boxes(hook, cfg, runner.score_threshold), hook.size
    return (_of_pixels if task == "segmentation" else _of_images)(hook), hook.size


def _of_boxes(hook: _Collector, cfg: Config, threshold: ScoreThreshold | None) -> Outcomes:
    ann_file = evaluator_of(cfg).get("ann_file")
    if ann_file is None:
        raise ConfigError("val_evaluator has no ann_file: a detector needs COCO annotations")
    truth = load_coco_annotations(ann_file)
    names, ids = find_classes(str(ann_file), truth, hook.classes)
    found = error_kinds(truth, CocoDetections.of_images(hook.rows, ids), ids)
    place = {category: index for index, category in enumerate(ids)}
    label = np.array([place[one] for one in found.category_ids], dtype=np.int64)[found.labels]
    numbers = number_images(truth["images"])
    objects = np.zeros((len(numbers), len(ids)), dtype=np.int64)
    for one in truth["annotations"]:
        if one["category_id"] in place and not one["iscrowd"]:
            objects[numbers[one["image_id"]], place[one["category_id"]]] += 1
    best = best_threshold(found.scores, found.hits, int(objects.sum()))
    shown = found.scores >= (threshold or best or FIXED).value
    image = found.images.astype(np.int64)
    columns = (label, image, found.scores, np.ones(len(label)), found.hits, shown)
    return Outcomes(names, *columns, objects, best)


def _of_images(hook: _Collector) -> Outcomes:
    known = [row for row in hook.rows if row[0] >= 0]  # others show no class of the model
    labels = np.array([label for label, _ in known])
    scores = np.array([scores for _, scores in known], np.float64).reshape(-1, len(hook.classes))
    count, classes = scores.shape
    every = np.arange(classes)
    objects = (labels[:, None] == every).astype(np.int64)
    shown = scores.argmax(1)[:, None] == every
    label, image = np.tile(every, count), np.repeat(np.arange(count), classes)
    columns = (label, image, scores.ravel(), np.ones(scores.size))
    return Outcomes(hook.classes, *columns, objects.ravel() > 0, shown.ravel(), objects)


def _of_pixels(hook: _Collector) -> Outcomes:
    tables = np.stack([table for table, _ in hook.rows])
    image, label, hit, shown, score = np.nonzero(tables)
    objects = np.stack([objects for _, objects in hook.rows])
    columns = (label, image, score / _BINS, tables[image, label, hit, shown, score])
    return Outcomes(hook.classes, *columns, hit > 0, shown > 0, objects)
