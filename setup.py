"""Build ``negvision/ops/_C.abi3.so``; everything else is in pyproject.toml.

The extension is a plain library of operators on torch's stable ABI: one file serves every
torch >= 2.10 and Python >= 3.10. It is not a Python module, so Python's headers are not needed.
Where it cannot be built, the package is installed without it and computes in plain PyTorch.

    NEGVISION_COMPILE=1    build the library, or fail with the reason
    NEGVISION_COMPILE=0    do not build it
    NEGVISION_CUDA=0       build without the CUDA kernels
    FORCE_CUDA=1           build them, or fail with the reason
    CUDA_HOME              the CUDA toolkit, if nvcc is not on PATH
    TORCH_CUDA_ARCH_LIST   architectures, e.g. "8.0;9.0" (default: the GPUs of this machine)
    MAX_JOBS               parallel compile jobs
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CSRC = Path("negvision/ops/csrc")
TORCH_2_10 = "0x020a000000000000"  # the oldest torch whose stable ABI is used
# For a build machine without a GPU: Turing, Ampere and Ada, Hopper, and PTX for later GPUs.
DEFAULT_ARCHITECTURES = "7.5;8.0;9.0+PTX"
DEMAND = os.environ.get("NEGVISION_COMPILE", "")
# The variable that forbids to go on without the library, "" without one.
DEMANDED = next(
    (f"{name}=1" for name in ("NEGVISION_COMPILE", "FORCE_CUDA") if os.environ.get(name) == "1"), ""
)


def find_cuda_home() -> Path | None:
    """The CUDA toolkit's folder, with ``bin/nvcc`` and ``include/``, or None."""
    candidates = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    if nvcc := shutil.which("nvcc"):
        # An nvcc on PATH may be a link or a wrapper script; a dry run prints the real folder.
        dry_run = subprocess.run(
            [nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True
        )
        top = re.search(r"^#\$ TOP=(.+)$", dry_run.stdout + dry_run.stderr, re.MULTILINE)
        candidates += [top and top.group(1), Path(nvcc).resolve().parents[1]]
    candidates.append("/usr/local/cuda")
    for candidate in filter(None, candidates):
        home = Path(candidate).resolve()
        if (home / "bin" / "nvcc").exists() and (home / "include").is_dir():
            return home
    return None


def why_not_cuda(cuda_home: Path | None, torch_cuda: str | None) -> str | None:
    """Why the CUDA kernels cannot be compiled, or None if they can."""
    if torch_cuda is None:
        return "torch is built without CUDA: install torch and torchvision from a CUDA index"
    if cuda_home is None:
        return "nvcc is not found: put it on PATH, or set CUDA_HOME to the CUDA toolkit"
    version = subprocess.check_output([cuda_home / "bin" / "nvcc", "--version"], text=True)
    release = re.search(r"release ((\d+)\.\d+)", version)
    if release and release.group(2) != torch_cuda.split(".")[0]:
        return (
            f"nvcc is of CUDA {release.group(1)} ({cuda_home}) and torch of CUDA {torch_cuda}: "
            "set CUDA_HOME to a toolkit of torch's major version"
        )
    return None


def with_cuda(cuda_home: Path | None, torch_cuda: str | None) -> bool:
    """Whether to compile the CUDA kernels; exits if they are required but cannot be built."""
    if os.environ.get("NEGVISION_CUDA") == "0":
        return False
    reason = why_not_cuda(cuda_home, torch_cuda)
    if reason and os.environ.get("FORCE_CUDA") == "1":
        sys.exit(f"negvision: FORCE_CUDA=1, but {reason}.")
    if reason:
        print(f"negvision: compiling for the CPU only: {reason}.")
    return reason is None


def why_not_compile() -> str | None:
    """Why the library is not built, or None; chooses the C++ compiler, ``$CXX`` or g++."""
    if DEMAND == "0":
        return "NEGVISION_COMPILE=0"
    if sys.platform == "win32" and not DEMANDED:
        return "it has not been tried on Windows; NEGVISION_COMPILE=1 tries"
    if importlib.util.find_spec("torch") is None:
        return (
            "torch is not installed where this build runs: install torch first, then build with "
            "pip's --no-build-isolation"
        )
    compiler = os.environ.get("CXX") or "g++"
    if sys.platform == "win32":
        return None  # distutils finds Visual C++
    if not shutil.which(compiler.split()[0]):
        return (
            f"there is no C++ compiler ({compiler}). Install g++ (Debian, Ubuntu: apt install "
            "g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install) or set CXX to one"
        )
    # Python may have been built with a compiler that this machine lacks.
    os.environ["CXX"] = compiler
    if sys.platform == "linux":
        os.environ.setdefault("LDCXXSHARED", f"{compiler} -shared")
    return None


def give_up(reason: str) -> None:
    """Say that the library is not built; exits if it was demanded."""
    if DEMANDED:
        sys.exit(f"negvision: {DEMANDED}, but {reason}.")
    print(
        f"negvision: installing without the compiled operators: {reason}.\n"
        "negvision: plain PyTorch computes the same results, more slowly.",
        file=sys.stderr,
    )


def extension(cuda: bool):
    """The extension's sources and flags."""
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    sources = sorted(CSRC.rglob("*.cpp"))
    flags = ["-O3", "-std=c++17", f"-DTORCH_TARGET_VERSION={TORCH_2_10}"]
    if cuda:
        sources += sorted(CSRC.rglob("*.cu"))
        # torch's headers declare their CUDA functions under USE_CUDA.
        flags += ["-DNEGVISION_WITH_CUDA", "-DUSE_CUDA"]
    return (CUDAExtension if cuda else CppExtension)(
        "negvision.ops._C",
        [str(source) for source in sources],
        # Absolute: the compilers run in the build folder.
        include_dirs=[str(CSRC.resolve())],
        # A change of these triggers a rebuild; all are in the source distribution.
        depends=[str(path) for path in sorted(CSRC.rglob("*")) if path.suffix in (".h", ".cu")],
        py_limited_api=True,
        extra_compile_args={
            # Fused multiply-adds round differently and could change an assignment. Nothing reads
            # the floating-point exception flags or errno, and setting them blocks vectorization.
            "cxx": [
                *flags,
                "-Wall",
                "-fvisibility=hidden",
                "-ffp-contract=off",
                "-fno-trapping-math",
                "-fno-math-errno",
            ],
            "nvcc": [*flags, "--fmad=false", "-Xcompiler=-fvisibility=hidden,-ffp-contract=off"],
        },
    )


def build_options() -> dict:
    """What ``setup`` gets in order to build the library; nothing if it is not built."""
    if reason := why_not_compile():
        give_up(reason)
        return {}
    import torch

    toolkit = find_cuda_home()
    cuda = with_cuda(toolkit, torch.version.cuda)
    if cuda:
        os.environ["CUDA_HOME"] = str(toolkit)
        if not torch.cuda.is_available():
            os.environ.setdefault("TORCH_CUDA_ARCH_LIST", DEFAULT_ARCHITECTURES)

    from torch.utils.cpp_extension import BuildExtension  # reads CUDA_HOME

    class Build(BuildExtension):
        """Replaces the library by a new file, since a running process may have mapped the old one.

        A failure ends the build only if the library was demanded.
        """

        def run(self) -> None:
            try:
                super().run()
            except Exception as error:
                remove_libraries()  # an old one may not fit the sources
                give_up(f"compiling them failed ({type(error).__name__}: {error})")
                self.extensions = []

        def copy_extensions_to_source(self) -> None:
            remove_libraries()
            super().copy_extensions_to_source()

    return {"ext_modules": [extension(cuda)], "cmdclass": {"build_ext": Build}}


def remove_libraries() -> None:
    for old in Path("negvision/ops").glob("_C*.so"):
        old.unlink()


class BuildPy(build_py):
    """Copies the configs into the package, as ``negvision/.configs``."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # an editable install reads those of the clone
            target = Path(self.build_lib, "negvision", ".configs")
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree("configs", target, ignore=shutil.ignore_patterns("__pycache__"))


options = build_options()
setup(
    ext_modules=options.get("ext_modules", []),
    cmdclass={"build_py": BuildPy, **options.get("cmdclass", {})},
    exclude_package_data={"": ["*.cpp", "*.cu", "*.h"]},  # sources stay out of wheels
    # Without the library the wheel is for every Python and platform.
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if options else {},
)
