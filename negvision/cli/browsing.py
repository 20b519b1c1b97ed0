"""Reading the train set of a config, for the commands that draw it."""

import argparse
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from negvision.engine.config.check import check_config
from negvision.engine.config.data_files import check_data
from negvision.engine.prepare import prepare_config
from negvision.errors import ConfigError, UserError
from negvision.visualization.looking import evenly_spaced


def read_config(args: argparse.Namespace, folder: str) -> tuple[Config, Path]:
    """The checked config, and the folder to draw into, by default ``folder`` in the work dir.

    Raises:
        ConfigError: An error in the config, or it has no train set.
        MissingDataError: Files of the train set do not exist.
    """
    cfg = prepare_config(args)
    if not (cfg.get("train_dataloader") or {}).get("dataset"):
        raise ConfigError(f"config {args.config!r} has no train_dataloader with a dataset")
    check_config(cfg)
    check_data(cfg, ("train",))
    init_default_scope(cfg.get("default_scope") or "mmdet")
    return cfg, Path(args.out_dir or Path(cfg.work_dir) / folder)


def train_dataset(cfg: Config):
    """The train set of ``cfg``, with its pipeline."""
    return DATASETS.build(cfg.train_dataloader.dataset)


def chosen_indices(args: argparse.Namespace, size: int) -> list[int]:
    """``--indices``, else ``--num`` images spread over the dataset.

    Raises:
        UserError: An index is out of range, or the dataset has no images.
    """
    if not size:
        raise UserError("the train set has no images (do filters of the config drop them all?)")
    wrong = [index for index in args.indices or () if not 0 <= index < size]
    if wrong:
        raise UserError(f"--indices {wrong[0]}: the train set has images 0 to {size - 1}")
    return args.indices or evenly_spaced(size, args.num)


def image_path(folder: Path, index: int, name: str) -> Path:
    """``folder/000012_name.png``."""
    return folder / f"{index:06d}_{Path(name).stem}.png"
