"""``negvision check-dataset CONFIG``: read all data of a config and report every problem."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from negvision.cli.arguments import add_config, add_data_arguments, count
from negvision.errors import ConfigError, MissingDataError

if TYPE_CHECKING:
    from mmengine.config import Config

HELP = "read all data of a config and report every problem"
DESCRIPTION = (
    "Read every sample of a config's datasets as training would, and report every problem. Exit "
    "status: 0 without problems, 1 with problems, 2 after a user error, 130 after Ctrl-C."
)
_SPLITS = ("train", "val", "test")
_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_config(parser)
    add("--split", nargs="+", choices=_SPLITS, help="what to read (default: all splits)")
    workers = "processes that load samples; 0: this one only (default: one per core)"
    add("--workers", type=count, metavar="N", help=workers)
    add("--json", metavar="FILE", help="also write the findings as JSON")
    add_data_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Check and report; the exit status that ``--help`` lists."""
    from mmengine.registry import init_default_scope
    from tqdm import tqdm

    from negvision.compat.patches import captured_pycocotools
    from negvision.data.check.check import DataCheck
    from negvision.data.check.report import as_data, as_text
    from negvision.engine.config.check import check_config
    from negvision.engine.prepare import prepare_config
    from negvision.engine.quiet import log_of_reading_hidden
    from negvision.files import atomic_write, check_writable

    def bar(samples, scan):
        label = f"{', '.join(scan.splits)} {Path(scan.source).name}"
        return tqdm(samples, desc=label, total=scan.total, leave=False, disable=None, unit="img")

    cfg = prepare_config(args)
    check_config(cfg)
    check = DataCheck(_datasets(cfg, args))
    # macOS has no affinities.
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if args.json:
        check_writable(Path(args.json))
    init_default_scope(cfg.get("default_scope") or "mmdet")
    with captured_pycocotools(), log_of_reading_hidden():
        check.run(cores if args.workers is None else args.workers, bar)
    print(as_text(check))
    if args.json:
        text = json.dumps({"config": args.config, **as_data(check)}, indent=1)
        with atomic_write(args.json) as partial:
            partial.write_text(text + "\n")
    if check.interrupted:
        return _INTERRUPTED
    return 1 if check.number_of_problems else 0


def _datasets(cfg: Config, args: argparse.Namespace) -> list[tuple[str, dict]]:
    """(split, config) of all datasets to read.

    Raises:
        ConfigError: There is none.
        MissingDataError: The files of all of them are missing. If only some are missing, loading
            reports it.
    """
    from negvision.engine.config.data_files import check_data, leaf_datasets

    found, missing = [], []
    for split in args.split or _SPLITS:
        leaves = list(leaf_datasets((cfg.get(f"{split}_dataloader") or {}).get("dataset")))
        if args.split and not leaves:
            raise ConfigError(
                f"--split {split}: config {args.config!r} has no {split}_dataloader with a dataset"
            )
        if leaves:
            try:
                check_data(cfg, (split,))
            except MissingDataError as error:
                missing.append(error)
            found.append((split, leaves))
    if not found:
        raise ConfigError(f"config {args.config!r} has no dataloader with a dataset")
    if len(missing) == len(found):
        raise missing[0]
    return [(split, leaf) for split, leaves in found for leaf in leaves]
