"""Choose an OOD threshold and store it with the weights; calibrate scores."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import PixelData
from torch import Tensor, nn
from tqdm import tqdm

from negvision.data.score_calibration import ScoreCalibration
from negvision.engine.checkpoints.fitting import fit
from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.engine.config.model_parts import unwrapped
from negvision.engine.metrics import OODMetricBase
from negvision.errors import ConfigError, DatasetError, OODDataError, text_table
from negvision.files import atomic_write
from negvision.ood.feature_scores import score_name
from negvision.ood.records import OODRecords, evaluate_records
from negvision.ood.scores import FEATURE_SCORE_NAMES, SCORE_NAMES
from negvision.ood.statistics import fit_statistics, parts_to_fit
from negvision.ood.threshold import (
    OODThreshold,
    quantiles_of,
    set_threshold,
    threshold_at_tpr,
)

# So many evenly spaced pixels of each image are used.
_PIXELS_PER_IMAGE = 4096
# What has the option `score` in a config.
_SCORED = {
    "AbeTClassifier", "OODClassifier", "AbeTEncoderDecoder", "OODEncoderDecoder", "AbeTBBoxHead",
    "OODBBoxHead", "AbeTATSSHead",
}  # fmt: skip


def set_score(model_cfg: Any, score: str | dict) -> int:
    """Set the OOD score in the config of a model; the number of its parts that have one.

    Raises:
        ValueError: No such score.

    Example:
        >>> config = dict(type="negvision.AbeTClassifier", num_classes=10)
        >>> set_score(config, "knn"), config["score"]
        (1, 'knn')
    """
    score_name(score)
    if isinstance(model_cfg, list | tuple):
        return sum(set_score(part, score) for part in model_cfg)
    if not isinstance(model_cfg, dict):
        return 0
    found = sum(set_score(part, score) for part in model_cfg.values() if part is not score)
    if str(model_cfg.get("type")).rpartition(".")[2] in _SCORED:
        model_cfg["score"] = score
        found += 1
    return found


def fit_on_training_set(runner: Runner, split: str, images: int) -> None:
    """Fit the parts of the model that need statistics on images of the training set.

    They are read as those of ``split`` are, without augmentation.

    Args:
        runner: Built, with weights loaded.
        split: "val" or "test".
        images: At most, in random order with a fixed seed.

    Raises:
        ConfigError: The config has no training set.
        OODDataError: The model found nothing in its images.
    """
    model = unwrapped(runner.model)
    if parts_to_fit(model):
        with fit_statistics(model):
            _see_training_set(runner, model, split, images)


def choose_score(runner: Runner, split: str, images: int) -> tuple[str, str]:
    """Compare all OOD scores on the images of a split and let the model compute the best.

    Args:
        runner: Built with a score of features, weights loaded.
        split: "val" or "test", with in-distribution and OOD images.
        images: As in :func:`fit_on_training_set`.

    Returns:
        The name of the score with the highest AUROC, and the table, with intervals as the metric
        of the split computes them.

    Raises:
        ConfigError: The evaluator of the split is no OOD metric.
        OODDataError: There are no OOD images.
    """
    model = unwrapped(runner.model)
    evaluator = runner.build_evaluator(runner.cfg[f"{split}_evaluator"])
    metric = next((m for m in evaluator.metrics if isinstance(m, OODMetricBase)), None)
    if metric is None:
        raise ConfigError(
            f"{split}_evaluator: --score auto compares scores on OOD images, so it needs "
            "negvision.OODBoxMetric, OODPixelMetric or OODImageMetric, and OOD images in the "
            "data set. Without any, name a score"
        )
    loader = runner.build_dataloader(runner.cfg[f"{split}_dataloader"])
    metric.dataset_meta = getattr(loader.dataset, "metainfo", None)
    metric.leave_out_extras()
    layers: list[Any] = [m for m in model.modules() if hasattr(m, "feature_score")]
    heads: list[Any] = [m for m in model.modules() if hasattr(m, "ood_threshold")]
    first = [layer.feature_score for layer in layers]
    for part in first:
        part.fitting = True
    _see_training_set(runner, model, split, images)
    samples = [part.sample() for part in first]

    def use(name: str) -> None:
        for head in heads:
            head.score = name
        for layer, part, sample in zip(layers, first, samples, strict=True):
            layer.feature_score = part.replaced(name, *sample)

    def records(scores: tuple[str, ...]) -> OODRecords:
        metric.scores = scores
        metric.results.clear()
        with torch.no_grad():
            for batch in tqdm(loader, desc=heads[0].score, leave=False, disable=None):
                found = model.test_step(batch)
                metric.process(batch, [sample.to_dict() for sample in found])
        return metric.sampled_records(metric.results)

    use("max_logit")
    every = records(SCORE_NAMES)
    scores, left_out = dict(every.scores), []
    for name in FEATURE_SCORE_NAMES:
        try:
            use(name)
        except OODDataError as error:
            left_out.append(f"{name}: {error}")
            continue
        found = records(()).scores
        if not all(np.isfinite(values).all() for values in found.values()):
            left_out.append(f"{name}: not finite for some samples")
            continue
        scores |= found
    by_score = evaluate_records(replace(every, scores=scores, strata={}), metric.resamples).by_score
    ranked = sorted(by_score, key=lambda name: -by_score[name].auroc)
    use(ranked[0])
    rows = []
    for name in ranked:
        values = by_score[name]
        low, high = values.intervals["auroc"]
        numbers = (values.auroc, low, high, values.fpr95_id)
        rows.append([name, *(f"{100 * number:.1f}" for number in numbers)])
    table = text_table(["score", "AUROC", "from", "to", "FPR95 id+"], rows)
    counts = f"{int(every.is_ood.sum()):,} OOD and {int((~every.is_ood).sum()):,} ID {every.task}"
    lines = [f"{counts} of {split}; percent, 95 % intervals over images", table, *left_out]
    return ranked[0], "\n".join(lines)


def calibrate(runner: Runner, split: str, tpr: float, min_score: float) -> OODThreshold:
    """Run the model of ``runner`` on its in-distribution images and choose the threshold.

    Args:
        runner: Built, with weights loaded and statistics fitted.
        split: "val" or "test"; OOD images of its data loader are ignored.
        tpr: Share of ID samples to keep, in (0, 1].
        min_score: Boxes with a lower class score are ignored.

    Raises:
        ConfigError: The model has no OOD score.
        OODDataError: There are no in-distribution samples, or fewer than ``1 / (1 - tpr)``.
    """
    model = unwrapped(runner.model)
    score = score_of(model)
    loader = runner.build_dataloader(runner.cfg[f"{split}_dataloader"])
    model.eval()
    with torch.no_grad():
        kept = [
            _id_scores(sample, min_score)
            for sample in _predictions(model, loader, "calibrating")
            if not sample.metainfo.get("is_ood", False)
        ]
    scores = torch.cat(kept) if kept else torch.zeros(0)
    # With fewer samples the threshold would be the largest score.
    needed = 1 if tpr == 1 else math.ceil(round(1 / (1 - tpr), 6))
    if 0 < len(scores) < needed:
        raise OODDataError(
            f"{len(scores):,} in-distribution samples are too few for a threshold that keeps "
            f"{tpr:.4g} of them: at least {needed:,} are needed. Use more images or a lower --tpr"
            + f", or lower --min-score {min_score:g}"
            * (min_score > 0)
        )
    value = threshold_at_tpr(scores, tpr)
    return OODThreshold(value, score, tpr, len(scores), min_score, quantiles_of(scores))


def calibrate_predictions(model: nn.Module, calibration: ScoreCalibration) -> None:
    """Let a model predict calibrated scores; of a detector, the highest first.

    Logits, and the OOD scores that follow from them, stay. A segmentor adds ``pred_scores`` (1, H,
    W) to its samples, the probability of the class of each pixel.
    """
    temperatures = torch.tensor(calibration.temperatures)

    def calibrated(module: nn.Module, args: Any, outputs: Any) -> None:
        for sample in outputs if isinstance(outputs, list | tuple) else ():
            if "pred_label" in sample:
                sample.pred_score = class_scores(sample.logits[None], temperatures)[0]
            elif "seg_logits" in sample:
                scores = class_scores(sample.seg_logits.data[None], temperatures)
                sample.pred_scores = PixelData(data=scores)
            if "pred_instances" not in sample:
                continue
            found = sample.pred_instances
            scores = calibration.apply(found.scores.cpu().numpy(), found.labels.cpu().numpy())
            order = np.argsort(-scores, kind="stable")
            found.scores = torch.from_numpy(scores).to(found.scores)
            sample.pred_instances = found[torch.from_numpy(order).to(found.scores.device)]

    unwrapped(model).register_forward_hook(calibrated)


class LabeledScoresHook(Hook):
    """Keeps logits and labels that a test of a classifier, or a segmentor, compares.

    Of a segmentor so many evenly spaced pixels of each image that are not void.

    Args:
        split: Named in errors.

    Attributes:
        classes: Names, by label.

    Raises:
        ConfigError: The model predicts something else, or has one output.
    """

    # After the metrics, which need the outputs as the model left them.
    priority = "LOW"

    def __init__(self, split: str) -> None:
        self.split = split
        self.classes: Sequence[str] = ()
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    def before_test_epoch(self, runner) -> None:
        meta = runner.test_evaluator.metrics[0].dataset_meta or {}
        self.classes = meta.get("classes", ())

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=()) -> None:
        for sample in outputs or ():
            if "seg_logits" in sample and len(sample.seg_logits.data) > 1:
                logits = sample.seg_logits.data.flatten(1).T
                labels = sample.gt_sem_seg.data.flatten().to(logits.device)
            elif "pred_label" in sample:
                logits, labels = sample.logits[None], sample.label.reshape(1)
            else:
                raise ConfigError(
                    f"the {self.split}_evaluator has no ann_file, and the model predicts "
                    f"{', '.join(sorted(sample.keys()))}: negvision calibrate needs a detector "
                    "with COCO annotations, a classifier, or a segmentor with a softmax"
                )
            known = torch.nonzero((labels >= 0) & (labels < logits.shape[1]))[:, 0]
            known = known[:: max(len(known) // _PIXELS_PER_IMAGE, 1)]
            self._logits.append(logits[known].float().cpu())
            self._labels.append(labels[known].cpu())

    def collected(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, K) and labels (N,).

        Raises:
            DatasetError: There are none.
        """
        if not self._logits:
            raise DatasetError(f"the {self.split} set has no images to calibrate on")
        return torch.cat(self._logits).numpy(), torch.cat(self._labels).numpy()


