"""``negvision check-dataset CONFIG``: read all data of a config and report what is at fault."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope
from tqdm import tqdm

from negvision.data.check.check import DataCheck
from negvision.data.check.report import as_data, as_text
from negvision.engine.config.check import check_config
from negvision.engine.config.data_files import check_data, leaf_datasets
from negvision.engine.config.reading import add_looking_arguments
from negvision.engine.prepare import prepare_config
from negvision.engine.quiet import captured_pycocotools, log_of_reading_hidden
from negvision.errors import ConfigError, MissingDataError, UserError, reports_user_errors

_SPLITS = ("train", "val", "test")
_INTERRUPTED = 130


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="negvision check-dataset",
        description="Read every sample of a config's data sets as training would, and report what "
        "is at fault. Exit status: 0 without a fault, 1 with faults, 2 after a user error, 130 "
        "where Ctrl-C ended it.",
    )
    parser.add_argument("config", help="config file, e.g. configs/atss_r50.py")
    parser.add_argument(
        "--split",
        nargs="+",
        choices=_SPLITS,
        help="what to read (default: all that the config has)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that load samples; 0: this one alone (default: one a core)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the findings as JSON as well")
    add_looking_arguments(parser)
    return parser.parse_args(argv)


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Check and report; the exit status that ``--help`` tells."""
    args = _parse(argv)
    workers = _cores() if args.workers is None else args.workers
    if workers < 0:
        raise UserError(f"--workers {workers}: 0 or more processes")
    cfg = prepare_config(args)
    check_config(cfg)
    check = DataCheck(_datasets(cfg, args))
    if args.json:
        _check_writable(Path(args.json))
    init_default_scope(cfg.get("default_scope") or "mmdet")
    with captured_pycocotools(), log_of_reading_hidden():
        check.run(workers, _bar)
    print(as_text(check))
    if args.json:
        text = json.dumps({"config": args.config, **as_data(check)}, indent=1)
        Path(args.json).write_text(text + "\n")
    if check.interrupted:
        return _INTERRUPTED
    return 1 if check.number_of_faults else 0


def _datasets(cfg: Config, args: argparse.Namespace) -> list[tuple[str, dict]]:
    """(split, config) of all datasets that are to be read.

    Raises:
        ConfigError: There is none.
        MissingDataError: The files of all of them are missing; of some, loading says so.
    """
    found, missing = [], []
    splits = args.split or _SPLITS
    for split in splits:
        leaves = list(leaf_datasets((cfg.get(f"{split}_dataloader") or {}).get("dataset")))
        if args.split and not leaves:
            raise ConfigError(
                f"config {args.config!r} has no {split}_dataloader with a dataset, and --split "
                "names it"
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


def _cores() -> int:
    """Those that this process may use, where the system tells."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


def _bar(samples, scan):
    # disable=None: the bar shows on a terminal only.
    label = f"{', '.join(scan.splits)} {Path(scan.source).name}"
    return tqdm(samples, desc=label, total=scan.total, leave=False, disable=None, unit="img")


def _check_writable(path: Path) -> None:
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"--json {path}: cannot be written; is its folder there?")
