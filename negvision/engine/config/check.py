"""Find typos in a config before any data is loaded or any component is built."""

import ast
import inspect
import textwrap
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from inspect import getattr_static
from typing import Any

from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, TestLoop, ValLoop
from torch.utils.data import DataLoader

from negvision.compat.quiet import quiet_imports
from negvision.engine.config.components import (
    component_names,
    find_components,
    import_scope,
    split_scope,
)
from negvision.errors import ConfigError, did_you_mean, nearest

# By registry: keys that the builder removes from a dict before it calls the constructor.
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
_NUMBERS = {int, float, bool, type(None)}

# Keys of the dataloader dicts that mmengine reads before DataLoader gets the rest.
_DATALOADER_KEYS = {"dataset", "num_batch_per_epoch"}
_LOOPS: dict[str, tuple[Callable, ...]] = {
    "train_cfg": (EpochBasedTrainLoop, IterBasedTrainLoop),
    "val_cfg": (ValLoop,),
    "test_cfg": (TestLoop,),
}
# Methods of mmdet's and mmseg's transforms that draw further images for one.
_DRAWING = ("get_indexes", "get_indices")
_PARTS = ("dataloader", "evaluator")
_DATALOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
_DEFAULT_HOOKS = {
    "runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint",
    "visualization", "loss_guard", "interruption", "classes", "metric_names",
    "score_threshold", "assignments",
}  # fmt: skip

# Top-level keys that mmengine and mmdet read, and those that base configs share by convention.
RUNNER_KEYS = set(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"} | {
    "activation_checkpointing", "compile", "custom_imports", "efficient_conv_bn_eval",
    "find_unused_parameters", "model_wrapper_cfg", "runner_type", "sync_bn", "tta_model",
}  # fmt: skip
_SHARED_VARIABLES = {
    "backend_args", "data_root", "dataset_type", "test_pipeline", "train_pipeline",
    "tta_pipeline", "vis_backends",
}  # fmt: skip

# Dicts that are read key by key, so that nothing notices an unknown one. By field: the keys.
_READ_KEYS = {
    "env_cfg": {"cudnn_benchmark", "dist_cfg", "mp_cfg", "resource_limit"},
    "mp_cfg": {"mp_start_method", "opencv_num_threads"},
    "randomness": {"seed", "diff_rank_seed", "deterministic"},
    "auto_scale_lr": {"enable", "base_batch_size"},
    "clip_grad": {
        "type", "max_norm", "norm_type", "error_if_nonfinite", "clip_value", "foreach",
    },
}  # fmt: skip
_MODEL_CFG_KEYS = {
    "allowed_border", "assigner", "crop_size", "debug", "iou_thr", "mask_size", "mask_thr",
    "mask_thr_binary", "max_per_image", "max_per_img", "min_bbox_size", "mode", "nms",
    "nms_post", "nms_pre", "pos_weight", "rcnn", "rpn", "rpn_proposal", "sampler", "score_thr",
    "stride",
}  # fmt: skip
# The same where components of other packages may read more: only what is nearly one of the keys.
_OPEN_KEYS = {
    "train_cfg": _MODEL_CFG_KEYS,
    "test_cfg": _MODEL_CFG_KEYS,
    "paramwise_cfg": {
        "custom_keys", "bias_lr_mult", "bias_decay_mult", "norm_decay_mult", "flat_decay_mult",
        "dwconv_decay_mult", "dcn_offset_lr_mult", "bypass_duplicate", "num_layers",
        "decay_rate", "decay_type", "force_default_settings", "layer_decay_rate",
    },
    "filter_cfg": {"filter_empty_gt", "min_size", "bbox_min_size"},
    "data_prefix": {"img", "img_path", "img_path2", "seg", "seg_map_path", "depth_map_path"},
}  # fmt: skip

