"""Values of a config that would have no effect, or that do not fit each other."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from negvision.engine.config.check import plain_name
from negvision.engine.config.data_files import leaf_datasets
from negvision.errors import ConfigError, nearest

_SPLITS = {
    "train": ("train_dataloader", "train_cfg", "optim_wrapper"),
    "val": ("val_dataloader", "val_cfg", "val_evaluator"),
    "test": ("test_dataloader", "test_cfg", "test_evaluator"),
}
_META_KEYS = ("classes", "palette")


def check_settings(cfg: Config, splits: tuple[str, ...]) -> None:
    """Refuse values that would have no effect, or that do not fit each other.

    Args:
        cfg: Changed: a split of which one key is None is switched off.
        splits: Those that the command reads, the first of which it needs.

    Raises:
        ConfigError: Names the key and what to set.
    """
    for split, keys in _SPLITS.items():
        _complete(cfg, split, keys, needed=split == splits[0])
        loader = cfg.get(keys[0])
        if isinstance(loader, Mapping):
            _check_loader(loader, keys[0])
            for dataset in leaf_datasets(loader.get("dataset")):
                _check_metainfo(dataset.get("metainfo"), keys[0])
    if "train" in splits:
        _check_length(cfg.train_cfg)
        _check_schedules(cfg)


def _complete(cfg: Config, split: str, keys: Sequence[str], needed: bool) -> None:
    """``val_dataloader = None`` alone means no evaluation; MMEngine wants all keys or none."""
    missing = [key for key in keys if cfg.get(key) is None]
    if needed and keys[0] in missing:
        where = f"{cfg.filename} " if cfg.filename else ""
        raise ConfigError(
            f"the config {where}has no {split} set: {keys[0]} is "
            f"{'None' if keys[0] in cfg else 'missing'}. Set {', '.join(keys)}"
        )
    if not missing or len(missing) == len(keys):
        return
    if needed or not any(key in cfg for key in missing):
        present = ", ".join(key for key in keys if key not in missing)
        raise ConfigError(
            f"the config has {present}, but no {' and no '.join(missing)}. Set all of "
            f"{', '.join(keys)}" + ("" if needed else ", or one of them to None to have none")
        )
    for key in keys if split != "train" else (*keys, "param_scheduler"):
        cfg[key] = None


def _check_loader(loader: Mapping, key: str) -> None:
    for name, least in (("batch_size", 1), ("num_workers", 0)):
        value = loader.get(name, least)
        if type(value) is not int or value < least:
            raise ConfigError(f"{key}.{name} is {value!r}; it must be an integer from {least} up")
    sampler = loader.get("sampler")
    if not isinstance(sampler, Mapping):
        return
    # MMEngine does not pass the batch size to a sampler, and with a different one batches would
    # contain incomplete identities.
    identities, images = sampler.get("identities_per_batch"), sampler.get("images_per_identity")
    size = loader.get("batch_size", 1)
    if isinstance(identities, int) and isinstance(images, int) and size != identities * images:
        raise ConfigError(
            f"{key}.batch_size is {size}, but its sampler fills batches with "
            f"identities_per_batch x images_per_identity = {identities} x {images}; set "
            f"batch_size to {identities * images}."
        )

    if "NegativeRatioSampler" in str(sampler.get("type")) and loader.get("batch_sampler"):
        raise ConfigError(
            f"{key}: its sampler negvision.NegativeRatioSampler gives every batch its share of "
            "images without an object, and batch_sampler would draw batches in another order; set "
            "batch_sampler=None"
        )


def _check_metainfo(metainfo: Any, loader: str) -> None:
    if not isinstance(metainfo, Mapping):
        return
    for name in metainfo:
        close = [] if name in _META_KEYS else nearest(str(name), _META_KEYS, 1, cutoff=0.8)
        if close:
            raise ConfigError(
                f"{loader}: nothing reads {name!r} of a data set's metainfo; write {close[0]!r}"
            )
    classes = metainfo.get("classes")
    if classes is None:
        return
    where = f"{loader}: classes of a data set's metainfo"
    if isinstance(classes, str):
        # MMEngine reads a text file of names.
        if "://" not in classes and not Path(classes).is_file():
            raise ConfigError(
                f"{where} is the text {classes!r}, and no file. Write a tuple, with a comma if "
                f"there is one class: classes=({classes!r},)"
            )
        return
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        raise ConfigError(f"{where} is {classes!r}; it must be a tuple of names: ('a', 'b')")
    if not classes:
        raise ConfigError(f"{where} is empty; name the classes, or leave it out")
    repeated = next((name for name in classes if classes.count(name) > 1), None)
    if repeated is not None:
        raise ConfigError(f"{where} has {repeated!r} twice; a label is a position in this list")


def _check_length(loop: Any) -> None:
    for key in ("max_epochs", "max_iters", "val_interval"):
        value = loop.get(key, 1) if isinstance(loop, Mapping) else 1
        if isinstance(value, int | float) and value < 1:
            hint = "; for no evaluation set val_dataloader = None" if key == "val_interval" else ""
            raise ConfigError(f"train_cfg.{key} is {value!r}; it must be at least 1{hint}")


def _check_schedules(cfg: Config) -> None:
    """Schedules that would not step once."""
    loop = cfg.get("train_cfg")
    in_iterations = isinstance(loop, Mapping) and (
        plain_name(loop.get("type")) in ("IterBasedTrainLoop", "IterTrainLoop")
        or ("type" not in loop and not loop.get("by_epoch", True))
    )
    for path, schedule in _typed(cfg.get("param_scheduler"), "param_scheduler"):
        by_epoch = schedule.get("by_epoch", True)
        if plain_name(schedule["type"]).startswith("ReduceOnPlateau"):
            if not by_epoch:
                raise ConfigError(
                    f"{path} follows evaluations, which MMEngine reports to schedules with "
                    "by_epoch=True only; with by_epoch=False it never acts. Leave by_epoch out"
                )
        elif in_iterations and by_epoch and not schedule.get("convert_to_iter_based"):
            raise ConfigError(
                f"{path} counts epochs, but the training counts iterations, so it would never "
                "act. Set by_epoch=False, and its numbers in iterations"
            )


def _typed(node: Any, path: str) -> Iterator[tuple[str, Mapping]]:
    if isinstance(node, Mapping):
        if "type" in node:
            yield path, node
        else:
            for key, value in node.items():
                yield from _typed(value, f"{path}.{key}")
    elif isinstance(node, list | tuple):
        for index, item in enumerate(node):
            yield from _typed(item, f"{path}.{index}")
