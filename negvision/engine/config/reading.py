"""Read a config as the commands do: options applied, typos reported."""

import ast
import codecs
import io
import re
import tokenize
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from mmengine.config import Config, ConfigDict, DictAction

from negvision.compat.patches import configs_opened_by
from negvision.engine.config.check import RUNNER_KEYS
from negvision.engine.config.stored import literal, stored_config
from negvision.engine.config.variables import check_options, check_variables
from negvision.engine.quiet import log_of_reading_hidden
from negvision.errors import ConfigError, did_you_mean, is_user_error, nearest

# Files that hold a model and, if negvision or MMEngine wrote them, the config too.
MODEL_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".onnx")


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config and apply ``--cfg-options``.

    A Python file is run. The config that a model holds is not: see
    :mod:`negvision.engine.config.stored`.

    Args:
        path: A config of MMEngine, ``.py``; or a checkpoint (``.pth``), published weights
            (``.safetensors``) or an exported model (``.onnx``), which hold theirs.
        options: Dotted path -> value. Each must name a place that exists, or a new key that is
            not nearly the name of one that does. A dict is merged with the one there.

    Raises:
        ConfigError: The file does not exist or is no config, an option leads nowhere, or nothing
            reads a variable that is set (:mod:`negvision.engine.config.variables`).
    """
    path = Path(path)
    if path.suffix in MODEL_SUFFIXES and path.is_file():
        cfg = stored_config(str(path))
        _apply(cfg, options or {})
        return cfg
    if path.suffix != ".py":
        raise ConfigError(
            f"config {str(path)!r}: configs are Python files (.py). Write its values as "
            "assignments, `model = dict(...)`"
        )
    if not path.is_file():
        folder = path.parent
        if not folder.is_dir():
            raise ConfigError(f"config {str(path)!r}: there is no folder {str(folder)!r}")
        names = [p.name for p in sorted(folder.iterdir()) if p.suffix == ".py"]
        close = did_you_mean(path.name, names)
        close = close or f"; {str(folder)!r} has {', '.join(names) or 'no config'}"
        raise ConfigError(f"config {str(path)!r} does not exist{close}")
    try:
        with log_of_reading_hidden(), configs_opened_by(_open):
            cfg = Config.fromfile(path)
            check_variables(cfg)
    except Exception as error:  # the file is a program
        if is_user_error(error):
            raise
        place = _line_in_config(error)
        raise ConfigError(
            f"config {str(path)!r}{place}: {type(error).__name__}: {error}"
        ) from error
    _apply(cfg, options or {})
    return cfg


def _apply(cfg: Config, options: Mapping[str, Any]) -> None:
    before = cfg._cfg_dict
    for option, value in options.items():
        keys = option.split(".")
        object.__setattr__(cfg, "_cfg_dict", _with(cfg._cfg_dict, keys, 0, value, option))
    check_options(before, cfg, options)


def _open(file: str | Path, mode: str = "r", **options) -> IO:
    """``open`` that reads text in the encoding that Python reads its sources in.

    That is UTF-8, also with a byte order mark, or the one that the first lines declare.
    """
    if mode != "r":
        return open(file, mode, **options)
    try:
        with tokenize.open(file) as stream:
            lines = stream.readlines()
    except (SyntaxError, UnicodeDecodeError) as error:
        with open(file, "rb") as binary:
            start = binary.read(2)
        kind = "UTF-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else ""
        raise ConfigError(
            f"config {str(file)!r} is {kind or 'not UTF-8'}: {error}. Save it as UTF-8"
            + ("" if kind else ", or declare its encoding in the first line: # coding: NAME")
        ) from None
    # MMEngine writes a copy in UTF-8, in which the declaration would be wrong.
    for number, line in enumerate(lines[:2]):
        if re.match(r"\s*#.*coding[:=]", line):
            lines[number] = "\n"
    text = "".join(lines)
    try:
        ast.parse(text)
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise ConfigError(f"config {str(file)!r}{line}: {type(error).__name__}: {reason}") from None
    return io.StringIO(text)


def _line_in_config(error: Exception) -> str:
    """`` in line 3 of 'b.py'``: the statement of a config, or of a module, that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame for frame in frames if frame.name == "<module>"]
    return f" in line {lines[-1].lineno} of {lines[-1].filename!r}" if lines else ""


