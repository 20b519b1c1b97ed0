"""The data files that a config names: move their root, and report the missing ones."""

import os
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from negvision.engine.config.components import find_components
from negvision.errors import MissingDataError


def check_data(cfg: Config, splits: tuple[str, ...]) -> None:
    """Check that the annotation files and image folders of ``splits`` exist.

    Datasets whose class has ``generates_data = True`` are left out.

    Args:
        cfg: A config with ``{split}_dataloader`` and ``{split}_evaluator``.
        splits: Of ``"train"``, ``"val"``, ``"test"``; those that the command reads.

    Raises:
        MissingDataError: Lists the expected paths and marks the missing ones.
    """
    wanted: dict[Path, None] = {}
    scope = cfg.get("default_scope") or "mmengine"
    for split in splits:
        datasets = list(leaf_datasets((cfg.get(f"{split}_dataloader") or {}).get("dataset")))
        kept = [d for d in datasets if not _generates_data(d["type"], scope)]
        for dataset in kept:
            wanted.update(dict.fromkeys(_dataset_paths(dataset)))
        if len(kept) == len(datasets):
            # The evaluator of a generated set reads files that are yet to be written.
            wanted.update(dict.fromkeys(_ann_files(cfg.get(f"{split}_evaluator"))))
    missing = [path for path in wanted if not path.exists()]
    if missing:
        raise MissingDataError(_message(missing, list(wanted)))


def _generates_data(kind: Any, scope: str) -> bool:
    """Whether a dataset class writes its own files at first use, as its attribute says."""
    found = [("", kind)] if callable(kind) else find_components(kind, scope)
    return any(getattr(component, "generates_data", False) for _, component in found)


def leaf_datasets(node: Any) -> Iterator[Mapping]:
    """The datasets that read files, inside all wrappers."""
    if isinstance(node, list | tuple):
        for item in node:
            yield from leaf_datasets(item)
    elif isinstance(node, Mapping):
        if "dataset" in node or "datasets" in node:
            yield from leaf_datasets(node.get("dataset"))
            yield from leaf_datasets(node.get("datasets"))
        elif "type" in node:
            yield node


def _dataset_paths(dataset: Mapping) -> Iterator[Path]:
    if _is_remote(dataset):
        return
    root = dataset.get("data_root") or ""
    names = [value for key, value in dataset.items() if key.endswith("_file")]
    # By default the index of a record file is beside it.
    names += [
        os.path.splitext(name)[0] + ".idx"
        for name in names
        if isinstance(name, str) and name.endswith(".rec") and not dataset.get("idx_file")
    ]
    prefix = dataset.get("data_prefix") or {}
    names += list(prefix.values()) if isinstance(prefix, Mapping) else [prefix]
    names = [name for name in names if isinstance(name, str) and name]
    # A dataset that is only a folder.
    for name in names or [""] * bool(root):
        if "://" not in root + name:
            yield Path(os.path.join(root, name))


def _ann_files(evaluator: Any) -> Iterator[Path]:
    if isinstance(evaluator, list | tuple):
        for item in evaluator:
            yield from _ann_files(item)
    elif isinstance(evaluator, Mapping):
        name = evaluator.get("ann_file")
        if isinstance(name, str) and name and "://" not in name and not _is_remote(evaluator):
            yield Path(name)
        yield from _ann_files(evaluator.get("metrics"))


def _is_remote(node: Mapping) -> bool:
    backend = (node.get("backend_args") or {}).get("backend", "local")
    return backend not in ("local", "LocalBackend")


def _message(missing: list[Path], wanted: list[Path]) -> str:
    paths = sorted({Path(os.path.abspath(path)) for path in wanted})
    root = Path(os.path.commonpath(paths))
    root = root.parent if root.suffix else root
    shown = Path(os.path.relpath(root))
    first = f"{missing[0]} does not exist."
    if len(missing) > 1:
        first += f" ({len(missing)} of {len(wanted)} paths of this config are missing)"
    lines = [first, "", f"Expected in {root if shown.parts[:1] == ('..',) else shown}/:"]
    for path in paths:
        name = f"  {path.relative_to(root)}" + ("" if path.suffix else "/")
        lines.append(name if path.exists() else f"{name:<44}missing")
    return "\n".join(
        [
            *lines,
            "",
            "If the data is elsewhere, name its folder:    --data-root DIR",
            "To train on a set that needs no download:     make quickstart",
        ]
    )


def replace_data_root(cfg: Config, data_root: str) -> None:
    """Replace the data root of every dataset of ``cfg``, in place.

    This changes every ``data_root`` key at any depth (wrappers, lists of datasets), and every
    path below a ``*_dataloader`` or ``*_evaluator`` that is in one of the old roots, such as an
    evaluator's ``ann_file``. If there is no ``data_root`` key, datasets get one.

    Example:
        >>> cfg = Config(dict(
        ...     val_dataloader=dict(dataset=dict(data_root="data/coco/", ann_file="a.json")),
        ...     val_evaluator=dict(ann_file="data/coco/a.json")))
        >>> replace_data_root(cfg, "/mnt/coco")
        >>> cfg.val_dataloader.dataset.data_root, cfg.val_evaluator.ann_file
        ('/mnt/coco/', '/mnt/coco/a.json')
    """
    new = data_root.rstrip("/") + "/"
    old_roots = sorted(_data_roots(cfg._cfg_dict), key=len, reverse=True)
    for key, value in cfg.items():
        if key == "data_root":
            cfg[key] = new
        elif key.endswith(("_dataloader", "_evaluator")) and value is not None:
            cfg[key] = _replaced(value, old_roots, new)


def _data_roots(node: Any) -> set[str]:
    if isinstance(node, MutableMapping):
        own = {node["data_root"]} if isinstance(node.get("data_root"), str) else set()
        return own.union(*map(_data_roots, node.values()))
    if isinstance(node, list | tuple):
        return set().union(*map(_data_roots, node))
    return set()


def _replaced(node: Any, old_roots: list[str], new: str) -> Any:
    if isinstance(node, MutableMapping):
        for key, value in node.items():
            node[key] = new if key == "data_root" else _replaced(value, old_roots, new)
        if "data_root" not in node and ("ann_file" in node and "data_prefix" in node):
            node["data_root"] = new
        return node
    if isinstance(node, list | tuple):
        return type(node)(_replaced(item, old_roots, new) for item in node)
    if isinstance(node, str):
        for old in old_roots:
            folder = old.rstrip("/") + "/"
            if old and node.startswith(folder):
                return os.path.join(new, node.removeprefix(folder))
    return node
