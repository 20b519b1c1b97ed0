"""Build the model of a config and load all its weights from a checkpoint."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import DefaultScope
from torch import nn

from negvision.compat.quiet import quiet_imports
from negvision.engine.checkpoints.channels import KEY, apply_channels
from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.engine.checkpoints.taking import load_weights, training_only
from negvision.engine.class_balance import without_auto_weights
from negvision.engine.config.data_files import leaf_datasets
from negvision.ood.threshold import OODThreshold, set_threshold


def build_model(cfg: Config) -> BaseModel:
    """The model of a checked config on the CPU, with random weights and no training-only parts."""
    # Weights of classes are for trainings.
    model_cfg, _ = without_auto_weights(cfg.model.copy())
    scope = cfg.get("default_scope", "mmengine")
    with (
        quiet_imports(),
        DefaultScope.overwrite_default_scope(scope),
        MMENGINE_MODELS.switch_scope_and_registry(scope) as models,
    ):
        kind = model_cfg.type
        for part in training_only(models.get(kind) if isinstance(kind, str) else kind):
            model_cfg[part] = None
        return apply_channels(MMENGINE_MODELS.build(model_cfg), cfg.get(KEY))


def load_model(cfg: Config, checkpoint: str | Path, trust: bool = False) -> tuple[BaseModel, dict]:
    """The model of ``cfg`` on the CPU in evaluation mode, and the ``meta`` of the checkpoint.

    Args:
        cfg: A checked config.
        checkpoint: A checkpoint, or a file of weights.
        trust: See :func:`negvision.engine.checkpoints.loading.load_checkpoint_file`.

    Raises:
        CheckpointError: The file lacks weights of the model, or they have another shape.
    """
    content = load_checkpoint_file(checkpoint, "cpu", trust)
    model = build_model(cfg)
    load_weights(model, content, str(checkpoint)).require_all()
    meta = content.get("meta") or {}
    if "ood" in meta:
        set_threshold(model, OODThreshold.of_checkpoint(content, str(checkpoint)))
    return model.eval(), meta


def named_classes(cfg: Config, meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names from the ``meta`` of a checkpoint or else the config; () if neither has any."""
    candidates = [(meta.get("dataset_meta") or {}).get("classes")]
    loader = cfg.get("test_dataloader") or {}
    candidates += [
        (dataset.get("metainfo") or {}).get("classes")
        for dataset in leaf_datasets(loader.get("dataset"))
    ]
    names = next((names for names in candidates if names), ())
    return (names,) if isinstance(names, str) else tuple(map(str, names))


def ood_quantiles(meta: Mapping[str, Any]) -> tuple[float, ...]:
    """Quantiles of the OOD scores of known samples in the ``meta`` of a checkpoint, or ()."""
    known = OODThreshold.of_checkpoint({"meta": meta}) if "ood" in meta else None
    return () if known is None else known.quantiles


def ood_of(model: nn.Module) -> tuple[str | None, float | None]:
    """Name and threshold of the OOD score of ``model``, each None if there is none."""
    heads: Iterable[Any] = (m for m in model.modules() if hasattr(m, "ood_threshold"))
    head: Any = next(iter(heads), None)
    return (None, None) if head is None else (head.score, head.ood_threshold)
