"""What the commands that draw train images of a config share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negvision.cli.arguments import add_config, add_data_arguments, positive_int
from negvision.cli.output import progress_bar
from negvision.errors import ConfigError, UserError

if TYPE_CHECKING:
    import numpy as np
    from mmengine.config import Config

    Draw = Callable[[Config, Any, Iterable[int]], Iterator[tuple[int, str, np.ndarray]]]


def add_browsing_arguments(parser: argparse.ArgumentParser, folder: str) -> None:
    add_config(parser)
    add = parser.add_argument
    add("--num", type=positive_int, default=16, help="images, evenly spread (default: 16)")
    add("--indices", type=int, nargs="+", metavar="I", help="images of the dataset, from 0")
    where = f"folder to draw into (default: work_dirs/<config>/{folder})"
    add("--out", metavar="DIR", help=where)
    add_data_arguments(parser)


def save_drawings(args: argparse.Namespace, folder: str, draw: Draw) -> str:
    """Save drawings of the chosen train images; a line that names the folder.

    Args:
        folder: To draw into, in the work dir.
        draw: Called with the config, its train set and indices; yields the index, name and drawing
            of images.

    Raises:
        ConfigError: An error in the config, or it has no train set.
        MissingDataError: Files of the train set do not exist.
        UserError: An index is out of range, or the train set has no images.
    """
    import torch
    from mmengine.registry import DATASETS, init_default_scope

    from negvision.compat.patches import captured_pycocotools
    from negvision.engine.config.check import check_config
    from negvision.engine.config.data_files import check_data
    from negvision.engine.prepare import prepare_config
    from negvision.visualization import save_image
    from negvision.visualization.looking import evenly_spaced, seeded

    cfg = prepare_config(args)
    if not (cfg.get("train_dataloader") or {}).get("dataset"):
        raise ConfigError(f"config {args.config!r} has no train_dataloader with a dataset")
    check_config(cfg)
    check_data(cfg, ("train",))
    init_default_scope(cfg.get("default_scope") or "mmdet")
    out = Path(args.out or Path(cfg.work_dir) / folder)
    files = set()
    # Seeded, so that random augmentations give the same images every time.
    with captured_pycocotools(), seeded(0), torch.no_grad():
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        size = len(dataset)
        if not size:
            raise UserError("the train set has no images (do filters of the config drop them all?)")
        wrong = [index for index in args.indices or () if not 0 <= index < size]
        if wrong:
            raise UserError(f"--indices {wrong[0]}: the train set has images 0 to {size - 1}")
        indices = progress_bar(args.indices or evenly_spaced(size, args.num), "images")
        for index, name, image in draw(cfg, dataset, indices):
            file = out / f"{index:06d}_{Path(name).stem}.png"
            save_image(file, image)
            files.add(file)
    return f"\nimages  {out}/ ({len(files)} files)"
