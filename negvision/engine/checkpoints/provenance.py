"""The versions of libraries and the commit of the code that wrote a checkpoint."""

import functools
import platform
import subprocess
from pathlib import Path

import negvision
from negvision.compat.versions import PROVIDERS, installed_distributions, providers


@functools.cache
def provenance() -> dict:
    """``versions`` by import name, and ``git``: the commit of negvision's clone, or None.

    ``+changes`` after the commit means that files differ from it.
    """
    versions = {"negvision": negvision.__version__, "python": platform.python_version()}
    installed = installed_distributions()
    versions["numpy"] = installed["numpy"]
    for module in PROVIDERS:
        for name in providers(module, installed):
            versions.setdefault(module, installed[name])
    return {"versions": versions, "git": _commit()}


def _commit() -> str | None:
    folder = Path(negvision.__file__).parent
    commit = _git(folder, "rev-parse", "HEAD")
    # An installed package may be inside the repository of another project.
    if commit is None or _git(folder, "ls-files", "__init__.py") in (None, ""):
        return None
    return commit + ("+changes" if _git(folder, "status", "--porcelain", "-uno") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
