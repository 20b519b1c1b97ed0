"""Choose an OOD threshold and store it with the weights; calibrate scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn
from tqdm import tqdm

from negvision.data.score_calibration import ScoreCalibration
from negvision.engine.checkpoints.fitting import fit
from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.engine.config.model_parts import unwrapped
from negvision.errors import ConfigError, OODDataError
from negvision.files import atomic_write
from negvision.ood.shaping import fit_shaping, shapings_to_fit
from negvision.ood.threshold import (
    OODThreshold,
    quantiles_of,
    set_threshold,
    threshold_at_tpr,
)

# So many evenly spaced pixels of each image are used.
_PIXELS_PER_IMAGE = 4096


def calibrate(runner: Runner, split: str, tpr: float, min_score: float) -> OODThreshold:
    """Run the model of ``runner`` on its in-distribution images and choose the threshold.

    Feature shapings with statistics (ReAct, DICE) are fitted on the same images first.

    Args:
        runner: Built, with weights loaded.
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
    if shapings_to_fit(model):
        with torch.no_grad(), fit_shaping(model):
            for _ in _predictions(model, loader, "fitting"):
                pass
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
    """Let a detector predict calibrated scores, the highest first."""

    def calibrated(module: nn.Module, args: Any, outputs: Any) -> None:
        for sample in outputs if isinstance(outputs, list | tuple) else ():
            if "pred_instances" not in sample:
                continue
            found = sample.pred_instances
            scores = calibration.apply(found.scores.cpu().numpy(), found.labels.cpu().numpy())
            order = np.argsort(-scores, kind="stable")
            found.scores = torch.from_numpy(scores).to(found.scores)
            sample.pred_instances = found[torch.from_numpy(order).to(found.scores.device)]

    unwrapped(model).register_forward_hook(calibrated)


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

    Statistics of feature shapings are added to its weights.
    """
    checkpoint = load_checkpoint_file(source, "cpu", trust)
    weights = fit(unwrapped(model), checkpoint, str(source)).state
    own = model.state_dict()
    for name, module in model.named_modules():
        if module in shapings_to_fit(model):
            keys = [key for key in own if key.startswith(f"{name}.")]
            weights.update({key: own[key].cpu() for key in keys})
    meta = {**(checkpoint.get("meta") or {}), **added}
    # Files of other programs hold the weights elsewhere, and nothing to continue a training with.
    rest = checkpoint if "state_dict" in checkpoint else {}
    checkpoint = {**rest, "state_dict": weights, "meta": meta}
    with atomic_write(target) as partial:
        torch.save(checkpoint, partial)
    return Path(target)


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
