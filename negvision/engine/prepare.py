"""From a command line to a runner, in the same order for every command."""

import logging
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import RUNNERS

from negvision.compat.patches import (
    format_each_config_once,
    refuse_empty_datasets,
    replace_category_lookup,
)
from negvision.data.formats.coco_file import check_order
from negvision.engine.checkpoints.loading import install_loaders
from negvision.engine.checkpoints.packaged import require_packages
from negvision.engine.config.check import check_config, check_packages
from negvision.engine.config.data_files import check_data, replace_data_root
from negvision.engine.config.options import check_training_options
from negvision.engine.config.reading import load_config, parse_options, set_work_dir
from negvision.engine.config.settings import check_settings
from negvision.engine.file_handlers import install_file_handlers
from negvision.engine.machine_errors import require_writable
from negvision.engine.memory_format import keep_freed_memory
from negvision.engine.quiet import silence_idle_warnings
from negvision.engine.runner import Runner
from negvision.errors import DatasetError


def prepare_config(args) -> Config:
    """The config of ``args``, with the options common to all commands applied.

    Args:
        args: ``config``, ``cfg_options`` (a list of ``KEY=VALUE``), ``work_dir``, ``data_root``,
            ``launcher`` and ``trust_checkpoint``.
    """
    silence_idle_warnings()
    refuse_empty_datasets(DatasetError)
    format_each_config_once()
    install_loaders(trust=args.trust_checkpoint)
    install_file_handlers(trust=args.trust_checkpoint)
    cfg = load_config(args.config, parse_options(args.cfg_options))
    cfg.launcher = args.launcher
    set_work_dir(cfg, args.work_dir)
    if args.data_root is not None:
        replace_data_root(cfg, args.data_root)
    return cfg


def build_runner(cfg: Config, splits: tuple[str, ...]) -> Runner:
    """Check ``cfg`` and the data of ``splits``, then build the runner it describes.

    Args:
        cfg: Changed: see :func:`negvision.engine.config.settings.check_settings`.
        splits: Of ``"train"``, ``"val"`` and ``"test"``; the config must have the first.
    """
    check_config(cfg)
    check_settings(cfg, splits)
    check_packages(cfg, splits)
    if "train" in splits:
        check_training_options(cfg)
        require_packages([cfg.get("model"), cfg.get("load_from")])
    check_data(cfg, splits)
    if "train" in splits:
        require_writable(cfg.work_dir)
        keep_freed_memory()
    replace_category_lookup(_check_order)
    if "runner_type" in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


def _check_order(categories: Sequence[dict], classes: Sequence[str]) -> None:
    warning = check_order(categories, classes)
    if warning:
        print_log(warning, logger="current", level=logging.WARNING)
