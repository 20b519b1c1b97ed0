"""How many of MMDetection's and MMSegmentation's own configs pass negvision's config check.

    python benchmarks/stock_configs.py

The check builds nothing; it compares names and keys. Configs that cannot be read (a base or package
is missing) and rejected ones are listed with the reason.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from pathlib import Path

from harness import write_results

from negvision.engine.config.check import check_config
from negvision.engine.config.reading import load_config
from negvision.errors import ConfigError


def check_package(name: str) -> dict:
    """Counts and reasons for the configs of a package."""
    package = importlib.import_module(name)
    root = Path(package.__file__).parent / ".mim" / "configs"
    found = {"version": package.__version__, "passed": 0, "without_model": 0}
    found |= {"package_missing": {}, "refused": {}, "not_read": {}}
    for path in sorted(root.rglob("*.py")):
        if "_base_" in path.parts:
            continue
        where = path.relative_to(root).as_posix()
        try:
            cfg = load_config(path)
        except ConfigError as error:
            found["not_read"][where] = _reason(error, root)
            continue
        if "model" not in cfg:
            found["without_model"] += 1
            continue
        try:
            check_config(cfg)
            found["passed"] += 1
        except ConfigError as error:
            kind = "package_missing" if "is not installed" in str(error) else "refused"
            found[kind][where] = _reason(error, root)
    return found


def _reason(error: Exception, root: Path) -> str:
    # MMEngine appends sys.path and the traceback.
    return str(error).partition(", the current sys.path")[0].replace(f"{root}/", "")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", help="JSON file (default: benchmarks/results/stock_configs.json)")
    options = parser.parse_args(argv)
    logging.disable(logging.CRITICAL)
    packages = {name: check_package(name) for name in ("mmdet", "mmseg")}
    for name, found in packages.items():
        counts = {key: len(found[key]) for key in ("refused", "package_missing", "not_read")}
        print(
            f"{name} {found['version']}: {found['passed']} configs pass, {counts['refused']} are "
            f"refused; {counts['package_missing']} name a package that is not installed, "
            f"{counts['not_read']} are not read, {found['without_model']} have no model"
        )
        for where, reason in found["refused"].items():
            print(f"  {where}: {reason}")
    print(f"written to {write_results('stock_configs', packages, options.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