def _with(node: Any, keys: Sequence[str], depth: int, value: Any, option: str) -> Any:
    """A copy of ``node``, which is at ``keys[:depth]``, with ``value`` at ``keys``.

    Nothing else changes, since other places may share what is inside.
    """
    if depth == len(keys):
        return _fitted(node, value, option)
    key, where = keys[depth], ".".join(keys[:depth])
    if isinstance(node, list | tuple):
        if not key.isdigit() or int(key) >= len(node):
            raise ConfigError(
                f"--cfg-options {option}: {where!r} is a list of {len(node)}; "
                f"give a number from 0 to {len(node) - 1}, got {key!r}"
            )
        items = list(node)
        items[int(key)] = _with(items[int(key)], keys, depth + 1, value, option)
        return type(node)(items)
    if not isinstance(node, Mapping):
        raise ConfigError(
            f"--cfg-options {option}: {where!r} is {node!r}, which has nothing inside"
        )
    copied = node.copy()
    if key in node:
        copied[key] = _with(node[key], keys, depth + 1, value, option)
        return copied
    known = set(node) | (RUNNER_KEYS if depth == 0 else set())
    if key not in known:
        is_last = depth == len(keys) - 1
        if not key or not is_last or nearest(key, known, cutoff=0.8):
            place = f"in {where!r}" if where else "at the top level"
            hint = did_you_mean(key, known) or "; it has " + ", ".join(sorted(node))
            raise ConfigError(f"--cfg-options {option}: no {key!r} {place}{hint}")
    for inner in reversed(keys[depth + 1 :]):
        value = ConfigDict({inner: value})
    copied[key] = value
    return copied


# What other languages, and YAML, write for True, False and None.
_WORDS = {"yes", "no", "on", "off", "null", "none", "nil"}


def _fitted(old: Any, value: Any, option: str) -> Any:
    """``value`` as it takes the place of ``old``: dicts are merged, and `64,48` may be a tuple."""
    if isinstance(value, dict) and isinstance(old, Mapping):
        return Config._merge_a_into_b(ConfigDict(value), old)
    if isinstance(value, dict):
        return ConfigDict(value)
    if isinstance(old, tuple) and isinstance(value, list):
        return tuple(value)
    if type(old) is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.lower() in _WORDS and not isinstance(old, str):
        raise ConfigError(
            f"--cfg-options {option}={value}: this is a text in place of {old!r}; write True, "
            "False or None"
        )
    if isinstance(old, Mapping) and "type" in old and type(value) in (str, int, float):
        raise ConfigError(
            f"--cfg-options {option}={value}: this is the dict of {old['type']!r}; set "
            f"{option}.type=..., or another key of it: {', '.join(map(str, old))}"
        )
    return value


def set_work_dir(cfg: Config, work_dir: str | None) -> None:
    """``--work-dir``, else the config's own, else ``work_dirs/<name of the config>``."""
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / Path(cfg.filename or "model").stem)


def parse_options(texts: Sequence[str] | None) -> dict[str, Any]:
    """Dotted path -> value of ``--cfg-options``.

    Example:
        >>> parse_options(["train_cfg.max_epochs=2", "model.neck={'out_channels': 64}"])
        {'train_cfg.max_epochs': 2, 'model.neck': {'out_channels': 64}}

    Raises:
        ConfigError: A value cannot be read.
    """
    options = {}
    for text in texts or ():
        key, _, value = text.partition("=")
        try:
            options[key] = _parsed(value)
        except (SyntaxError, ValueError) as error:
            raise ConfigError(
                f"--cfg-options {text}: the value cannot be read ({error}). Write a number, a "
                "text, [a,b], (a,b), {'key': value} or dict(key=value), in quotes for the shell"
            ) from None
    return options


def _parsed(text: str) -> Any:
    """The value that a text spells; unlike in MMEngine, spaces are part of it."""
    text = text.strip()
    if "{" in text or "dict(" in text:
        return literal(ast.parse(text, mode="eval").body)
    parts = split_at_commas(text)
    if len(parts) > 1:
        return [_parsed(part) for part in parts if part]
    if text[:1] + text[-1:] in ("()", "[]"):
        items = [_parsed(part) for part in split_at_commas(text[1:-1]) if part.strip()]
        return tuple(items) if text[0] == "(" else items
    if text[:1] in ("'", '"') and text[-1:] == text[:1] and len(text) > 1:
        return text[1:-1]
    return DictAction._parse_int_float_bool(text)


def split_at_commas(text: str) -> list[str]:
    """The parts of ``text`` between commas that are in no brackets and no quotes.

    Raises:
        ValueError: Brackets or quotes are not closed.
    """
    parts, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"" and not parts[-1].strip():
            quote = char
        depth += (char in "([") - (char in ")]") if not quote else 0
        if char == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += char
    if quote or (depth and (len(parts) > 1 or text[:1] in "([")):
        raise ValueError("brackets or quotes are not closed")
    return parts
