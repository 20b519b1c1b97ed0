"""A config and a checkpoint as a model that predicts, in PyTorch."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from negvision.engine.checkpoints.loading import install_loaders
from negvision.engine.config.check import check_config
from negvision.engine.config.data_files import leaf_datasets
from negvision.engine.config.reading import load_config
from negvision.engine.file_handlers import install_file_handlers
from negvision.engine.quiet import silence_idle_warnings
from negvision.errors import ConfigError, UserError
from negvision.inference.torch_model import TorchModel
from negvision.inference.weights import load_model


@dataclass(frozen=True)
class Opened:
    """A model and what is known of it.

    Attributes:
        model: On its device.
        classes: Names; () where neither checkpoint nor config tells.
        ood_score: Name of the OOD score, or None for a model without one.
        ood_threshold: That of the checkpoint, or None.
    """

    model: TorchModel
    classes: tuple[str, ...]
    ood_score: str | None
    ood_threshold: float | None


def open_config(
    config: str, checkpoint: str | os.PathLike, device: str = "cpu", trust: bool = False
) -> Opened:
    """Build the model of a config with the weights of a checkpoint.

    Args:
        config: A file.
        checkpoint: A file.
        device: As torch names it.
        trust: Unpickle whatever the checkpoint holds.

    Raises:
        ConfigError: The config cannot be read, or its model cannot be used.
        CheckpointError: The checkpoint cannot be used.
        UserError: There is no such device.
    """
    silence_idle_warnings()
    install_loaders(trust)
    install_file_handlers(trust)
    place = torch_device(device)
    cfg = load_config(config)
    if cfg.get("model") is None:
        raise ConfigError(f"config {config!r} has no model")
    check_config(cfg)
    module, meta = load_model(cfg, checkpoint, trust)
    model = TorchModel(cfg, module.to(place))
    classes = () if model.task == "face" else named_classes(cfg, meta)
    return Opened(model, classes, *ood_of(module))


def torch_device(name: str) -> torch.device:
    """The device of a name; UserError where there is none."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name!r}: give cpu, cuda or cuda:NUMBER") from None
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise UserError(
            f"device {name!r}: torch finds {count} CUDA devices here; `negvision doctor` says more"
        )
    return device


def named_classes(cfg: Config, meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes from ``meta`` of a checkpoint, else from the config; () from neither."""
    told = [(meta.get("dataset_meta") or {}).get("classes")]
    loader = cfg.get("test_dataloader") or {}
    told += [(d.get("metainfo") or {}).get("classes") for d in leaf_datasets(loader.get("dataset"))]
    names = next((names for names in told if names), ())
    return (names,) if isinstance(names, str) else tuple(map(str, names))


def ood_of(model: nn.Module) -> tuple[str | None, float | None]:
    """Name and threshold of the OOD score of ``model``; None for what it does not have."""
    for module in model.modules():
        if hasattr(module, "ood_threshold"):
            return module.score, module.ood_threshold
    return None, None
