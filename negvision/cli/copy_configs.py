"""``negvision copy-configs``: copy the configs that ship with the package."""

import argparse
import shutil
from pathlib import Path

from negvision.errors import UserError
from negvision.files import staged

HELP = "copy the configs that ship with negvision, to train with and to edit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("configs"), metavar="DIR", help="a new folder (configs)"
    )


def run(args: argparse.Namespace) -> int:
    """Copy them; 0."""
    from negvision.engine.config.shipped import shipped_configs

    out, source = args.out, shipped_configs()
    if out.exists():
        raise UserError(f"--out {out} already exists; name a new folder")
    try:
        with staged(out.parent) as folder:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / out.name, ignore=ignored)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror or error}") from None
    print(f"{sum(1 for _ in out.rglob('*.py'))} configs written to {out}")
    return 0
