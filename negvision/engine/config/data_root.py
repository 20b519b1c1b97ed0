"""Point a config at another folder of data."""

import os
from collections.abc import MutableMapping
from typing import Any

from mmengine.config import Config


def replace_data_root(cfg: Config, data_root: str) -> None:
    """Put ``data_root`` in the place of the data root of every dataset of ``cfg``, in place.

    Every ``data_root`` key counts, however deep (wrappers, lists of datasets), and every string
    below a ``*_dataloader`` or ``*_evaluator`` that is a path in one of the old roots, such as
    an evaluator's ``ann_file``. Without a single ``data_root`` key, datasets get one.

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
