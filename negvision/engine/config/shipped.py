"""Where the shipped configs are: beside the package in a clone, inside it in a wheel."""

from pathlib import Path

import negvision

# setup.py copies them there for a wheel; the dot keeps the folder from being a package.
IN_WHEEL = ".configs"


def shipped_configs() -> Path:
    """The folder ``configs``, with links resolved."""
    package = Path(negvision.__file__).resolve().parent
    inside = package / IN_WHEEL
    return inside if inside.is_dir() else package.parent / "configs"