# Packages that components import when they are built or used first; elsewhere nobody needs them.
_PACKAGES = {
    "AimVisBackend": "aim", "Albu": "albumentations", "ClearMLVisBackend": "clearml",
    "Corrupt": "imagecorruptions", "DVCLiveVisBackend": "dvclive", "InstaBoost": "instaboostfast",
    "LVISDataset": "lvis", "LVISMetric": "lvis", "LVISV05Dataset": "lvis",
    "LVISV1Dataset": "lvis", "MLflowVisBackend": "mlflow", "NeptuneVisBackend": "neptune",
    "TensorboardVisBackend": "tensorboard", "WandbVisBackend": "wandb",
}  # fmt: skip

# Components whose nested dicts are looked up in another library.
_FOREIGN_FIELDS = {"Albu": {"transforms", "bbox_params"}}
# Fields whose dicts are read by the component that holds them: `type` is a mode or a function
# there, or the component removes keys before it calls the constructor.
MODE_FIELDS = {
    "across_down_trans", "across_lateral_trans", "across_skip_trans", "across_up_trans",
    "adapt_cfg", "output_trans", "same_down_trans", "same_up_trans", "shaping",
}  # fmt: skip
_MIXED_FIELDS = {"nms", "dqs_cfg", "upsample_cfg"}
# DETR's heads remove the weight of the background class from their loss.
_FIELD_KEYS = {"loss_cls": {"bg_cls_weight"}}


def check_config(cfg: Config, keys: Collection[str] = RUNNER_KEYS) -> None:
    """Check every name and key of ``cfg`` that can be checked without building anything.

    * A top-level key that is similar, but not equal, to one that the runner reads.
    * A ``type`` that no registry knows, in the scope that applies there.
    * A key that the constructor of that type does not accept. Parents are followed while
      ``**kwargs`` are passed on; if these go elsewhere the dict is not checked.

    Args:
        cfg: A config.
        keys: Those whose values are checked; all by default.

    Raises:
        ConfigError: Names the path of the first wrong entry, and the nearest valid names.
    """
    _check_top_level(cfg)
    scope = cfg.get("default_scope") or "mmengine"
    problem = import_scope(scope)
    if problem is not None:
        raise ConfigError(f"default_scope = {scope!r} cannot be used: {problem}")
    with quiet_imports():  # of the components that are looked up
        for key in cfg:
            if key in keys:
                for message in _walk(cfg[key], key, key, scope):
                    raise ConfigError(message)


def _check_top_level(cfg: Config) -> None:
    for key in cfg:
        # The high cutoff accepts helper variables such as `train_pipeline_stage2`.
        known = key in RUNNER_KEYS | _SHARED_VARIABLES
        close = [] if known else nearest(key, RUNNER_KEYS, 1, cutoff=0.9)
        if close:
            raise ConfigError(
                f"{key!r} is not read by anything; nearest: {close[0]!r}. "
                "If it is a helper variable, rename it"
            )


def _walk(node: Any, path: str, field: str, scope: str) -> Iterator[str]:
    """Yield the problems of ``node``, which is at ``path`` under the key ``field``."""
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
        yield from _check_mixing(node, path, scope)
        skipped = _FOREIGN_FIELDS.get(plain_name(node["type"]), set())
    else:
        yield from _check_known_dict(node, path)
    if field in _READ_KEYS:
        yield from _unknown_keys(node, _READ_KEYS[field] | _META_KEYS, path, field)
    elif path not in _LOOPS and "type" not in node:
        open_keys = _OPEN_KEYS.get(field) or _keys_inside(path)
        yield from _misspelled_keys(node, open_keys, path)
    for key, value in node.items():
        if key not in skipped:
            yield from _walk(value, f"{path}.{key}", key, scope)


def plain_name(kind: Any) -> str:
    """``"Name"`` for a ``type`` that is ``"scope.Name"``, a class or a function."""
    return kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", "")


