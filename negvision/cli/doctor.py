"""``negvision doctor``: what is installed and compiled, and what to do about each problem."""

import argparse
import importlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys

from negvision import __version__
from negvision.compat.finder import SubstituteLoader
from negvision.compat.versions import (
    PROVIDERS,
    Finding,
    build_mmcv_command,
    check_imports,
    check_versions,
    installed_distributions,
    providers,
)

HELP = "list versions, compiled kernels and GPUs, and what to do about problems"
_BUILD_COMMAND = "pip install --no-build-isolation -e .   (in the clone of negvision)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print the report; 0, or 1 if there is a problem."""
    installed = installed_distributions()
    findings = check_versions(installed) + check_imports(installed)
    python = f"{platform.python_version()}  ({sys.executable})"
    rows = {"negvision": __version__, "Python": python}
    for module in PROVIDERS:
        found = [f"{installed[name]}  ({name})" for name in providers(module, installed)]
        rows[module] = ", ".join(found) or "not installed"
    gpus, cuda = _torch_devices()
    rows["negvision.ops"] = _own_kernels(findings, bool(gpus))
    rows["mmcv._ext"] = _mmcv_kernels(findings, installed)
    driver = _driver()
    rows["CPU cores"] = str(os.cpu_count())
    rows["GPU"] = "\n".join(gpus) or "none that torch can use; everything runs on the CPU"
    rows["CUDA of torch"] = cuda or "none"
    rows["driver"] = driver or "none"
    rows["nvcc"] = _nvcc() or "none  (needed only to compile CUDA kernels)"
    if driver and not gpus:
        findings.append(_unusable_gpu(driver, cuda))
    width = max(map(len, rows))
    for label, value in rows.items():
        print(f"{label:<{width}}  {value.replace(chr(10), chr(10) + ' ' * (width + 2))}")
    print(f"\nproblems: {len(findings)}" if findings else "\nNo problems found.")
    for number, finding in enumerate(findings, start=1):
        print(f"  {number}. {finding.problem}\n     -> {finding.remedy}")
    return 1 if findings else 0


def _own_kernels(findings: list[Finding], has_gpu: bool) -> str:
    try:
        from negvision.ops import extension_info

        info = extension_info()
    except ImportError as error:  # without torch there are no operators either
        info = {"loaded": False, "cuda": False, "error": str(error)}
    if info["error"] == "NEGVISION_PURE=1":
        return "plain PyTorch is used, since NEGVISION_PURE=1 is set"
    if not info["loaded"] and sys.platform == "win32":
        return "not compiled, which has not been tried on Windows; plain PyTorch is used"
    if not info["loaded"]:
        reason = f" ({info['error']})" if info["error"] else ""
        problem = f"negvision's kernels are not compiled{reason}: plain PyTorch is used, slowly."
        findings.append(Finding(problem, _BUILD_COMMAND))
        return "not compiled"
    if has_gpu and not info["cuda"]:
        problem = "negvision's kernels are compiled for the CPU only, but there is a GPU."
        findings.append(Finding(problem, f"with nvcc on PATH: FORCE_CUDA=1 {_BUILD_COMMAND}"))
    return f"compiled for {'CPU and CUDA' if info['cuda'] else 'CPU'}  ({info['path']})"


def _mmcv_kernels(findings: list[Finding], installed: dict[str, str]) -> str:
    try:
        spec = importlib.util.find_spec("mmcv._ext")
    except Exception:  # mmcv is missing or broken, which is reported already
        spec = None
    if spec is None:
        return "not available: mmcv does not import"
    if isinstance(spec.loader, SubstituteLoader):
        return f"negvision's, on torchvision's kernels  ({spec.origin})"
    try:
        importlib.import_module("mmcv._ext")
    except Exception as error:
        problem = f"mmcv's compiled operators do not load ({type(error).__name__}: {error})."
        remedy = f"build them for this torch: {build_mmcv_command(installed)}"
        findings.append(Finding(problem, remedy))
        return f"compiled, but does not load  ({spec.origin})"
    return f"compiled  ({spec.origin})"


def _torch_devices() -> tuple[list[str], str | None]:
    """The GPUs that torch can use, and the CUDA version it was built for."""
    try:
        import torch
    except Exception:  # which is reported already
        return [], None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_properties(index) for index in range(count)]
    shown = [f"{g.name}, {g.total_memory / 2**30:.0f} GiB, sm_{g.major}{g.minor}" for g in gpus]
    return shown, torch.version.cuda


def _driver() -> str | None:
    """Version of the NVIDIA driver, if there is one with a GPU."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.partition("\n")[0].strip() if done.returncode == 0 else None


def _nvcc() -> str | None:
    toolkit = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc") or shutil.which("nvcc", path=f"{toolkit}/bin")


def _unusable_gpu(driver: str, cuda: str | None) -> Finding:
    if cuda is None:
        problem = "this torch is built without CUDA, and there is a GPU."
        return Finding(problem, "install torch and torchvision from the CUDA index of pytorch.org")
    problem = f"torch (built for CUDA {cuda}) cannot use the GPU of driver {driver}."
    remedy = (
        f"update the driver to one for CUDA {cuda}, or install a torch built for an older CUDA; "
        "check that CUDA_VISIBLE_DEVICES is not empty"
    )
    return Finding(problem, remedy)
