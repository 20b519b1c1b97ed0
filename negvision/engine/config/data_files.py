"""Say which data files are missing before anything is built."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from negvision.errors import MissingDataError

# Written at first use by the dataset itself.
_GENERATED = {
    "DigitsCropDataset",
    "DigitsDataset",
    "DigitsSegDataset",
    "OODDigitsDataset",
    "GlyphListDataset",
    "GlyphPairDataset",
}


def check_data(cfg: Config, splits: tuple[str, ...]) -> None:
    """Check that the annotation files and image folders of ``splits`` exist.

    Args:
        cfg: A config with ``{split}_dataloader`` and ``{split}_evaluator``.
        splits: Of ``"train"``, ``"val"``, ``"test"``; those the command reads.

    Raises:
        MissingDataError: names the missing paths, and shows the expected layout as a tree.
    """
    wanted: dict[Path, None] = {}
    for split in splits:
        datasets = list(leaf_datasets((cfg.get(f"{split}_dataloader") or {}).get("dataset")))
        kept = [d for d in datasets if str(d["type"]).rpartition(".")[2] not in _GENERATED]
        for dataset in kept:
            wanted.update(dict.fromkeys(_dataset_paths(dataset)))
        if len(kept) == len(datasets):
            # Beside a generated set, the evaluator reads what that set has yet to write.
            wanted.update(dict.fromkeys(_ann_files(cfg.get(f"{split}_evaluator"))))
    missing = [path for path in wanted if not path.exists()]
    if missing:
        raise MissingDataError(_message(missing, list(wanted)))


def leaf_datasets(node: Any) -> Iterator[Mapping]:
    """The datasets that read files, inside of whatever wraps them."""
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
    # The index of a record file stands beside it unless the config says otherwise.
    names += [
        os.path.splitext(name)[0] + ".idx"
        for name in names
        if isinstance(name, str) and name.endswith(".rec") and not dataset.get("idx_file")
    ]
    prefix = dataset.get("data_prefix") or {}
    names += list(prefix.values()) if isinstance(prefix, Mapping) else [prefix]
    names = [name for name in names if isinstance(name, str) and name]
    # A set that is nothing but a folder.
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
    root = Path(os.path.commonpath([os.path.abspath(path) for path in wanted]))
    if root.suffix:
        root = root.parent
    shown = Path(os.path.relpath(root))
    shown = root if shown.parts[:1] == ("..",) else shown
    lines = [f"{missing[0]} does not exist."]
    if len(missing) > 1:
        lines[0] += f" ({len(missing)} of {len(wanted)} paths of this config are missing)"
    lines += ["", "Expected layout:", f"  {shown}/"]
    absolute = {Path(os.path.abspath(path)) for path in wanted}
    lines += _tree(sorted(path.relative_to(root) for path in absolute), missing, root)
    lines += [
        "",
        "If the data stands elsewhere, name its folder:  --data-root DIR",
        "To train on a set that needs no download:       make quickstart",
    ]
    return "\n".join(lines)


def _tree(paths: list[Path], missing: list[Path], root: Path) -> list[str]:
    absent = {Path(os.path.abspath(path)) for path in missing}
    lines: list[str] = []
    shown: set[Path] = set()
    for path in paths:
        for depth in range(1, len(path.parts) + 1):
            part = Path(*path.parts[:depth])
            if part in shown:
                continue
            shown.add(part)
            folder = depth < len(path.parts) or not path.suffix
            name = "  " * (depth + 1) + part.name + ("/" if folder else "")
            lines.append(f"{name:<44}missing" if root / part in absent else name)
    return lines
