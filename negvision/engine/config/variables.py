"""Top-level names of a config that nothing reads: a value given to one of them has no effect.

Besides the keys of the runner, a config file may have variables. The file itself reads them while
it runs, so a value that comes later, from ``--cfg-options`` or from a file on top, changes nothing.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from negvision.engine.config.check import RUNNER_KEYS
from negvision.errors import ConfigError, nearest

# Keys of MMDetection 2, and of other trainers, to what has their place.
_ELSEWHERE = {
    "data": "train_dataloader, val_dataloader and test_dataloader",
    "optimizer": "optim_wrapper = dict(optimizer=dict(...))",
    "optimizer_config": "optim_wrapper = dict(clip_grad=dict(...))",
    "lr_config": "param_scheduler",
    "momentum_config": "param_scheduler",
    "runner": "train_cfg",
    "workflow": "train_cfg",
    "total_epochs": "train_cfg = dict(max_epochs=...)",
    "evaluation": "val_evaluator, train_cfg.val_interval and default_hooks.checkpoint.save_best",
    "checkpoint_config": "default_hooks = dict(checkpoint=dict(...))",
    "log_config": "default_hooks = dict(logger=dict(...))",
    "resume_from": "--resume FILE",
    "auto_resume": "--resume auto",
    "fp16": "--amp fp16",
    "seed": "randomness = dict(seed=...)",
    "deterministic": "randomness = dict(deterministic=True)",
    "dist_params": "env_cfg = dict(dist_cfg=dict(...))",
    "gpu_ids": "CUDA_VISIBLE_DEVICES",
    "classes": "metainfo = dict(classes=(...)) of every dataset",
    "CLASSES": "metainfo = dict(classes=(...)) of every dataset",
    "metainfo": "metainfo of every dataset",
    "pretrained": "load_from",
    "checkpoint": "load_from",
    "device": "CUDA_VISIBLE_DEVICES",
}
_SHOWN = 6


def check_variables(cfg: Config) -> None:
    """Refuse a variable of a config file that is meant as a setting, but that nothing reads.

    * One that a file sets after the file below it has used it, while the old value is still there:
      ``data_root`` or ``train_pipeline`` on top of a base whose datasets have read their own.
    * A key of MMDetection 2, or a misspelled one of the runner.

    Raises:
        ConfigError: Names the file and the keys that have the effect.
    """
    # Some that mmdet and mmseg install have such variables, which do no harm.
    if cfg.filename is None or ".mim" in Path(cfg.filename).parts:
        return
    path, *below = _files(Path(cfg.filename))
    for name in sorted(path.set - path.read - RUNNER_KEYS):
        if name in cfg and not name.startswith("_"):
            _check_unread(cfg, name, below)


def _check_unread(cfg: Config, name: str, below: list["_File"]) -> None:
    start = f"config {str(cfg.filename)!r}: nothing reads {name!r}"
    base = next((file.path for file in below if name in file.set), None)
    if below:
        before = _value_in(base, name) if base else _MISSING
        stale = _stale_places(cfg._cfg_dict, name, before)
        if stale and before != cfg[name]:
            used = f", and {base.name} has used its own" if base else ""
            raise ConfigError(f"{start}{used}. Set instead, or remove {name!r}:\n{_listed(stale)}")
    moved = _ELSEWHERE.get(name)
    # A dumped config repeats the variables of what it was made of.
    if moved and (below or not {"train_dataloader", "optim_wrapper"} & cfg.keys()):
        raise ConfigError(f"{start}; what it sets in other programs is here: {moved}")
    close = nearest(name, RUNNER_KEYS, 1, cutoff=0.75) if below else []
    if close:
        raise ConfigError(f"{start}; nearest: {close[0]!r}. If it is a variable, remove it")


def check_options(before: Mapping, cfg: Config, options: Mapping[str, Any]) -> None:
    """Refuse ``--cfg-options`` that changed a variable of the file which has been used already.

    Args:
        before: The content of the config without the options.
        cfg: The config with all options.
        options: Dotted path -> value.

    Raises:
        ConfigError: Names the keys that have the effect.
    """
    # Code of the user's may read any key.
    foreign = bool(cfg.get("custom_imports") or cfg.get("runner_type"))
    for option in options:
        name, _, rest = option.partition(".")
        old = before.get(name, _MISSING)
        if name in RUNNER_KEYS or old == cfg[name]:
            continue
        stale = _stale_places(cfg._cfg_dict, name, old)
        if stale:
            places = {f"{path}.{rest}" if rest else path: value for path, value in stale.items()}
            hint = "\nFor the folder of the data: --data-root DIR" if name == "data_root" else ""
            reason = "nothing reads" if old is _MISSING else "the config file has already used"
            raise ConfigError(
                f"--cfg-options {option}: {reason} {name!r}. Set instead:\n{_listed(places)}{hint}"
            )
        # Another option may have set the key itself.
        acts = old is not _MISSING and any(value == cfg[name] for _, value in _places(cfg))
        if not acts and not foreign:
            moved = f"; set {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
            raise ConfigError(f"--cfg-options {option}: nothing reads {name!r}{moved}")


_MISSING = object()


def _stale_places(cfg: Mapping, name: str, old: Any) -> dict[str, Any]:
    """Places with the name of a variable, or else with its old value, and what they hold.

    Empty if one of that name has the new value.
    """
    named = {path: value for path, value in _places(cfg) if path.rpartition(".")[2] == name}
    if named:
        return {} if cfg[name] in named.values() else named
    if old is _MISSING or old is None or isinstance(old, bool):
        return {}
    return {path: value for path, value in _places(cfg) if _comes_from(value, old)}


def _comes_from(value: Any, old: Any) -> bool:
    if isinstance(value, str) and isinstance(old, str) and len(old) > 1:
        return value.startswith(old)
    return type(value) is type(old) and value == old


def _places(cfg: Mapping) -> Iterator[tuple[str, Any]]:
    """Every dotted path below the keys of the runner, and its value."""
    for key in cfg:
        if key in RUNNER_KEYS:
            yield from _inside(cfg[key], key)


def _inside(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, node
    items = node.items() if isinstance(node, Mapping) else ()
    if isinstance(node, list | tuple):
        items = enumerate(node)
    for key, value in items:
        yield from _inside(value, f"{path}.{key}")


def _listed(places: Mapping[str, Any]) -> str:
    lines = []
    for path, value in list(places.items())[:_SHOWN]:
        text = repr(value)
        lines.append(f"  {path}, which is {text}" if len(text) < 60 else f"  {path}")
    if len(places) > _SHOWN:
        lines.append(f"  ... and {len(places) - _SHOWN} more")
    return "\n".join(lines)


@dataclass(frozen=True)
class _File:
    path: Path
    set: frozenset[str]
    read: frozenset[str]


def _files(path: Path) -> Iterator[_File]:
    """A config file and those below it, the nearest first."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    tree = ast.parse(text)
    # `_base_.name`, also inside "{{ }}".
    read = set(re.findall(r"_base_\.(\w+)", text))
    stored, bases = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (stored if isinstance(node.ctx, ast.Store) else read).add(node.id)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            read.add(node.target.id)
    yield _File(path, frozenset(stored - {"_base_"}), frozenset(read))
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="_base_")], value=ast.Constant(value=str(base))):
                bases = [base]
            case ast.Assign(targets=[ast.Name(id="_base_")], value=ast.List(elts=items)):
                bases = [item.value for item in items if isinstance(item, ast.Constant)]
            case ast.With(body=imports):
                modules = [(n.level, n.module) for n in imports if isinstance(n, ast.ImportFrom)]
                for level, module in modules:
                    if level and module:
                        bases.append("../" * (level - 1) + module.replace(".", "/") + ".py")
    for base in bases:
        below = Path(Config._get_cfg_path(base, str(path))[0])
        if below.is_file():
            yield from _files(below)


def _value_in(path: Path, name: str) -> Any:
    return Config.fromfile(path, import_custom_modules=False).get(name, _MISSING)
