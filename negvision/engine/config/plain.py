"""Read configs of plain values, JSON or YAML, so that nothing in them is run or imported.

A config in Python is a program. One from a stranger had better be JSON or YAML: texts, numbers,
lists and dicts, whose ``type`` entries name registered components and nothing else.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config

from negvision.engine.config.plain_types import check_types
from negvision.engine.config.shipped import shipped_configs
from negvision.errors import ConfigError

SUFFIXES = (".json", ".yaml", ".yml")
# The largest config of the suite has some 10 kB and 600 values.
_MOST_BYTES = 1 << 18
_MOST_VALUES = 100_000
_DEEPEST = 50
_BASE = "_base_"
# Keys of transforms that tell a tuple, one size or colour, from a list; `img` is one of pad_val.
_SIZES = {"scale", "img_scale", "crop_size", "size", "scale_factor", "img"}
_LISTS_OF_SIZES = {"scales", "img_scales"}
SHIPPED = shipped_configs()


def is_plain(path: str | Path) -> bool:
    """Whether a config file is of plain values, by its name."""
    return Path(path).suffix.lower() in SUFFIXES


def load_plain(path: Path) -> Config:
    """Read a JSON or YAML config with its bases.

    What Python configs have beyond values does not exist here: ``custom_imports`` is refused, and
    ``{{ ... }}`` in a text stays as it is. ``_base_`` names JSON and YAML files in the same folder
    or below, or configs that the suite ships. Values merge as in Python configs.

    Raises:
        ConfigError: The file is no such config, or names what is not registered.
    """
    content = _with_tuples(_with_bases(path, ()))
    check_types(content, str(path))
    try:
        return Config(content, cfg_text=path.read_text(encoding="utf-8"), filename=path)
    except KeyError as error:  # one of the names that mmengine keeps to itself
        raise ConfigError(f"config {str(path)!r}: {error.args[0]}") from None


def _with_bases(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    content = _parse(path)
    if "custom_imports" in content:
        raise ConfigError(
            f"config {str(path)!r}: custom_imports imports Python modules, which a config of plain "
            "values cannot. Leave it out; modules of your own need a config in Python"
        )
    bases = content.pop(_BASE, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"config {str(path)!r}: {_BASE} is {bases!r}; give a path or several")
    merged: dict[str, Any] = {}
    for base in bases:
        values = _load_base(path, base, (*above, path.resolve()))
        twice = sorted(set(merged) & set(values))
        if twice:
            raise ConfigError(f"config {str(path)!r}: two of its bases have the key {twice[0]!r}")
        merged.update(values)
    try:
        return Config._merge_a_into_b(content, merged)
    except (TypeError, KeyError) as error:
        raise ConfigError(f"config {str(path)!r}: {error}") from None


def _load_base(path: Path, base: str, above: tuple[Path, ...]) -> dict[str, Any]:
    where = f"config {str(path)!r}: {_BASE} {base!r}"
    if "\0" in base:
        raise ConfigError(f"{where} is no path")
    # Links are followed first, so that none leads to a file elsewhere.
    target = (path.parent / base).resolve()
    shipped = SHIPPED in target.parents
    beside = is_plain(target) and path.parent.resolve() in target.parents
    if not (shipped or beside):
        raise ConfigError(
            f"{where} is not allowed: the base of a config of plain values is a JSON or YAML file "
            f"in its folder, or one of the suite's own configs in {str(SHIPPED)!r}"
        )
    if target in above:
        raise ConfigError(f"{where} leads back to itself")
    if not target.is_file():
        raise ConfigError(f"{where}: {str(target)!r} does not exist")
    if is_plain(target):
        return _with_bases(target, above)
    if target.suffix != ".py":
        raise ConfigError(f"{where} is no config")
    return Config.fromfile(target)._cfg_dict.to_dict()


def _parse(path: Path) -> dict[str, Any]:
    """The content of one file, checked to be plain."""
    what = f"config {str(path)!r}"
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ConfigError(f"{what} has {size:,} bytes; a config has {_MOST_BYTES:,} at most")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            content = json.loads(text, object_pairs_hook=_without_repeats)
        else:
            content = yaml.load(text, _Loader)
        _require_plain(content)
    except RecursionError:
        raise ConfigError(f"{what} is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what} is not text in UTF-8 ({error.reason})") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{what}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{what} holds a {type(content).__name__} in place of keys and values")
    return content


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {repeated!r} comes twice in one dict")
    return found


def _with_tuples(node: Any, key: str = "") -> Any:
    """``node`` with sizes and colours as tuples where transforms tell these from lists.

    mmcv takes a tuple for one size and a list for several to choose from.
    """
    if isinstance(node, Mapping):
        return {name: _with_tuples(value, name) for name, value in node.items()}
    if not isinstance(node, list):
        return node
    if (
        key in _SIZES
        and len(node) in (2, 3)
        and all(isinstance(item, int | float) for item in node)
    ):
        return tuple(node)
    inner = key.removesuffix("s") if key in _LISTS_OF_SIZES else key
    return [_with_tuples(item, inner) for item in node]


def _require_plain(content: Any) -> None:
    """Raise ValueError for what is no text, number, list or dict of texts, or for too much of it.

    YAML's aliases make a small file stand for a huge or endless one, so what they lead to is
    counted each time.
    """
    stack = [(content, "", 0)]
    count = 0
    while stack:
        node, path, depth = stack.pop()
        count += 1
        if count > _MOST_VALUES:
            raise ValueError(f"it stands for more than {_MOST_VALUES:,} values")
        if depth > _DEEPEST:
            raise ValueError(f"{path[:80]}... is nested more than {_DEEPEST} deep")
        dot = "." if path else ""
        if isinstance(node, Mapping):
            for key, value in node.items():
                if not isinstance(key, str):
                    raise ValueError(f"{path}{dot}{key}: keys are texts; put it in quotes")
                stack.append((value, f"{path}{dot}{key}", depth + 1))
        elif isinstance(node, list | tuple):
            stack += [(item, f"{path}{dot}{i}", depth + 1) for i, item in enumerate(node)]
        elif node is not None and not isinstance(node, str | int | float):
            raise ValueError(f"{path} is a {type(node).__name__}; values are texts and numbers")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader; keys that come twice are an error, and 1e-3 is a number.

    The one in Python: the stack of that in C overflows at deep nesting, which ends the process.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                # Merges of merges take time and memory without bounds before they can be counted.
                raise yaml.constructor.ConstructorError(
                    None, None, f"<< is not read here; use {_BASE}", key.start_mark
                )
            if isinstance(key, yaml.ScalarNode) and key.value in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} comes twice in one dict", key.start_mark
                )
            if isinstance(key, yaml.ScalarNode):
                keys.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_pair(self, node: yaml.SequenceNode) -> tuple:
        return tuple(self.construct_sequence(node, deep=True))


# YAML 1.1, which PyYAML reads, wants a dot in a float; everyone writes lr: 1e-3.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)
# What mmengine writes for a tuple when it stores the config of a run.
_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _Loader.construct_pair)