def _check_component(node: Mapping, path: str, field: str, scope: str) -> Iterator[str]:
    kind = node["type"]
    if isinstance(kind, str):
        found = find_components(kind, scope, field)
        if not found:
            yield _unregistered(kind, path, scope)
            return
    else:
        found = [("import", kind)] if callable(kind) else []
    if found and found[0][0] == "import" and inspect.isclass(found[0][1]):
        # Given as a class or by its path, so any builder may read its extra keys.
        found = [(registry, found[0][1]) for registry in _BUILDER_KEYS]
    if field in _MIXED_FIELDS or not found:
        return
    yield from _texts_for_numbers(node, [component for _, component in found], path)
    accepted = _META_KEYS | _FIELD_KEYS.get(field, set())
    for registry, component in found:
        names, complete = accepted_keywords(component)
        if not complete:
            return
        accepted |= names | _BUILDER_KEYS.get(registry, set())
    yield from _unknown_keys(node, accepted, path, plain_name(kind))


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


def _keys_inside(path: str) -> set[str]:
    """Of ``rpn`` and ``rcnn`` in the ``train_cfg`` or ``test_cfg`` of a two-stage detector."""
    above, _, name = path.rpartition(".")
    inside = above.endswith(("train_cfg", "test_cfg"))
    return _MODEL_CFG_KEYS if inside and name in ("rpn", "rcnn", "rpn_proposal") else set()


def _misspelled_keys(node: Mapping, known: set[str], path: str) -> Iterator[str]:
    for key in node:
        close = [] if key in known | _META_KEYS else nearest(str(key), known, 1, cutoff=0.85)
        if close:
            yield f"{path}.{key}: nothing reads {key!r}; nearest: {close[0]!r}"


def _texts_for_numbers(node: Mapping, components: Iterable[Callable], path: str) -> Iterator[str]:
    """``max_iters="two"``: a text where every one of ``components`` takes a number."""
    for key, value in node.items():
        if isinstance(value, str) and all(key in number_arguments(c) for c in components):
            yield f"{path}.{key} is the text {value!r}; it must be a number, True or False"


def _check_mixing(node: Mapping, path: str, scope: str) -> Iterator[str]:
    """Transforms such as Mosaic join images that only ``MultiImageMixDataset`` draws for them."""
    if plain_name(node["type"]) == "MultiImageMixDataset":
        return
    for number, step in enumerate(node.get("pipeline") or ()):
        kind = step.get("type") if isinstance(step, Mapping) else None
        found = [("", kind)] if callable(kind) else find_components(str(kind), scope)
        for component in (component for _, component in found):
            draws = [getattr_static(component, name, None) for name in _DRAWING]
            # Those with a cache of their own draw from it. mmcv's decorator holds the function.
            if any(
                "dataset" in inspect.signature(getattr(d, "func", d)).parameters for d in draws if d
            ):
                yield (
                    f"{path}.pipeline.{number}: {plain_name(kind)} joins several images, which "
                    "only MultiImageMixDataset gives it. Make the data set "
                    f"dict(type='MultiImageMixDataset', dataset=dict(type={node['type']!r}, ..., "
                    "pipeline=[the steps that load]), pipeline=[the steps from "
                    f"{plain_name(kind)} on])"
                )


def _check_known_dict(node: Mapping, path: str) -> Iterator[str]:
    """Dicts without a ``type`` that the runner itself reads."""
    if path in _DATALOADERS:
        accepted = accepted_keywords(DataLoader)[0] | _DATALOADER_KEYS
        yield from _unknown_keys(node, set(accepted), path, "the dataloader")
    elif path in _LOOPS:
        accepted = {"by_epoch"}.union(*(accepted_keywords(loop)[0] for loop in _LOOPS[path]))
        yield from _unknown_keys(node, accepted, path, "the loop")
        yield from _texts_for_numbers(node, _LOOPS[path], path)
    elif path == "default_hooks":
        for key in node:
            close = [] if key in _DEFAULT_HOOKS else nearest(key, _DEFAULT_HOOKS, 1, cutoff=0.8)
            if close:
                yield f"{path}.{key}: no default hook has this name; nearest: {close[0]!r}"