def class_scores(logits: Tensor, temperatures: Tensor | None = None) -> Tensor:
    """The probability of the most probable class.

    Args:
        logits: (B, K, ...).
        temperatures: (K,), by which the logits are divided where a class is the most probable.

    Returns:
        (B, ...).

    Example:
        >>> class_scores(torch.tensor([[4.0, 0.0]]).log_softmax(1) , torch.tensor([2.0, 1.0]))
        tensor([0.8808])
    """
    highest, labels = logits.float().max(1, keepdim=True)
    below = logits.float() - highest
    if temperatures is not None:
        below = below / temperatures.to(logits.device)[labels]
    return 1 / below.exp().sum(1)


def score_of(model: nn.Module) -> str:
    """The name of the OOD score of ``model``.

    Raises:
        ConfigError: It has none.
    """
    names = {str(m.score) for m in model.modules() if hasattr(m, "ood_threshold")}
    if not names:
        raise ConfigError(
            f"{type(model).__name__} has no OOD score. Set one in the config, e.g. "
            "bbox_head.type='negvision.AbeTBBoxHead', model.type='negvision.AbeTEncoderDecoder' or "
            "model.type='negvision.AbeTClassifier'"
        )
    return sorted(names)[0]


def override_threshold(model: nn.Module, value: float) -> None:
    """Set the OOD threshold of ``model``, whatever its checkpoint says.

    Raises:
        ConfigError: The model has no OOD score.
    """
    set_threshold(model, OODThreshold(value, score_of(model), math.nan, 0))


