"""``negvision doctor``: what is installed and compiled, and what to do about each problem."""

import argparse
import importlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from negvision import __version__
from negvision.compat.finder import SubstituteLoader
from negvision.compat.versions import (
    OPENCV,
    OPENMMLAB,
    Finding,
    build_mmcv_command,
    check_imports,
    check_versions,
    installed_distributions,
    providers,
)

BUILD_COMMAND = "pip install --no-build-isolation -e .   (in the clone of negvision)"

HELP = "versions, compiled kernels, GPUs, and what to do about problems"
DESCRIPTION = "List versions, compiled kernels and GPUs, and say what to do about each problem."

Rows = list[tuple[str, str]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print the report; 0, or 1 if there is a problem."""
    report, findings = examine()
    print(report)
    return 1 if findings else 0


def examine() -> tuple[str, list[Finding]]:
    """The report, ready to print, and the problems in it."""
    installed = installed_distributions()
    findings = check_versions(installed) + check_imports(installed)
    sections = {"Versions": _versions(installed)}
    for title, examine_section in (("Kernels", _kernels), ("Devices", _devices)):
        sections[title], found = examine_section()
        findings += found

    lines = []
    width = max(len(label) for rows in sections.values() for label, _ in rows)
    for title, rows in sections.items():
        lines += [title, *(f"  {label:<{width}}  {value}" for label, value in rows), ""]
    if findings:
        lines.append(f"{len(findings)} problem{'s' if len(findings) > 1 else ''}")
        for number, finding in enumerate(findings, start=1):
            lines += [f"  {number}. {finding.problem}", f"     -> {finding.remedy}"]
    else:
        lines.append("No problems found.")
    return "\n".join(lines), findings


def _versions(installed: dict[str, str]) -> Rows:
    rows = [
        ("negvision", __version__),
        ("Python", f"{platform.python_version()}  ({sys.executable})"),
    ]
    for name in ("torch", "torchvision"):
        rows.append((name, installed.get(name, "not installed")))
    groups = {name: providers(name, installed) for name in OPENMMLAB}
    groups |= {"pycocotools": ["pycocotools"], "faster-coco-eval": ["faster-coco-eval"]}
    groups["opencv"] = [name for name in OPENCV if name in installed]
    for label, distributions in groups.items():
        found = [
            installed[name] + ("" if name == label else f"  ({name})")
            for name in distributions
            if name in installed
        ]
        rows.append((label, ", ".join(found) or "not installed"))
    return rows


def _kernels() -> tuple[Rows, list[Finding]]:
    rows, findings = [], []
    for label, examine_kernels in (("negvision.ops", _own_kernels), ("mmcv._ext", _mmcv_kernels)):
        value, found = examine_kernels()
        rows.append((label, value))
        findings += found
    return rows, findings


def _own_kernels() -> tuple[str, list[Finding]]:
    try:
        from negvision.ops import extension_info

        info = extension_info()
    except ImportError as error:  # without torch there are no operators either
        info = {"loaded": False, "path": None, "cuda": False, "error": str(error)}
    if not info["loaded"]:
        reason = f" ({info['error']})" if info["error"] else ""
        problem = f"negvision's kernels are not compiled{reason}: plain PyTorch is used, slowly."
        return "not compiled", [Finding(problem, BUILD_COMMAND)]
    value = f"compiled for {'CPU and CUDA' if info['cuda'] else 'CPU'}  ({info['path']})"
    if not info["cuda"] and _gpus():
        problem = "negvision's kernels are compiled for the CPU only, but there is a GPU."
        return value, [Finding(problem, f"with nvcc on PATH: FORCE_CUDA=1 {BUILD_COMMAND}")]
    return value, []


def _mmcv_kernels() -> tuple[str, list[Finding]]:
    try:
        spec = importlib.util.find_spec("mmcv._ext")
    except Exception:  # mmcv is missing or broken; the other sections report it
        return "not available: mmcv does not import", []
    if isinstance(spec.loader, SubstituteLoader):
        return f"negvision's, on torchvision's kernels  ({Path(spec.origin).parent})", []
    try:
        importlib.import_module("mmcv._ext")
    except Exception as error:
        distribution = (providers("mmcv", installed_distributions()) or ["onedl-mmcv"])[0]
        return f"compiled, but does not load  ({spec.origin})", [
            Finding(
                f"mmcv's compiled operators do not load ({type(error).__name__}: {error}).",
                f"use negvision's: pip uninstall -y {distribution} && pip install {distribution}"
                f"; or build them for this torch: {build_mmcv_command()}",
            )
        ]
    return f"compiled  ({spec.origin})", []


def _devices() -> tuple[Rows, list[Finding]]:
    rows, findings = [], []
    gpus, driver = _gpus(), _driver()
    torch_cuda = _torch_cuda()
    rows.append(("CPU cores", str(os.cpu_count())))
    for index, description in enumerate(gpus):
        rows.append((f"GPU {index}", description))
    if not gpus:
        rows.append(("GPU", "none that torch can use; everything runs on the CPU"))
    if driver and not gpus:
        if torch_cuda:
            problem = f"torch (built for CUDA {torch_cuda}) cannot use the GPU of driver {driver}."
            remedy = (
                f"update the driver to one for CUDA {torch_cuda}, or install a torch built for "
                "an older CUDA; check that CUDA_VISIBLE_DEVICES is not empty"
            )
        else:
            problem = "this torch is built without CUDA, and there is a GPU."
            remedy = "install torch and torchvision again, from the CUDA index of pytorch.org"
        findings.append(Finding(problem, remedy))
    rows.append(("CUDA of torch", torch_cuda or "none"))
    rows.append(("driver", driver or "none"))
    rows.append(("nvcc", _nvcc() or "none  (needed only to compile CUDA kernels)"))
    return rows, findings


def _gpus() -> list[str]:
    """A description of each GPU that torch can use."""
    try:
        import torch
    except Exception:  # the imports report it
        return []
    if not torch.cuda.is_available():
        return []
    descriptions = []
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        memory = gpu.total_memory / 2**30
        descriptions.append(f"{gpu.name}, {memory:.0f} GiB, sm_{gpu.major}{gpu.minor}")
    return descriptions


def _torch_cuda() -> str | None:
    try:
        import torch
    except Exception:  # the imports report it
        return None
    return torch.version.cuda


def _driver() -> str | None:
    """Version of the NVIDIA driver, if there is one with a GPU."""
    output = _output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return output.splitlines()[0].strip() if output else None


def _nvcc() -> str | None:
    in_cuda_home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / "nvcc"
    path = shutil.which("nvcc") or shutil.which(in_cuda_home)
    if path is None:
        return None
    release = re.search(r"release ([\d.]+)", _output_of(path, "--version") or "")
    return f"{release.group(1) if release else 'of unknown version'}  ({path})"


def _output_of(*command: str) -> str | None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
