"""Build the model of a config and give it the weights of a checkpoint, all of them."""

from pathlib import Path

from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import DefaultScope

from negvision.compat.quiet import quiet_imports
from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.errors import CheckpointError
from negvision.ood.threshold import OODThreshold, set_threshold

# What training alone uses; for faces the centres of all people are most of a checkpoint.
_LEFT_OUT = {"FaceRecognizer": ("head",)}


def build_model(cfg: Config) -> BaseModel:
    """The model of a checked ``cfg`` on the CPU with random weights, without what trains it."""
    model_cfg = cfg.model.copy()
    for part in _left_out(cfg):
        model_cfg[part] = None
    scope = cfg.get("default_scope", "mmengine")
    with quiet_imports(), DefaultScope.overwrite_default_scope(scope):
        return MMENGINE_MODELS.build(model_cfg)


def _left_out(cfg: Config) -> tuple[str, ...]:
    return _LEFT_OUT.get(str(cfg.model.type).rpartition(".")[2], ())


def load_model(cfg: Config, checkpoint: str | Path, trust: bool = False) -> tuple[BaseModel, dict]:
    """The model of ``cfg`` in evaluation on the CPU, and ``meta`` of the checkpoint.

    Args:
        cfg: A checked config.
        checkpoint: File of a checkpoint or of weights.
        trust: See :func:`negvision.engine.checkpoints.loading.load_checkpoint_file`.

    Raises:
        CheckpointError: It has no weights for a part of the model, or ones of another shape.
    """
    content = load_checkpoint_file(checkpoint, "cpu", trust)
    state = content.get("state_dict", content)
    dropped = _left_out(cfg)
    state = {key: value for key, value in state.items() if key.partition(".")[0] not in dropped}
    model = build_model(cfg)
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[1:2] or [str(error)]
        raise CheckpointError(
            f"checkpoint {str(checkpoint)!r} does not fit the model of the config: "
            f"{reason[0].strip()}. Give the config that it was trained with"
        ) from None
    if missing:
        raise CheckpointError(
            f"checkpoint {str(checkpoint)!r} lacks {len(missing)} of {len(model.state_dict())} "
            f"weights, such as {missing[0]!r}"
            + (f", and has others, such as {unexpected[0]!r}" if unexpected else "")
            + ". Give the config that it was trained with"
        )
    meta = content.get("meta") or {}
    if "ood" in meta:
        set_threshold(model, OODThreshold.of_checkpoint(content, str(checkpoint)))
    return model.eval(), meta
