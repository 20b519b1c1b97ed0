"""Published weights in the safetensors format, which holds tensors and text but no code."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from negvision.engine.checkpoints.fitting import last_step_weights, weights_in
from negvision.errors import CheckpointError
from negvision.files import atomic_write

SUFFIX = ".safetensors"
_KEY = "negvision"
# The fields of a checkpoint's meta that are published.
_KEPT = (
    "cfg", "dataset_meta", "ood", "score_threshold", "face_threshold", "calibration", "epoch",
    "iter", "versions", "git", "experiment_name", "time",
)  # fmt: skip


def read_weights(path: Path, map_location: Any = None) -> dict[str, Any]:
    """Read a ``.safetensors`` file like a checkpoint of MMEngine.

    Args:
        path: A local file, written by :func:`publish` or another program.
        map_location: A device or its name; anything else leaves the tensors on the CPU.

    Returns:
        ``state_dict`` and ``meta``, which is empty if negvision did not write the file.

    Raises:
        CheckpointError: The file is damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            texts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        meta = json.loads(texts.get(_KEY, "{}"))
        if not isinstance(meta, dict):
            raise ValueError(f"its metadata are a {type(meta).__name__}")
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"checkpoint {str(path)!r} cannot be read ({error}); it is damaged, incomplete or not "
            "a safetensors file. Take another one"
        ) from None
    if isinstance(map_location, str | torch.device):
        state = {name: tensor.to(map_location) for name, tensor in state.items()}
    return {"state_dict": state, "meta": meta}


def publish(checkpoint: Mapping[str, Any], target: Path, source: str, ema: bool = True) -> Path:
    """Write the weights of a checkpoint and their description, for others to use.

    Args:
        checkpoint: As :func:`negvision.engine.checkpoints.loading.load_checkpoint_file` reads it.
        target: ``NAME.safetensors``; the first eight digits of the file's SHA-256 are added to
            NAME.
        source: Path of the checkpoint, for error messages.
        ema: Publish averaged weights, if there are any, instead of those of the last step.

    Returns:
        The path of the file.

    Raises:
        CheckpointError: There are no weights, or not the requested ones.
        UserError: The file cannot be written.
    """
    weights = _weights(checkpoint, source, ema)
    meta = checkpoint.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    kept = {key: _plain(meta[key]) for key in _KEPT if key in meta}
    # Copies, since safetensors refuses tensors that share memory.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    data = safetensors.torch.save(tensors, {"format": "pt", _KEY: json.dumps(kept)})
    digest = hashlib.sha256(data).hexdigest()[:8]
    final = target.with_name(f"{target.name.removesuffix(SUFFIX)}-{digest}{SUFFIX}")
    with atomic_write(final) as partial:
        partial.write_bytes(data)
    return final


def _weights(checkpoint: Mapping[str, Any], source: str, ema: bool) -> dict[str, Tensor]:
    if ema:
        return weights_in(checkpoint, source)
    last = last_step_weights(checkpoint)
    if last is None:
        raise CheckpointError(
            f"checkpoint {source!r} has no averaged weights (EMA): remove --without-ema"
        )
    return last


def _plain(value: Any) -> Any:
    """Only the strings, numbers, lists and dicts of ``value``, without arrays and other objects.

    Example:
        >>> _plain({"classes": ("a", "b"), "pairs": torch.zeros(2)})
        {'classes': ['a', 'b']}
    """
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if _is_plain(v)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value if _is_plain(item)]
    return value


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | list | tuple | Mapping)
