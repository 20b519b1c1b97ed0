"""Readable differences between configs."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from negvision.engine.config.reading import load_config
from negvision.engine.config.shipped import shipped_configs
from negvision.errors import ConfigError
from negvision.report.page_parts import ConfigChange
from negvision.visualization import shown_path

# Keys about how a run was started.
_STARTED = ("launcher", "work_dir", "resume", "load_from", "experiment_name")


def config_lines(cfg: Mapping[str, Any]) -> list[str]:
    """A config as sorted lines ``path = value``; list items keep their order.

    Example:
        >>> config_lines({"model": {"depth": 18, "type": "R"}, "steps": [{"type": "A"}, 2]})
        ['model.depth = 18', "model.type = 'R'", "steps[] = dict(type='A')", 'steps[] = 2']
    """
    return [line for key in sorted(cfg) if key not in _STARTED for line in _lines(key, cfg[key])]


def _lines(path: str, value: Any) -> list[str]:
    if isinstance(value, Mapping) and value:
        return [line for key in sorted(value) for line in _lines(f"{path}.{key}", value[key])]
    if isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        return [f"{path}[] = {_written(item)}" for item in value]
    return [f"{path} = {_written(value)}"]


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        # Sorted, because the copy that a run writes has sorted keys.
        keys = sorted(value, key=lambda key: (key != "type", key))
        return f"dict({', '.join(f'{key}={_written(value[key])}' for key in keys)})"
    if isinstance(value, list | tuple):
        inside = ", ".join(map(_written, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    return repr(value)


def config_change(
    title: str, before: Sequence[str], after: Sequence[str], names: Sequence[str]
) -> ConfigChange:
    """A unified diff of lines of :func:`config_lines`, without line numbers."""
    lines = difflib.unified_diff(before, after, *names, n=0, lineterm="")
    return ConfigChange(title, [line for line in lines if not line.startswith("@@")])


def changes_of(config: Path, cfg: Mapping[str, Any]) -> list[ConfigChange]:
    """What a run's config changes of its base, and what was changed when the run was started.

    The copy that a run writes has no base, so the original is searched by name: below ``configs``
    in the current folder, then among the configs of the package.
    """
    title = "Against its base"
    if config.suffix != ".py":
        missing = "The config is the one stored in the model, which does not name its base."
        return [ConfigChange(title, missing=missing)]
    origin = _origin(config.name)
    if origin is None:
        missing = f"No config {config.name} below configs to compare with."
        return [ConfigChange(title, missing=missing)]
    try:
        original = config_lines(load_config(origin))
        bases = _bases(origin)
        base = {key: value for path in bases for key, value in load_config(path).items()}
    except ConfigError as error:
        return [ConfigChange(title, missing=f"The config cannot be compared: {error}")]
    started = config_change(
        "Options of the command line, or later changes of the config",
        original,
        config_lines(cfg),
        (shown_path(origin), shown_path(config)),
    )
    if not bases:
        return [ConfigChange(title, missing=f"{shown_path(origin)} has no _base_."), started]
    names = (" + ".join(path.stem for path in bases), shown_path(origin))
    return [config_change(title, config_lines(base), original, names), started]


def _origin(name: str) -> Path | None:
    for folder in (Path("configs"), shipped_configs()):
        found = sorted(folder.rglob(name)) if folder.is_dir() else []
        if found:
            return found[0]
    return None


def _bases(path: Path) -> list[Path]:
    """The files in ``_base_`` of a config, found without running it."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "_base_" for target in statement.targets
        ):
            named = ast.literal_eval(statement.value)
            named = [named] if isinstance(named, str) else named
            return [(path.parent / one).resolve() for one in named]
    return []
