"""What a user reads where something is missing, before anything is downloaded or compiled."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKE = shutil.which("make")
# What the Makefile's own commands need; neither Python nor a compiler.
SHELL_TOOLS = ("sh", "find", "cat", "echo", "cmp", "grep", "touch", "rm")

needs_make = pytest.mark.skipif(MAKE is None, reason="make is not installed")


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder that is a whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in SHELL_TOOLS:
        if path := shutil.which(name):
            (folder / name).symlink_to(path)
    return folder


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What ``make`` reads, in a folder without .venv."""
    clone = tmp_path / "clone"
    clone.mkdir()
    shutil.copytree(ROOT / "requirements", clone / "requirements")
    for name in ("Makefile", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    csrc = Path("negvision/ops/csrc")
    shutil.copytree(ROOT / csrc, clone / csrc)
    return clone


def _program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def _run(command: list[str], cwd: Path, path: Path | str, **variables: str):
    env = {"PATH": str(path), "HOME": str(cwd), **variables}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)


def _only_line(result: subprocess.CompletedProcess) -> str:
    assert result.returncode != 0
    [line] = (result.stdout + result.stderr).strip().splitlines()
    return line


OLD = {"python3": "exit 1"}  # runs the version test and fails it
WITHOUT_VENV = {"python3.11": 'case "$2" in *ensurepip*) exit 1;; *) exit 0;; esac'}  # Debian's
SOUND = {"python3.11": 'case "$2" in *ensurepip*) echo 1;; esac'}


@needs_make
@pytest.mark.parametrize(
    ("programs", "target", "messages"),
    [
        ({}, "quickstart", ["Python 3.11", "is missing", "apt install python3.11"]),
        ({}, "lint", ["Python 3.11", "is missing"]),
        (OLD, "test", ["Python 3.11, 3.12 or 3.13 is missing"]),
        (WITHOUT_VENV, "test", ["python3.11 lacks venv", "apt install python3.11-venv"]),
        (SOUND, "quickstart", ["A C++ compiler (g++) is missing", "apt install g++"]),
        (SOUND, "test", ["A C++ compiler (g++) is missing"]),
    ],
)
def test_make_names_what_is_missing_in_one_line(clone, tools, programs, target, messages):
    for name, text in programs.items():
        _program(tools, name, text)
    line = _only_line(_run([MAKE, target], clone, tools))
    assert all(message in line for message in messages), line
    assert not (clone / ".venv").exists()


@needs_make
def test_make_compiles_again_only_where_something_changed(clone, tools):
    """With a Python that only notes what it is asked to do."""
    note = f'case "$*" in *ensurepip*) echo 1;; *pip*) echo "$*" >> {clone}/calls;; esac'
    note += '\ncase "$*" in *\'-m venv\'*) mkdir -p .venv/bin; cp "$0" .venv/bin/python;; esac'
    _program(tools, "python3.11", note)
    for name in ("g++", "mkdir", "cp"):
        target = shutil.which(name)
        if target is None:
            pytest.skip(f"{name} is not installed")
        (tools / name).symlink_to(target)

    def calls_of_env(**variables: str) -> list[str]:
        (clone / "calls").unlink(missing_ok=True)
        result = _run([MAKE, "env"], clone, tools, **variables)
        assert result.returncode == 0, result.stderr
        calls = clone / "calls"
        return calls.read_text().splitlines() if calls.exists() else []

    def touch(path: Path) -> None:
        stamp = (clone / ".venv/operators").stat().st_mtime + 10
        os.utime(path, (stamp, stamp))

    install, build = calls_of_env()
    assert "-r requirements/dev.txt -c requirements/constraints.txt" in install
    assert "--no-build-isolation --no-deps -e ." in build
    assert calls_of_env() == []
    touch(clone / "negvision/ops/csrc/arithmetic.h")
    assert calls_of_env() == [build]
    os.utime(clone / ".venv/operators", None)
    os.utime(clone / "negvision/ops/csrc/arithmetic.h", (0, 0))
    assert calls_of_env() == []
    assert calls_of_env(NEGVISION_CUDA="1") == [build]  # another setting of CUDA


