"""Read a config as the commands do: options applied, typos reported."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from negvision.engine.config.check import RUNNER_KEYS
from negvision.engine.config.stored import stored_config
from negvision.engine.quiet import log_of_reading_hidden
from negvision.errors import ConfigError, did_you_mean, nearest

# Files that hold weights and, if negvision or MMEngine wrote them, the config too.
MODEL_SUFFIXES = (".pth", ".safetensors")


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config and apply ``--cfg-options``.

    A Python file is run. The config that a checkpoint holds is not: see
    :mod:`negvision.engine.config.stored`.

    Args:
        path: A config of MMEngine, ``.py``; or a checkpoint (``.pth``) or published weights
            (``.safetensors``), which hold theirs.
        options: Dotted path -> value. Each must name a place that exists, or a new key that is
            not nearly the name of one that does.

    Raises:
        ConfigError: The file does not exist or is no config, or an option leads nowhere.
    """
    path = Path(path)
    if path.suffix in MODEL_SUFFIXES and path.is_file():
        cfg = stored_config(str(path))
        _apply(cfg, options)
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
        with log_of_reading_hidden():
            cfg = Config.fromfile(path)
    except (SyntaxError, NameError, ImportError, KeyError, OSError, TypeError) as error:
        raise ConfigError(f"config {str(path)!r}: {type(error).__name__}: {error}") from error
    _apply(cfg, options)
    return cfg


def _apply(cfg: Config, options: Mapping[str, Any] | None) -> None:
    if options:
        for option in options:
            _check_option(cfg, option)
        cfg.merge_from_dict(dict(options))


def _check_option(cfg: Config, option: str) -> None:
    node: Any = cfg._cfg_dict
    keys = option.split(".")
    for depth, key in enumerate(keys):
        where = ".".join(keys[:depth])
        if isinstance(node, list | tuple):
            if not key.isdigit() or int(key) >= len(node):
                raise ConfigError(
                    f"--cfg-options {option}: {where!r} is a list of {len(node)}; "
                    f"give a number from 0 to {len(node) - 1}, got {key!r}"
                )
            node = node[int(key)]
        elif isinstance(node, Mapping):
            if key in node:
                node = node[key]
                continue
            known = set(node) | (RUNNER_KEYS if depth == 0 else set())
            if key in known:
                return
            is_last = depth == len(keys) - 1
            close = nearest(key, known, cutoff=0.8 if is_last else 0.6)
            if close or not is_last:
                place = f"in {where!r}" if where else "at the top level"
                hint = did_you_mean(key, known) or "; it has " + ", ".join(sorted(node))
                raise ConfigError(f"--cfg-options {option}: no {key!r} {place}{hint}")
            return
        else:
            raise ConfigError(
                f"--cfg-options {option}: {where!r} is {node!r}, which has nothing inside"
            )


def set_work_dir(cfg: Config, work_dir: str | None) -> None:
    """``--work-dir``, else the config's own, else ``work_dirs/<name of the config>``."""
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / Path(cfg.filename or "model").stem)


def parse_options(texts: Sequence[str] | None) -> dict[str, Any]:
    """Dotted path -> value of ``--cfg-options``.

    Example:
        >>> parse_options(["train_cfg.max_epochs=2", "scale=(64,32)"])
        {'train_cfg.max_epochs': 2, 'scale': (64, 32)}
    """
    return {
        key: DictAction._parse_iterable(value)
        for key, _, value in (text.partition("=") for text in texts or ())
    }
