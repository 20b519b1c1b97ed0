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
from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.engine.config.data_files import leaf_datasets
from negvision.errors import CheckpointError
from negvision.ood.threshold import OODThreshold, set_threshold

# Parts that only training uses. The class centers of a face recognizer are most of its checkpoint.
_TRAINING_ONLY = {"FaceRecognizer": ("head",)}


def build_model(cfg: Config) -> BaseModel:
    """The model of a checked config on the CPU, with random weights and no training-only parts."""
    model_cfg = cfg.model.copy()
    for part in _training_only(cfg):
        model_cfg[part] = None
    scope = cfg.get("default_scope", "mmengine")
    with quiet_imports(), DefaultScope.overwrite_default_scope(scope):
        return MMENGINE_MODELS.build(model_cfg)


def _training_only(cfg: Config) -> tuple[str, ...]:
    return _TRAINING_ONLY.get(str(cfg.model.type).rpartition(".")[2], ())


def load_model(cfg: Config, checkpoint: str | Path, trust: bool = False) -> tuple[BaseModel, dict]:
    """The model of ``cfg`` on the CPU in evaluation mode, and the ``meta`` of the checkpoint.

    Args:
        cfg: A checked config.
        checkpoint: A checkpoint, or a file of weights.
        trust: See :func:`negvision.engine.checkpoints.loading.load_checkpoint_file`.

    Raises:
        CheckpointError: Weights of the model are missing or have another shape.
    """
    content = load_checkpoint_file(checkpoint, "cpu", trust)
    dropped = _training_only(cfg)
    state = {
        key: value
        for key, value in content.get("state_dict", content).items()
        if key.partition(".")[0] not in dropped
    }
    model = build_model(cfg)
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[1:2] or [str(error)]
        raise CheckpointError(
            f"checkpoint {str(checkpoint)!r} does not fit the model of the config: "
            f"{reason[0].strip()}. Use the config that it was trained with"
        ) from None
    if missing:
        raise CheckpointError(
            f"checkpoint {str(checkpoint)!r} lacks {len(missing)} of {len(model.state_dict())} "
            f"weights, such as {missing[0]!r}"
            + (f", and has others, such as {unexpected[0]!r}" if unexpected else "")
            + ". Use the config that it was trained with"
        )
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


def ood_of(model: nn.Module) -> tuple[str | None, float | None]:
    """Name and threshold of the OOD score of ``model``, each None if there is none."""
    heads: Iterable[Any] = (m for m in model.modules() if hasattr(m, "ood_threshold"))
    head: Any = next(iter(heads), None)
    return (None, None) if head is None else (head.score, head.ood_threshold)