@needs_make
def test_make_help_names_every_target():
    command = [MAKE, "--no-print-directory", "help"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    shown = {line.split()[1] for line in result.stdout.splitlines()}
    assert shown == {
        "quickstart",
        "quickstart-face",
        "quickstart-ood",
        "test",
        "lint",
        "docs",
        "bench",
        "gpu",
        "clean",
    }


FAKE_TORCH = """
from types import SimpleNamespace
version, cuda = SimpleNamespace(cuda=None), SimpleNamespace(is_available=lambda: False)
"""
FAKE_EXTENSIONS = """
from setuptools import Extension
from setuptools.command.build_ext import build_ext as BuildExtension

def CppExtension(name, sources, **_):
    return Extension(name, sources, language="c++")

CUDAExtension = CppExtension
"""


@pytest.mark.parametrize("lacking", ["torch", "compiler", "sound compiler"])
def test_without_operators_setup_goes_on_unless_they_are_demanded(clone, tools, lacking):
    """Torch takes seconds to import; the little that setup.py needs of it is written here."""
    python, compiler = [sys.executable], str(tools / "g++")
    _program(tools, "g++", "exit 1")
    expected = "compiling them failed (CompileError"
    if lacking == "torch":
        # Without site-packages; of setuptools it needs two names.
        python.append("-S")
        (clone / "setuptools" / "command").mkdir(parents=True)
        (clone / "setuptools" / "__init__.py").write_text("def setup(**_): pass\n")
        (clone / "setuptools" / "command" / "build_py.py").write_text("build_py = object\n")
        expected = "torch is not installed where this build runs"
    else:
        (clone / "torch" / "utils").mkdir(parents=True)
        (clone / "torch" / "__init__.py").write_text(FAKE_TORCH)
        (clone / "torch" / "utils" / "cpp_extension.py").write_text(FAKE_EXTENSIONS)
    if lacking == "compiler":
        compiler, expected = "no-such-compiler", "there is no C++ compiler (no-such-compiler)"
    (clone / "negvision" / "__init__.py").write_text('__version__ = "0"\n')
    old = clone / "negvision" / "ops" / "_C.old.so"
    old.touch()

    def build(**variables: str) -> subprocess.CompletedProcess:
        command = [*python, "setup.py", "build_ext", "--inplace"]
        return _run(command, clone, os.environ["PATH"], CXX=compiler, **variables)

    done = build()
    assert done.returncode == 0, done.stderr
    assert f"installing without the compiled operators: {expected}" in done.stderr
    assert old.exists() == (lacking != "sound compiler")
    done = build(NEGVISION_COMPILE="1")
    assert done.returncode == 1
    assert f"negvision: NEGVISION_COMPILE=1, but {expected}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("nvcc", "torch_cuda", "reason"),
    [
        (None, "'13.0'", "nvcc is not found"),
        ("release 12.4, V12.4.99", "'13.0'", "nvcc is of CUDA 12.4"),
        ("release 13.0, V13.0.48", "None", "torch is built without CUDA"),
    ],
)
def test_forced_cuda_says_what_keeps_it(clone, tools, nvcc, torch_cuda, reason):
    (clone / "torch.py").write_text(f"class version:\n    cuda = {torch_cuda}\n")
    _program(tools, "g++", "exit 0")
    variables = {"FORCE_CUDA": "1"}
    if nvcc:
        (clone / "cuda" / "include").mkdir(parents=True)
        (clone / "cuda" / "bin").mkdir()
        _program(clone / "cuda" / "bin", "nvcc", f"echo '{nvcc}'")
        variables["CUDA_HOME"] = str(clone / "cuda")
    elif Path("/usr/local/cuda/bin/nvcc").exists():
        setup = (clone / "setup.py").read_text()
        (clone / "setup.py").write_text(setup.replace("/usr/local/cuda", "/nowhere/cuda"))
    result = _run([sys.executable, "setup.py", "build_ext"], clone, tools, **variables)
    line = _only_line(result)
    assert line.startswith("negvision: FORCE_CUDA=1, but") and reason in line
