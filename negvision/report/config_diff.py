"""What a config changes, as lines that a person can read."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from negvision.engine.config.reading import load_config
from negvision.engine.config.shipped import shipped_configs
from negvision.errors import ConfigError
from negvision.report.run_parts import ConfigChange
from negvision.visualization import shown_path

# Of where and how a run was started, not of what it is.
_STARTED = ("launcher", "work_dir", "resume", "load_from", "experiment_name")


def config_lines(cfg: Mapping[str, Any]) -> list[str]:
    """A config as sorted lines ``path = value``; those of a list keep their order.

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
        # In an order of its own: the copy that a run writes has its keys sorted.
        keys = sorted(value, key=lambda key: (key != "type", key))
        return f"dict({', '.join(f'{key}={_written(value[key])}' for key in keys)})"
    if isinstance(value, list | tuple):
        inside = ", ".join(map(_written, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    return repr(value)


def config_change(title: str, before: Sequence[str], after: Sequence[str], names) -> ConfigChange:
    """A unified diff of two configs' lines, without the numbers of lines, which mean nothing.

    Args:
        title: Of the change.
        before, after: Of :func:`config_lines`.
        names: Of the two.
    """
    lines = difflib.unified_diff(before, after, *names, n=0, lineterm="")
    return ConfigChange(title, [line for line in lines if not line.startswith("@@")])


def changes_of(config: Path, cfg: Mapping[str, Any]) -> list[ConfigChange]:
    """What a run's config changes of its base, and what was changed when it was started.

    The copy that a run writes is one file without a base, so the config of its name is looked for:
    below ``configs`` of the current folder, and among those of the suite.

    Args:
        config: The copy.
        cfg: What was read from it.
    """
    own, title = config_lines(cfg), "Against its base"
    found = _origin(config.name)
    if found is None:
        missing = f"There is no config {config.name} below configs to compare with."
        return [ConfigChange(title, missing=missing)]
    try:
        origin = load_config(found)
        bases = _bases(found)
        base = {key: value for path in bases for key, value in load_config(path).items()}
    except ConfigError as error:
        return [ConfigChange(title, missing=f"It cannot be compared: {error}")]
    named = " + ".join(path.stem for path in bases)
    written = config_lines(origin)
    started = config_change(
        "Options of the command line, or changes of the config since",
        written,
        own,
        (shown_path(found), shown_path(config)),
    )
    if not bases:
        missing = f"{shown_path(found)} has no _base_."
        return [ConfigChange(title, missing=missing), started]
    change = config_change(title, config_lines(base), written, (named, shown_path(found)))
    return [change, started]


def _origin(name: str) -> Path | None:
    for folder in (Path("configs"), shipped_configs()):
        found = sorted(folder.rglob(name)) if folder.is_dir() else []
        if found:
            return found[0]
    return None


def _bases(path: Path) -> list[Path]:
    """The files that ``_base_`` of a config names; they are read, the config is not run."""
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "_base_" for target in statement.targets
        ):
            named = ast.literal_eval(statement.value)
            named = [named] if isinstance(named, str) else named
            return [(path.parent / one).resolve() for one in named]
    return []


def between(first: Config, second: Config, names: tuple[str, str]) -> ConfigChange:
    """What the config of a run changes of another run's."""
    title = f"{names[1]} against {names[0]}"
    return config_change(title, config_lines(first), config_lines(second), names)
