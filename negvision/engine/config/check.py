"""Find typos in a config before any data is loaded or any component is built."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, TestLoop, ValLoop
from torch.utils.data import DataLoader

from negvision.engine.config.components import (
    component_names,
    find_components,
    import_scope,
    split_scope,
)
from negvision.engine.config.signatures import accepted_keywords
from negvision.errors import ConfigError, did_you_mean, nearest

# Keys that the builder takes out of a dict before it calls the constructor, by registry.
_BUILDER_KEYS = {
    "hook": {"priority"},
    "weight initializer": {"override", "name", "layer"},
    "optim_wrapper": {"constructor", "paramwise_cfg"},
    "parameter scheduler": {"convert_to_iter_based"},
    "loop": {"by_epoch"},
    # Layers are built by mmcv and the backbones, which read these themselves.
    "model": {"requires_grad", "fallback_on_stride"},
}
_META_KEYS = {"type", "_scope_", "_delete_"}

# Keys of the dataloader dicts that mmengine reads before DataLoader gets the rest.
_DATALOADER_KEYS = {"dataset", "num_batch_per_epoch"}
_LOOPS = {"train_cfg": (EpochBasedTrainLoop, IterBasedTrainLoop), "val_cfg": (ValLoop,)}
_LOOPS["test_cfg"] = (TestLoop,)
_DATALOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
_DEFAULT_HOOKS = {
    "runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint",
    "visualization", "loss_guard", "interruption",
}  # fmt: skip

# Keys that mmengine and mmdet read from the top level, and those that bases share by convention.
RUNNER_KEYS = set(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"} | {
    "activation_checkpointing", "compile", "custom_imports", "efficient_conv_bn_eval",
    "find_unused_parameters", "model_wrapper_cfg", "runner_type", "sync_bn", "tta_model",
}  # fmt: skip
_SHARED_VARIABLES = {
    "backend_args", "data_root", "dataset_type", "test_pipeline", "train_pipeline",
    "tta_pipeline", "vis_backends",
}  # fmt: skip

# Components whose nested dicts are looked up in another library.
_FOREIGN_FIELDS = {"Albu": {"transforms", "bbox_params"}}
# Fields whose dicts are read by the component that holds them: `type` is a mode or a function
# there, or further keys are taken out before the constructor is called.
MODE_FIELDS = {"adapt_cfg", "output_trans", "shaping"} | {
    f"{where}_trans"
    for where in (
        "same_up",
        "same_down",
        "across_lateral",
        "across_down",
        "across_up",
        "across_skip",
    )
}
_MIXED_FIELDS = {"nms", "dqs_cfg", "upsample_cfg"}
# DETR's heads take the weight of the background class out of their loss.
_FIELD_KEYS = {"loss_cls": {"bg_cls_weight"}}


def check_config(cfg: Config) -> None:
    """Check every name and key of ``cfg`` that can be checked without building anything.

    * A top-level key that is nearly, but not quite, one that the runner reads.
    * A ``type`` that no registry knows, in the scope that holds there.
    * A key that the constructor of that type does not take (parents are followed while
      ``**kwargs`` pass on; where they go elsewhere the dict is left alone).

    Raises:
        ConfigError: names the first wrong entry by its path, and the nearest right names.
    """
    _check_top_level(cfg)
    scope = cfg.get("default_scope") or "mmengine"
    problem = import_scope(scope)
    if problem is not None:
        raise ConfigError(f"default_scope = {scope!r} cannot be used: {problem}")
    for key in cfg:
        if key in RUNNER_KEYS:
            for message in _walk(cfg[key], key, key, scope):
                raise ConfigError(message)


def _check_top_level(cfg: Config) -> None:
    for key in cfg:
        # A cutoff this high lets through helper variables such as `train_pipeline_stage2`.
        known = key in RUNNER_KEYS | _SHARED_VARIABLES
        close = [] if known else nearest(key, RUNNER_KEYS, 1, cutoff=0.9)
        if close:
            raise ConfigError(
                f"{key!r} is not read by anything; nearest: {close[0]!r}. "
                "Rename a helper variable that is meant to be there"
            )


def _walk(node: Any, path: str, field: str, scope: str) -> Iterator[str]:
    """Yield what is wrong in ``node``, which stands at ``path`` under the key ``field``."""
    if isinstance(node, list | tuple):
        for index, item in enumerate(node):
            yield from _walk(item, f"{path}.{index}", field, scope)
        return
    if not isinstance(node, Mapping):
        return
    scope = node.get("_scope_", None) or scope
    skipped: set[str] = set()
    if field in MODE_FIELDS:
        return
    if "type" in node:
        yield from _check_component(node, path, field, scope)
        skipped = _FOREIGN_FIELDS.get(_plain_name(node["type"]), set())
    else:
        yield from _check_known_dict(node, path)
    for key, value in node.items():
        if key not in skipped:
            yield from _walk(value, f"{path}.{key}", key, scope)


def _plain_name(kind: Any) -> str:
    return kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", "")


def _check_component(node: Mapping, path: str, field: str, scope: str) -> Iterator[str]:
    kind = node["type"]
    if not isinstance(kind, str):
        found = [("", kind)] if callable(kind) else []
        if inspect.isclass(kind) or not found:
            # Written as a class: any builder may be the one that reads its extra keys.
            found = [(registry, kind) for registry in _BUILDER_KEYS] if found else []
    else:
        found = find_components(kind, scope, field)
        if not found:
            yield _unregistered(kind, path, scope)
            return
    if field in _MIXED_FIELDS or not found:
        return
    accepted = _META_KEYS | _FIELD_KEYS.get(field, set())
    for registry, component in found:
        names, complete = accepted_keywords(component)
        if not complete:
            return
        accepted |= names | _BUILDER_KEYS.get(registry, set())
    yield from _unknown_keys(node, accepted, path, _plain_name(kind))


def _unregistered(kind: str, path: str, scope: str) -> str:
    target, key = split_scope(kind, scope)
    problem = import_scope(target)
    if problem is not None and target != scope:
        return f"{path}.type = {kind!r}: {problem}"
    names = component_names(scope)
    close = did_you_mean(kind, names) or did_you_mean(key, names)
    return f"{path}.type = {kind!r} is not registered{close}"


def _unknown_keys(node: Mapping, accepted: set[str], path: str, owner: str) -> Iterator[str]:
    for key in node:
        if key not in accepted:
            close = did_you_mean(key, accepted - _META_KEYS)
            close = close or "; it takes " + ", ".join(sorted(accepted - _META_KEYS))
            yield f"{path}.{key}: {owner} takes no argument {key!r}{close}"


def _check_known_dict(node: Mapping, path: str) -> Iterator[str]:
    """Dicts without a ``type`` that the runner itself reads."""
    if path in _DATALOADERS:
        accepted = accepted_keywords(DataLoader)[0] | _DATALOADER_KEYS
        yield from _unknown_keys(node, set(accepted), path, "the dataloader")
    elif path in _LOOPS:
        loops: tuple[Callable, ...] = _LOOPS[path]
        accepted = {"by_epoch"}.union(*(accepted_keywords(loop)[0] for loop in loops))
        yield from _unknown_keys(node, accepted, path, "the loop")
    elif path == "auto_scale_lr":
        yield from _unknown_keys(node, {"enable", "base_batch_size"}, path, "it")
    elif path == "default_hooks":
        for key in node:
            close = [] if key in _DEFAULT_HOOKS else nearest(key, _DEFAULT_HOOKS, 1, cutoff=0.8)
            if close:
                yield f"{path}.{key}: no default hook has this name; nearest: {close[0]!r}"
