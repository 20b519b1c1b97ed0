"""``negvision copy-configs``: write the suite's configs where an installed package is used."""

import argparse
import shutil
import tempfile
from pathlib import Path

from negvision.engine.config.shipped import shipped_configs
from negvision.errors import UserError, reports_user_errors


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="negvision copy-configs",
        description="Write the configs of the suite into a folder, to train with and to change.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("configs"), metavar="DIR", help="a new folder (configs)"
    )
    return parser.parse_args(argv)


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Copy them; 0, or 2 after a user error, which is printed."""
    out = _parse(argv).out
    source = shipped_configs()
    if not source.is_dir():
        raise UserError(f"{source} does not exist: this installation is incomplete; install again")
    if out.exists():
        raise UserError(f"--out {out} is there already; name a new folder")
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
