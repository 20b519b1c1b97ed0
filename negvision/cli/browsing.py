"""What the commands share that draw images of a config's train set."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from negvision.engine.config.check import check_config
from negvision.engine.config.data_files import check_data
from negvision.engine.config.reading import add_looking_arguments
from negvision.engine.prepare import prepare_config
from negvision.errors import ConfigError, UserError
from negvision.visualization.looking import evenly_spaced


def browsing_parser(command: str, description: str, folder: str) -> argparse.ArgumentParser:
    """A parser with the arguments of every browsing command."""
    parser = argparse.ArgumentParser(prog=f"negvision {command}", description=description)
    parser.add_argument("config", help="config file, e.g. configs/atss_r50.py")
    parser.add_argument("--num", type=int, default=16, help="images, evenly spread (default: 16)")
    parser.add_argument(
        "--indices", type=int, nargs="+", metavar="I", help="images of the dataset, from 0"
    )
    parser.add_argument(
        "--out-dir", help=f"folder of the pictures (default: work_dirs/<config>/{folder})"
    )
    add_looking_arguments(parser)
    parser.set_defaults(folder=folder)
    return parser


def read_config(args: argparse.Namespace) -> tuple[Config, Path]:
    """The checked config, and the folder to write pictures into.

    Raises:
        ConfigError: a fault of the config, or it has no train set.
        MissingDataError: files of the train set do not exist.
        UserError: ``--num`` below 1.
    """
    if args.num < 1:
        raise UserError(f"--num {args.num}: at least 1 image")
    cfg = prepare_config(args)
    if not (cfg.get("train_dataloader") or {}).get("dataset"):
        raise ConfigError(f"config {args.config!r} has no train_dataloader with a dataset")
    check_config(cfg)
    check_data(cfg, ("train",))
    init_default_scope(cfg.get("default_scope") or "mmdet")
    return cfg, Path(args.out_dir or Path(cfg.work_dir) / args.folder)


def train_dataset(cfg: Config):
    """The train set of ``cfg``, with its pipeline."""
    return DATASETS.build(cfg.train_dataloader.dataset)


def chosen_indices(args: argparse.Namespace, size: int) -> list[int]:
    """``--indices``, else ``--num`` images spread over the dataset.

    Raises:
        UserError: an index out of range, or a dataset without images.
    """
    if not size:
        raise UserError("the train set has no images (do filters of the config drop them all?)")
    wrong = [index for index in args.indices or () if not 0 <= index < size]
    if wrong:
        raise UserError(f"--indices {wrong[0]}: the train set has images 0 to {size - 1}")
    return args.indices or evenly_spaced(size, args.num)


def picture_path(folder: Path, index: int, name: str) -> Path:
    """``folder/000012_name.png``."""
    return folder / f"{index:06d}_{Path(name).stem}.png"


def text_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns of equal width: the first to the left, the others to the right."""
    cells = [list(map(str, row)) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if column == 0 else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )
