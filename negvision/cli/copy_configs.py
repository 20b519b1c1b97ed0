"""``negvision copy-configs``: copy the configs that ship with the package."""

import argparse
import shutil
import tempfile
from pathlib import Path

from negvision.errors import UserError

HELP = "copy the configs that ship with negvision into this folder"
DESCRIPTION = "Copy the configs that ship with negvision into a folder, to train with and to edit."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("configs"), metavar="DIR", help="a new folder (configs)"
    )


def run(args: argparse.Namespace) -> int:
    """Copy them; 0."""
    from negvision.engine.config.shipped import shipped_configs

    out, source = args.out, shipped_configs()
    if not source.is_dir():
        raise UserError(f"{source} does not exist: the installation is incomplete; reinstall")
    if out.exists():
        raise UserError(f"--out {out} already exists; name a new folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".configs.", dir=out.parent) as staging:
            new = Path(staging) / "configs"
            shutil.copytree(source, new, ignore=shutil.ignore_patterns("__pycache__"))
            new.rename(out)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror or error}") from None
    print(f"{sum(1 for _ in out.rglob('*.py'))} configs written to {out}")
    return 0
