"""Which versions of the stack are installed, which are incompatible, and how to fix that.

:func:`check_versions` only reads the metadata of installed distributions and is cheap;
:func:`check_imports` imports the stack.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

from packaging.utils import canonicalize_name
from packaging.version import Version

from negvision.compat.quiet import quiet_imports

MINIMUM_TORCH = "2.10"
TESTED_TORCH = "torch==2.11.0 torchvision==0.26.0"

# import name -> (distribution of the maintained continuation, distribution of upstream)
OPENMMLAB = {
    "mmengine": ("onedl-mmengine", "mmengine"),
    "mmcv": ("onedl-mmcv", "mmcv"),
    "mmdet": ("onedl-mmdetection", "mmdet"),
    "mmseg": ("onedl-mmsegmentation", "mmsegmentation"),
}

OPENCV = (
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python-headless",
    "opencv-contrib-python",
)


@dataclass(frozen=True)
class Finding:
    """One problem of an installation.

    Attributes:
        problem: what is wrong, with the versions that were found.
        remedy: what to do about it, usually a command.
    """

    problem: str
    remedy: str


def installed_distributions() -> dict[str, str]:
    """Version of every installed distribution, by its name in lower case with dashes."""
    installed = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            # Imports use the first folder on the path.
            installed.setdefault(canonicalize_name(name), distribution.version)
    return installed


def providers(import_name: str, installed: Mapping[str, str]) -> list[str]:
    """Installed distributions that provide one of ``OPENMMLAB``, such as ``mmdet``."""
    return [name for name in OPENMMLAB[import_name] if name in installed]


def build_mmcv_command(installed: Mapping[str, str] | None = None) -> str:
    """The command that builds the installed mmcv again, with its compiled operators."""
    installed = installed_distributions() if installed is None else installed
    distribution = (providers("mmcv", installed) or ["onedl-mmcv"])[0]
    version = f"=={installed[distribution]}" if distribution in installed else ""
    return (
        "MMCV_WITH_OPS=1 pip install --no-build-isolation --no-deps --force-reinstall "
        f"--no-cache-dir --no-binary {distribution} {distribution}{version}"
    )


def check_versions(installed: Mapping[str, str] | None = None) -> list[Finding]:
    """Every problem that the versions of the installed distributions show.

    Args:
        installed: version by distribution name, as :func:`installed_distributions` returns it;
            by default what is installed.

    Returns:
        The findings; empty if there is no problem.

    Example:
        >>> findings = check_versions({**installed_distributions(), "torch": "2.9.1"})
        >>> findings[0].problem
        'torch 2.9.1 is too old: negvision needs torch >= 2.10.'
    """
    installed = installed_distributions() if installed is None else installed
    return [
        *_check_openmmlab(installed),
        *_check_torch(installed),
        *_check_opencv(installed),
        *_check_coco(installed),
    ]


def check_imports(installed: Mapping[str, str] | None = None) -> list[Finding]:
    """Import those of torch, torchvision, mmengine, mmcv, mmdet and mmseg that are installed.

    Stops at the first that fails, since the later ones import it: at most one finding.
    """
    installed = installed_distributions() if installed is None else installed
    for name in ("torch", "torchvision", *OPENMMLAB):
        distributions = providers(name, installed) if name in OPENMMLAB else [name]
        if not any(distribution in installed for distribution in distributions):
            continue
        try:
            with quiet_imports():
                importlib.import_module(name)
        except Exception as error:  # a binary for another torch fails in many ways
            if name in OPENMMLAB:
                remedy = f"pip install --force-reinstall --no-deps {distributions[0]}"
            else:
                remedy = f"install a pair built together: pip install {TESTED_TORCH}"
            return [Finding(f"{name} does not import ({type(error).__name__}: {error}).", remedy)]
    return []


def _check_openmmlab(installed: Mapping[str, str]) -> list[Finding]:
    findings = []
    for import_name, (continuation, upstream) in OPENMMLAB.items():
        found = providers(import_name, installed)
        if not found:
            findings.append(
                Finding(f"{import_name} is not installed.", f"pip install {continuation}")
            )
        elif len(found) == 2:
            findings.append(
                Finding(
                    f"{continuation} {installed[continuation]} and {upstream} "
                    f"{installed[upstream]} are both installed: they write the same files "
                    f"({import_name}/), so their files are mixed.",
                    f"pip uninstall -y {upstream} {continuation} && "
                    f"pip install {continuation}=={installed[continuation]}",
                )
            )
    if (
        providers("mmengine", installed) == ["mmengine"]
        and Version(installed["mmengine"]) <= Version("0.10.7")
        and Version(installed.get("torch", "0")) >= Version("2.6")
    ):
        findings.append(
            Finding(
                f"mmengine {installed['mmengine']} cannot load its own checkpoints under torch "
                f"{installed['torch']} (torch >= 2.6 loads weights only).",
                "pip uninstall -y mmengine && pip install onedl-mmengine",
            )
        )
    return findings


def _check_torch(installed: Mapping[str, str]) -> list[Finding]:
    if "torch" not in installed:
        return [Finding("torch is not installed.", "pip install torch torchvision")]
    torch = Version(installed["torch"])
    findings = []
    if torch < Version(MINIMUM_TORCH):
        findings.append(
            Finding(
                f"torch {torch} is too old: negvision needs torch >= {MINIMUM_TORCH}.",
                f"pip install --upgrade 'torch>={MINIMUM_TORCH}' torchvision",
            )
        )
    if "torchvision" not in installed:
        return [*findings, Finding("torchvision is not installed.", _torchvision_command(torch))]
    torchvision = Version(installed["torchvision"])
    if torch.major == 2 and (torchvision.major, torchvision.minor) != (0, torch.minor + 15):
        findings.append(
            Finding(
                f"torchvision {torchvision} was built for another torch than {torch}.",
                _torchvision_command(torch),
            )
        )
    elif torch.local and torchvision.local and torch.local != torchvision.local:
        findings.append(
            Finding(
                f"torch {torch} and torchvision {torchvision} are builds for different devices "
                f"({torch.local} and {torchvision.local}).",
                "install both again from the same package index: "
                f"pip install --force-reinstall {TESTED_TORCH}",
            )
        )
    return findings


def _torchvision_command(torch: Version) -> str:
    """torchvision 0.(N + 15) goes with torch 2.N."""
    pin = f"==0.{torch.minor + 15}.*" if torch.major == 2 else ""
    return f"pip install --force-reinstall --no-deps 'torchvision{pin}'"


def _check_opencv(installed: Mapping[str, str]) -> list[Finding]:
    found = {name: installed[name] for name in OPENCV if name in installed}
    if not found:
        return [Finding("opencv is not installed.", "pip install opencv-python-headless")]
    if len(set(found.values())) == 1:
        return []
    newest = max(found.values(), key=Version)
    return [
        Finding(
            "opencv is installed more than once, in different versions that share one folder "
            f"(cv2/): {', '.join(f'{name} {version}' for name, version in found.items())}.",
            f"pip uninstall -y {' '.join(found)} && "
            f"pip install {' '.join(f'{name}=={newest}' for name in found)}",
        )
    ]


def _check_coco(installed: Mapping[str, str]) -> list[Finding]:
    return [
        Finding(f"{name} is not installed.", f"pip install {name}")
        for name in ("pycocotools", "faster-coco-eval")
        if name not in installed
    ]