def require_threshold(model: nn.Module, checkpoint: str) -> None:
    """Raise unless the weights from ``checkpoint`` came with a threshold.

    Raises:
        ConfigError: The model has no OOD score.
        CheckpointError: The checkpoint has no threshold.
    """
    score_of(model)
    if all(getattr(module, "ood_threshold", None) is None for module in model.modules()):
        OODThreshold.of_checkpoint({}, checkpoint)


def save_with_meta(
    source: str | Path,
    target: str | Path,
    added: Mapping[str, Any],
    model: nn.Module,
    trust: bool,
) -> Path:
    """Write the checkpoint ``source`` with ``added`` in its metadata as ``target``.

    Statistics of feature shapings and scores are added to its weights.
    """
    checkpoint = load_checkpoint_file(source, "cpu", trust)
    weights = fit(unwrapped(model), checkpoint, str(source)).state
    own = model.state_dict()
    for name, module in model.named_modules():
        if module in parts_to_fit(model):
            keys = [key for key in own if key.startswith(f"{name}.")]
            weights.update({key: own[key].cpu() for key in keys})
    meta = {**(checkpoint.get("meta") or {}), **added}
    # Files of other programs hold the weights elsewhere, and nothing to continue a training with.
    rest = checkpoint if "state_dict" in checkpoint else {}
    checkpoint = {**rest, "state_dict": weights, "meta": meta}
    with atomic_write(target) as partial:
        torch.save(checkpoint, partial)
    return Path(target)


