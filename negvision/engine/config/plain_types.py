"""Make sure that a config of plain values names registered components only, and keep it so.

MMEngine imports whatever a ``type`` spells, such as ``os.system``, where no registry knows it, and
calls it with the rest of the dict.
"""

import importlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import mmengine.registry.registry as mmengine_registry

from negvision.engine.config.check import MODE_FIELDS
from negvision.engine.config.components import (
    NAMESPACES,
    component_names,
    find_components,
    is_registered,
    split_scope,
)
from negvision.errors import ConfigError, did_you_mean

_SCOPES = ("mmengine", "mmcv", "mmdet", "mmseg", "negvision")
# Keys beside `type` whose text becomes the `type` of something.
_TYPE_KEYS = ("type", "constructor", "ema_type", "runner_type")
# Registered components that run texts of their config or unpickle the files it names.
_RUN_CODE = {
    "RFSearchHook": "evaluates texts of the config",
    "CameraMotionCompensation": "evaluates a text of the config",
    "OpenImagesDataset": "unpickles its hierarchy file",
    "OpenImagesChallengeDataset": "unpickles its hierarchy file",
    "LoadBiomedicalImageFromFile": "may unpickle images",
    "LoadBiomedicalAnnotation": "may unpickle annotations",
    "LoadBiomedicalData": "may unpickle data",
}


def check_types(content: Mapping, source: str) -> None:
    """Check every name in a config of plain values, and from now on import none.

    Args:
        content: The config with its bases.
        source: Named in errors.

    Raises:
        ConfigError: A ``type`` anywhere is not registered, or runs code of the config's choosing;
            a scope is none of a package that the suite builds on. Nothing has been imported then
            but those packages.
    """
    refuse_imports_by_name()
    scope = content.get("default_scope") or "mmengine"
    for fault in _faults(content, "", "", scope):
        raise ConfigError(f"config {source!r}: {fault}")


def refuse_imports_by_name() -> None:
    """From now on, no registry of this process imports what it does not know.

    A text may become a ``type`` in ways that no check of the config foresees; then nothing is
    found, and building the component fails.
    """
    mmengine_registry.get_object_from_string = _find_nothing
    mmengine_registry.import_module = _import_known


def _find_nothing(name: str) -> None:
    """In the place of ``mmengine.utils.get_object_from_string``, which imports."""


def _import_known(name: str) -> Any:
    scope = re.fullmatch(r"(.+)\.(?:registry|utils)", name)
    if scope and scope[1] not in _SCOPES:
        raise ImportError(f"{name} is not imported for a config of plain values")
    return importlib.import_module(name)


def _faults(node: Any, path: str, field: str, scope: str) -> Iterator[str]:
    if isinstance(node, list | tuple):
        for index, item in enumerate(node):
            yield from _faults(item, f"{path}.{index}", field, scope)
    if not isinstance(node, Mapping):
        return
    for key in ("default_scope", "_scope_"):
        if node.get(key) is not None:
            if node[key] not in _SCOPES:
                yield f"{_join(path, key)} is {node[key]!r}; it is one of {', '.join(_SCOPES)}"
                return
            scope = node[key]
    for key in _TYPE_KEYS:
        if key in node and not (key == "constructor" and isinstance(node[key], bool)):
            yield from _type_faults(node[key], _join(path, key), field, scope)
    for key, value in node.items():
        yield from _faults(value, _join(path, key), key, scope)


def _type_faults(kind: Any, path: str, field: str, scope: str) -> Iterator[str]:
    if not isinstance(kind, str):
        yield f"{path} is {kind!r}; it is the name of a registered component"
        return
    target, name = split_scope(kind, scope)
    if name in _RUN_CODE:
        yield f"{path}: {name} {_RUN_CODE[name]}, which needs a config in Python"
    elif field in MODE_FIELDS:
        # A word that the component itself compares with its own.
        if not kind.isidentifier():
            yield f"{path} is {kind!r}, which is no word"
    elif field in NAMESPACES and kind.isidentifier() and find_components(kind, scope, field):
        return
    elif target not in _SCOPES or not is_registered(kind, scope):
        close = did_you_mean(kind, component_names(scope))
        yield (
            f"{path} = {kind!r} is not registered{close}. In a config of plain values a type is "
            "the name of a registered component; anything else could be any code"
        )


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
