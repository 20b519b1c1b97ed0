"""Training options: what each changes in a config, and which can be combined."""

import argparse
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from negvision.data.images.tiles import Tiles
from negvision.engine.parallel.sync_bn import KINDS as SYNC_BN_KINDS
from negvision.errors import ConfigError

# Assigners of heads that give priors outside of objects and background no weight.
_IGNORING = ("ATSSAssigner", "MaxIoUAssigner")
# Data sets that take suspects.
_DOUBTED = ("CocoDataset", "DigitsDataset", "ImageListDataset")
# Data sets that are cut into tiles.
_TILED = ("CocoDataset", "DigitsDataset")
_TILED_HOOK = "TiledEvaluationHook"
_HALF_WRAPPERS = {"bf16": "negvision.BF16OptimWrapper", "fp16": "AmpOptimWrapper"}


def apply_training_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Apply the options of ``negvision train`` to ``cfg``.

    Raises:
        ConfigError: An option that does not fit the config or this machine.
    """
    if args.amp is not None:
        enable_amp(cfg, args.amp)
    if args.accumulate is not None:
        _set_accumulation(cfg, args.accumulate)
    if args.auto_scale_lr:
        _enable_auto_scale_lr(cfg)
    if args.sync_bn:
        cfg.sync_bn = cfg.get("sync_bn") or "torch"
    if args.ema is not None:
        enable_ema(cfg, args.ema)
    if args.checkpoint_activations is not None:
        cfg.activation_checkpointing = args.checkpoint_activations or ["backbone"]
    if args.compile:
        cfg.compile = cfg.get("compile") or True
    for wanted, name in (
        (args.soft_negatives, "SoftNegatives"),
        (args.history, "SampleHistoryHook"),
    ):
        hooks = list(cfg.get("custom_hooks") or [])
        if wanted and not any(_plain(hook) == name for hook in hooks):
            cfg.custom_hooks = [*hooks, {"type": f"negvision.{name}"}]
    if args.suspects is not None:
        use_suspects(cfg, args.suspects)
    if args.tiles is not None:
        train_in_tiles(cfg, args.tiles)


def enable_amp(cfg: Config, kind: str = "auto") -> None:
    """Train in mixed precision.

    Args:
        cfg: Changed: the type of its ``optim_wrapper``.
        kind: ``"fp16"``: float16 with loss scaling, on CUDA; ``"bf16"``: bfloat16; ``"auto"``: the
            config's own if it has one, else float16 on CUDA and bfloat16 on a CPU.

    Raises:
        ConfigError: ``optim_wrapper`` has a custom type, which this would discard, or this machine
            does not support the kind.
    """
    wrapper = cfg.optim_wrapper
    present = wrapper.get("type", "OptimWrapper")
    if kind == "auto":
        if present in _HALF_WRAPPERS.values():
            return
        kind = "fp16" if torch.cuda.is_available() else "bf16"
    elif kind == "fp16" and not torch.cuda.is_available():
        raise ConfigError(
            "--amp fp16 needs a CUDA device, and none is visible here; on a CPU use --amp bf16"
        )
    elif kind == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported(False):
        name = torch.cuda.get_device_name()
        raise ConfigError(f"--amp bf16: {name} has no bfloat16; use --amp fp16")
    if present not in ("OptimWrapper", *_HALF_WRAPPERS.values()):
        raise ConfigError(
            f"--amp replaces optim_wrapper.type 'OptimWrapper', but it is {present!r}; set mixed "
            "precision in the config instead"
        )
    wrapper.type = _HALF_WRAPPERS[kind]
    if kind == "fp16":
        wrapper.setdefault("loss_scale", "dynamic")
        wrapper.pop("dtype", None)
    else:
        for key in ("loss_scale", "dtype", "use_fsdp"):
            wrapper.pop(key, None)


def _set_accumulation(cfg: Config, count: int) -> None:
    if "optimizer" not in cfg.optim_wrapper:
        raise ConfigError(
            "--accumulate sets optim_wrapper.accumulative_counts, but this config has several "
            f"optimizers ({', '.join(cfg.optim_wrapper)}); set accumulative_counts of each in the "
            "config"
        )
    cfg.optim_wrapper.accumulative_counts = count


def _enable_auto_scale_lr(cfg: Config) -> None:
    if "base_batch_size" not in (cfg.get("auto_scale_lr") or {}):
        raise ConfigError(
            "--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=...) in the config: the "
            "total batch size that its learning rate is meant for"
        )
    cfg.auto_scale_lr.enable = True


def enable_ema(cfg: Config, momentum: float) -> None:
    """Evaluate and save a moving average of the weights.

    The average follows closely at the beginning (``mmdet.ExpMomentumEMA``), so it works for short
    runs too. With gradient accumulation it is updated once per update. An existing hook keeps its
    other arguments.
    """
    hooks = list(cfg.get("custom_hooks") or [])
    interval = cfg.optim_wrapper.get("accumulative_counts", 1)
    for hook in hooks:
        if _plain(hook) == "EMAHook":
            hook.momentum = momentum
            return
    average = {"ema_type": "mmdet.ExpMomentumEMA", "momentum": momentum, "interval": interval}
    cfg.custom_hooks = [*hooks, {"type": "EMAHook", **average}]


def train_in_tiles(cfg: Config, tiles: str) -> None:
    """Train a detector on tiles of large images and evaluate it in them; "none": on whole ones.

    Of boxes that a tile cuts off, the priors must not be background, so assigners that can are told
    to ignore boxes, as for :func:`use_suspects`.

    Args:
        cfg: Changed: its training sets (``tiles`` of :class:`negvision.CocoDataset`), assigners and
            hooks.
        tiles: As :meth:`negvision.data.images.tiles.Tiles.of` reads them.

    Raises:
        ConfigError: A training set is no ``negvision.CocoDataset``.
    """
    found = Tiles.of(tiles)
    sets = [one for one in _dicts(cfg.train_dataloader.dataset) if "ann_file" in one]
    kinds = [_plain(one) for one in sets if "negvision." in str(one.type)]
    if found is None:
        for one in sets:
            one.pop("tiles", None)
    elif not sets or len(kinds) < len(sets) or not set(kinds) <= set(_TILED):
        raise ConfigError(
            f"--tiles {tiles}: needs training sets of negvision.CocoDataset, and these are "
            f"{', '.join(str(one.get('type')) for one in sets) or 'none'}"
        )
    else:
        for one in sets:
            one.tiles = str(found)
        try:
            ignore_regions(cfg.model)
        except ConfigError as error:
            print_log(
                f"--tiles {tiles}: pieces of objects too small to name are background: {error}",
                logger="current",
                level=logging.WARNING,
            )
    evaluate_in_tiles(cfg, tiles)


def evaluate_in_tiles(cfg: Config, tiles: str) -> None:
    """Let validations and tests predict in tiles; "none": whole images."""
    found = Tiles.of(tiles)
    hooks = [hook for hook in cfg.get("custom_hooks") or [] if _plain(hook) != _TILED_HOOK]
    if found is not None:
        hooks.append({"type": f"negvision.{_TILED_HOOK}", "tiles": str(found)})
    cfg.custom_hooks = hooks


def tiles_of(cfg: Config) -> Tiles | None:
    """The tiles in which the evaluations of a config predict, or None."""
    hooks = [hook for hook in cfg.get("custom_hooks") or [] if _plain(hook) == _TILED_HOOK]
    return Tiles.of(hooks[0]["tiles"]) if hooks else None


def use_suspects(cfg: Config, path: str) -> None:
    """Train without believing what an audit suspects; see :class:`negvision.CocoDataset`.

    Args:
        cfg: Changed: its training set, and the assigners of a detector, which get
            :class:`negvision.IgnoringAssigner` around them.
        path: File of ``negvision audit``.

    Raises:
        ConfigError: The training set is no ``negvision.CocoDataset``, or there are several, or the
            model cannot leave boxes out of its background.
    """
    sets = [one for one in _dicts(cfg.train_dataloader.dataset) if "ann_file" in one]
    kinds = [_plain(one) for one in sets]
    known = len(sets) == 1 and kinds[0] in _DOUBTED and "negvision." in str(sets[0].type)
    if not known:
        raise ConfigError(
            f"--suspects {path}: needs a training set of one negvision.CocoDataset or "
            f"negvision.ImageListDataset, and this is {', '.join(kinds) or 'none'}. With several, "
            "set suspects of each in the config"
        )
    sets[0].suspects = os.path.abspath(path)
    if kinds[0] != "ImageListDataset":
        ignore_regions(cfg.model)


def ignore_regions(model: Any) -> None:
    """Put :class:`negvision.IgnoringAssigner` around the assigners of a model's config.

    Raises:
        ConfigError: A head has none, or one whose head counts ignored priors as background.
    """
    owners = [
        (one, key) for one in _dicts(model) for key in one if key.endswith("assigner") and one[key]
    ]
    kinds = [_plain(one[key]) for one, key in owners]
    other = [kind for kind in kinds if kind not in (*_IGNORING, "IgnoringAssigner")]
    if not owners or other or _plain(model.get("roi_head") or {}) == "DynamicRoIHead":
        raise ConfigError(
            f"{_plain(model)} cannot ignore boxes: that needs heads with {' or '.join(_IGNORING)}, "
            f"and it has {', '.join(other) or 'others'}. Use a model such as ATSS, RetinaNet or "
            "Faster R-CNN"
        )
    for one, key in owners:
        inner = one[key]
        if _plain(inner) in _IGNORING:
            one[key] = {"type": "negvision.IgnoringAssigner", "assigner": inner}


def _dicts(node: Any) -> Iterator[Any]:
    """Every dict in a config, but those below an assigner."""
    if isinstance(node, Mapping):
        yield node
        children = [node[key] for key in node if not key.endswith("assigner")]
    else:
        children = node if isinstance(node, list | tuple) else ()
    for child in children:
        yield from _dicts(child)


def check_training_options(cfg: Config) -> None:
    """Refuse options that cannot be combined, or not used on this machine, before the build.

    Raises:
        ConfigError: Names the options, and which to leave out.
    """
    if cfg.get("sync_bn") not in (None, *SYNC_BN_KINDS):
        kinds = ", ".join(map(repr, SYNC_BN_KINDS))
        raise ConfigError(f"sync_bn is {cfg.sync_bn!r}; it must be one of {kinds} or None")
    compiled = cfg.get("compile")
    if compiled is not None and not isinstance(compiled, bool | Mapping):
        raise ConfigError(
            f"compile is {compiled!r}; it must be True, False or a dict of options of torch.compile"
        )
    wrapper = cfg.get("optim_wrapper") or {}
    if _plain(wrapper) == "AmpOptimWrapper" and not torch.cuda.is_available():
        raise ConfigError(
            "optim_wrapper.type 'AmpOptimWrapper' needs a CUDA device, and none is visible here; "
            "on a CPU use 'negvision.BF16OptimWrapper' (--amp bf16)"
        )
    sharded = _plain(cfg.get("model_wrapper_cfg") or {}) == "FullyShardedModel"
    several = cfg.get("launcher", "none") != "none"
    if compiled and cfg.get("activation_checkpointing"):
        raise ConfigError(
            "compile and activation_checkpointing cannot be combined: the compiler decides "
            "what to recompute. Leave out --compile or --checkpoint-activations"
        )
    if compiled and sharded and several:
        raise ConfigError(
            "compile and model_wrapper_cfg negvision.FullyShardedModel cannot be combined; leave "
            "out --compile, or model_wrapper_cfg"
        )
    if sharded and several and any(_plain(h) == "EMAHook" for h in cfg.get("custom_hooks") or []):
        raise ConfigError(
            "EMAHook keeps a full copy of the model on every rank, which "
            "negvision.FullyShardedModel avoids, and cannot copy a sharded one. Leave "
            "out --ema (or the hook), or model_wrapper_cfg"
        )


def _plain(component: object) -> str:
    """``"Name"`` for a dict with ``type="negvision.Name"``, or for an object."""
    kind = component.get("type", "") if isinstance(component, Mapping) else type(component)
    return kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", "")