def _see_training_set(runner: Runner, model: nn.Module, split: str, images: int) -> None:
    if runner.cfg.get("train_dataloader") is None:
        raise ConfigError(
            "the config has no train_dataloader, from whose images this score takes its statistics"
        )
    loader = copy.deepcopy(runner.cfg[f"{split}_dataloader"])
    pipeline = next(_pipelines(loader))["pipeline"]
    loader["dataset"] = copy.deepcopy(runner.cfg.train_dataloader.dataset)
    for part in _pipelines(loader["dataset"]):
        part["pipeline"] = pipeline
    loader["sampler"] = {"type": "DefaultSampler", "shuffle": True, "seed": 0}
    loader.pop("batch_sampler", None)
    model.eval()
    with torch.no_grad():
        for _ in islice(
            _predictions(model, runner.build_dataloader(loader), "training set"), images
        ):
            pass


def _pipelines(part: Any) -> Iterator[Any]:
    """The dicts in a config of a data set that have a pipeline, the outermost first."""
    if isinstance(part, dict):
        if part.get("pipeline"):
            yield part
        parts = list(part.values())
    else:
        parts = list(part) if isinstance(part, list | tuple) else []
    for inner in parts:
        yield from _pipelines(inner)


def _predictions(model: BaseModel, loader, label: str) -> Iterator:
    for batch in tqdm(loader, desc=label, leave=False, disable=None):
        yield from model.test_step(batch)


def _id_scores(sample, min_score: float) -> Tensor:
    """Scores (n,) of an in-distribution image: of its boxes, some of its pixels, or the image."""
    if "pred_instances" in sample:
        found = sample.pred_instances
        if not len(found):
            # Without proposals in the batch mmdet calls no head, so there are no scores.
            return torch.zeros(0)
        return found.ood_score[found.scores >= min_score].float().cpu()
    if "ood_map" in sample:
        scores = sample.ood_map.data.flatten()
        if "gt_ood_map" in sample:
            # Without unknown objects and void.
            scores = scores[sample.gt_ood_map.data.flatten().to(scores.device) == 0]
        return scores[:: max(len(scores) // _PIXELS_PER_IMAGE, 1)].float().cpu()
    return sample.ood_score.reshape(1).float().cpu()