@cache
def number_arguments(component: Callable) -> frozenset[str]:
    """The arguments whose annotations allow numbers, booleans and None only.

    Example:
        >>> def step(size: int, name: str, limit: float | None = None): ...
        >>> sorted(number_arguments(step))
        ['limit', 'size']
    """
    kinds: dict[str, bool] = {}
    for owner in inspect.getmro(component) if inspect.isclass(component) else (component,):
        function = vars(owner).get("__init__") if inspect.isclass(component) else owner
        try:
            hints = typing.get_type_hints(function)
        except Exception:  # annotations of other packages may name what they do not import
            continue
        for name, hint in hints.items():
            kinds.setdefault(name, set(typing.get_args(hint) or [hint]) <= _NUMBERS)
    return frozenset(name for name, is_number in kinds.items() if is_number and name != "return")


def check_packages(cfg: Config, splits: Iterable[str]) -> None:
    """Check the optional packages that the data of ``splits`` and the visualizer need.

    Raises:
        ConfigError: One is not installed.
    """
    for key in (*(f"{split}_{part}" for split in splits for part in _PARTS), "visualizer"):
        for path, name in _types_in(cfg.get(key), key):
            package = _PACKAGES.get(name)
            if package and find_spec(package) is None:
                raise ConfigError(
                    f"{path}: {name} needs the package {package}, which is not installed: pip "
                    f"install {package}, or take {name} out of the config"
                )


def _types_in(node: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, list | tuple):
        for number, item in enumerate(node):
            yield from _types_in(item, f"{path}.{number}")
    elif isinstance(node, Mapping):
        if "type" in node:
            yield path, plain_name(node["type"])
        for key, value in node.items():
            yield from _types_in(value, f"{path}.{key}")


@cache
def accepted_keywords(component: Callable) -> tuple[frozenset[str], bool]:
    """The keyword arguments of a constructor, including those that ``**kwargs`` pass to parents.

    Returns:
        The names, and whether the list is complete. It is incomplete if ``**kwargs`` are used
        for anything but a parent's constructor, or if no parent ends the chain.

    Example:
        >>> class Base:
        ...     def __init__(self, depth): ...
        >>> class Child(Base):
        ...     def __init__(self, width, **kwargs):
        ...         super().__init__(**kwargs)
        >>> names, complete = accepted_keywords(Child)
        >>> sorted(names), complete
        (['depth', 'width'], True)
    """
    if not inspect.isclass(component):
        names, closed = _keywords(component)
        return frozenset(names), closed
    names: set[str] = set()
    complete = False
    # With several bases `super(Other, self)` may skip a class, so all of them count.
    one_line = all(len(cls.__bases__) <= 1 for cls in component.__mro__)
    for cls in component.__mro__:
        if cls is object or "__init__" not in vars(cls):
            continue
        own, closed = _keywords(cls.__init__)
        names |= own
        complete = complete or closed
        if closed and one_line:
            break
        if not closed and not _passes_kwargs_on(cls.__init__):
            return frozenset(names), False
    return frozenset(names), complete


def _keywords(function: Callable) -> tuple[set[str], bool]:
    if hasattr(function, "__wrapped__"):
        # A decorator may accept more, as mmcv's does for the old names of arguments.
        return set(), False
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return set(), False
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return names - {"self"}, not any(p.kind is p.VAR_KEYWORD for p in parameters)


def _passes_kwargs_on(function: Callable) -> bool:
    """Whether every use of ``**kwargs`` in ``function`` is in a call of ``X.__init__``."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return False
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef) or definition.args.kwarg is None:
        return False
    kwarg = definition.args.kwarg.arg
    uses = sum(isinstance(node, ast.Name) and node.id == kwarg for node in ast.walk(tree))
    passed_on = sum(
        isinstance(keyword.value, ast.Name) and keyword.value.id == kwarg
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "__init__"
        for keyword in node.keywords
        if keyword.arg is None
    )
    return 0 < uses == passed_on
