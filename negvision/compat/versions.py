"""Which versions of the stack are installed, which do not fit together, and how to fix that."""

import importlib
from collections.abc import Mapping
from importlib import metadata
from typing import NamedTuple

from packaging.utils import canonicalize_name
from packaging.version import Version

from negvision.compat.quiet import quiet_imports

MINIMUM_TORCH = "2.10"
TESTED_TORCH = "torch==2.11.0 torchvision==0.26.0"
OPENCV = (
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python-headless",
    "opencv-contrib-python",
)
# Each module that negvision needs, and the distributions that provide it, the preferred one first.
PROVIDERS = {
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "cv2": OPENCV,
    "pycocotools": ("pycocotools",),
    "ultrafast_pycocotools": ("ultrafast-pycocotools",),
    "mmengine": ("onedl-mmengine", "mmengine"),
    "mmcv": ("onedl-mmcv", "mmcv"),
    "mmdet": ("onedl-mmdetection", "mmdet"),
    "mmseg": ("onedl-mmsegmentation", "mmsegmentation"),
}


class Finding(NamedTuple):
    """A problem of an installation, and what to do about it, usually a command."""

    problem: str
    remedy: str


def installed_distributions() -> dict[str, str]:
    """Version of every installed distribution, by its name in lower case with dashes."""
    installed = {}
    for distribution in metadata.distributions():
        if name := distribution.metadata["Name"]:
            # Imports use the first folder on the path.
            installed.setdefault(canonicalize_name(name), distribution.version)
    return installed


def providers(module: str, installed: Mapping[str, str]) -> list[str]:
    """The installed distributions that provide one of ``PROVIDERS``."""
    return [name for name in PROVIDERS[module] if name in installed]


def build_mmcv_command(installed: Mapping[str, str]) -> str:
    """The command that builds the installed mmcv again, with its compiled operators."""
    name = next(iter(providers("mmcv", installed)), "onedl-mmcv")
    version = f"=={installed[name]}" if name in installed else ""
    return (
        "MMCV_WITH_OPS=1 pip install --no-build-isolation --no-deps --force-reinstall "
        f"--no-cache-dir --no-binary {name} {name}{version}"
    )


def check_versions(installed: Mapping[str, str]) -> list[Finding]:
    """Find the problems that the versions of the installed distributions show.

    Example:
        >>> findings = check_versions({**installed_distributions(), "torch": "2.9.1"})
        >>> findings[0].problem
        'torch 2.9.1 is too old: negvision needs torch >= 2.10.'
    """
    findings = _check_torch(installed)
    for module, names in PROVIDERS.items():
        found = providers(module, installed)
        if not found:
            findings.append(Finding(f"{module} is not installed.", f"pip install {names[0]}"))
            continue
        # Builds of OpenCV with equal versions hold the same files.
        if len(found) == 1 or (module == "cv2" and len({installed[name] for name in found}) == 1):
            continue
        shown = " and ".join(f"{name} {installed[name]}" for name in found)
        problem = f"{shown} are both installed: they write the same files ({module}/)."
        install = f"pip install {found[0]}=={installed[found[0]]}"
        findings.append(Finding(problem, f"pip uninstall -y {' '.join(found)} && {install}"))
    if (
        providers("mmengine", installed) == ["mmengine"]
        and Version(installed["mmengine"]) <= Version("0.10.7")
        and Version(installed.get("torch", "0")) >= Version("2.6")
    ):
        problem = (
            f"mmengine {installed['mmengine']} cannot load its own checkpoints under torch "
            f"{installed['torch']} (torch >= 2.6 loads weights only)."
        )
        remedy = "pip uninstall -y mmengine && pip install onedl-mmengine"
        findings.append(Finding(problem, remedy))
    return findings


def _check_torch(installed: Mapping[str, str]) -> list[Finding]:
    if "torch" not in installed:
        return []
    torch = Version(installed["torch"])
    if torch < Version(MINIMUM_TORCH):
        problem = f"torch {torch} is too old: negvision needs torch >= {MINIMUM_TORCH}."
        return [Finding(problem, f"pip install --upgrade {TESTED_TORCH}")]
    if "torchvision" not in installed or torch.major != 2:
        return []
    torchvision = Version(installed["torchvision"])
    # torchvision 0.(N + 15) goes with torch 2.N; builds for a device, with one for the same.
    fits = torchvision.release[:2] == (0, torch.minor + 15)
    # From 0.29.2 on one build is for every torch >= 2.14, as its metadata say.
    fits = fits or (torchvision >= Version("0.29.2") and torch >= Version("2.14"))
    if fits and (torch.local == torchvision.local or not (torch.local and torchvision.local)):
        return []
    problem = f"torchvision {torchvision} was built for another torch than {torch}."
    wanted = f"'torchvision==0.{torch.minor + 15}.*'"
    remedy = f"pip install --force-reinstall --no-deps {wanted}, from the package index of torch"
    return [Finding(problem, remedy)]


def check_imports(installed: Mapping[str, str]) -> list[Finding]:
    """Import the installed modules of ``PROVIDERS``; the first that fails is the only finding."""
    for module in PROVIDERS:
        found = providers(module, installed)
        if not found:
            continue
        try:
            with quiet_imports():
                importlib.import_module(module)
        except Exception as error:  # a binary for another torch fails in many ways
            wanted = TESTED_TORCH if module.startswith("torch") else f"--no-deps {found[0]}"
            problem = f"{module} does not import ({type(error).__name__}: {error})."
            return [Finding(problem, f"pip install --force-reinstall {wanted}")]
    return []
