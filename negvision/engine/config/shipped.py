"""Where the configs of the suite are: in a clone beside the package, in a wheel inside of it."""

from pathlib import Path

import negvision

# setup.py copies them there for a wheel; the dot keeps the folder from being a package.
IN_WHEEL = ".configs"


def shipped_configs() -> Path:
    """The folder ``configs`` of the suite, links followed."""
    package = Path(negvision.__file__).resolve().parent
    inside = package / IN_WHEEL
    return inside if inside.is_dir() else package.parent / "configs"
