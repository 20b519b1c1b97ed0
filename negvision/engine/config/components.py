"""Find the classes that a ``type=`` in a config can stand for."""

import importlib
from collections.abc import Callable, Iterator
from functools import lru_cache

import mmengine.registry
from mmengine.registry import Registry
from mmengine.utils import get_object_from_string

from negvision.compat.quiet import quiet_imports

# These names are in no registry: mmcv looks them up in its modules.
NAMESPACES = {"nms": "mmcv.ops.nms", "dqs_cfg": "mmcv.ops.nms", "roi_layer": "mmcv.ops"}


def _roots() -> list[Registry]:
    return [item for item in vars(mmengine.registry).values() if isinstance(item, Registry)]


@lru_cache
def import_scope(scope: str) -> str | None:
    """Import what ``scope`` registers; the reason if that is impossible, else None."""
    if scope == "mmengine":
        return None
    try:
        importlib.import_module(f"{scope}.registry")
    except ModuleNotFoundError as error:
        return f"package '{error.name}' is not installed"
    with quiet_imports():
        for registry in _registries(scope):
            registry.import_from_location()
    return None


def _registries(scope: str) -> Iterator[Registry]:
    for root in _roots():
        found = root if scope == root.scope else root._search_child(scope)
        if found is not None:
            yield found


def split_scope(name: str, default_scope: str) -> tuple[str, str]:
    """``"negvision.ATSSHead"`` -> ``("negvision", "ATSSHead")``."""
    scope, key = Registry.split_scope_key(name)
    return (scope, key) if scope else (default_scope, key)


def find_components(name: str, scope: str, field: str = "") -> list[tuple[str, Callable]]:
    """Every class or function that ``type=name`` may stand for, with its registry's name.

    Args:
        name: The value of ``type``, with or without a scope.
        scope: The scope that applies to the dict (``default_scope`` or ``_scope_``).
        field: The key of the dict; ``nms`` and ``roi_layer`` have their own rules.
    """
    if field in NAMESPACES:
        found = getattr(importlib.import_module(NAMESPACES[field]), name, None)
        return [(field, found)] if callable(found) else []
    target, key = split_scope(name, scope)
    found: list[tuple[str, Callable]] = []
    if import_scope(target) is None:
        import_scope("mmengine")
        for registry in _registries(target):
            # Without the name, Registry.get would look for a module of that name on sys.path.
            if any(key in level.module_dict for level in _with_parents(registry)):
                found.append((registry.root.name, registry.get(key)))
    # As in the registries, a path to import is what is left: many names of negvision are both.
    full_path = get_object_from_string(name) if "." in name and not found else None
    return [("import", full_path)] if callable(full_path) else found


def _with_parents(registry: Registry | None) -> Iterator[Registry]:
    while registry is not None:
        yield registry
        registry = registry.parent


def is_registered(name: str, scope: str) -> bool:
    """Whether a registry of ``scope``, or of the scope before the dot, knows ``name``.

    Unlike :func:`find_components` it imports nothing but that scope.
    """
    target, key = split_scope(name, scope)
    scopes = {target} if "." in name else {target, "mmengine"}
    return any(
        import_scope(source) is None
        # By the names alone: a lookup imports the component.
        and any(key in set(registry.module_dict) for registry in _registries(source))
        for source in scopes
    )


def component_names(scope: str) -> list[str]:
    """All names that are valid in ``scope``; those of negvision have their prefix."""
    import_scope("negvision")
    names = set()
    for source in {scope, "mmengine", "negvision"}:
        if import_scope(source) is None:
            prefix = "negvision." if source == "negvision" and scope != source else ""
            for registry in _registries(source):
                names.update(prefix + key for key in registry.module_dict)
    return sorted(names)
