"""The source distribution and the wheel: what is in them, and that the wheel works by itself."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import negvision
from negvision.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
FEW = """
_base_ = "configs/quickstart/atss_digits.py"
digits = dict(train=12, val=4, test=2, test_ood=2)
train_dataloader = dict(dataset=dict(digits=digits))
val_dataloader = dict(dataset=dict(digits=digits))
train_cfg = dict(max_iters=2, val_interval=2)
"""
NOT_SOURCES = {"build", "data", "dist", "negvision.egg-info", "site", "work_dirs"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("build") is None, reason="build is not installed"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed"),
]


def _run(command: list, cwd: Path, **variables: str) -> str:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**env, **variables},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """The source distribution of a copy of the sources, and the wheel that is built from it."""
    source = tmp_path_factory.mktemp("source")
    skipped = shutil.ignore_patterns("__pycache__", "*.so")
    for path in ROOT.iterdir():
        if path.name.startswith(".") or path.name in NOT_SOURCES:
            continue
        if path.is_dir():
            shutil.copytree(path, source / path.name, ignore=skipped)
        else:
            shutil.copy(path, source)
    dist = tmp_path_factory.mktemp("dist")
    scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # ninja
    compiler = tmp_path_factory.mktemp("compiler") / "g++"
    compiler.write_text('#!/bin/sh\nexec g++ "$@" -O0\n')  # whose own speed counts here
    compiler.chmod(0o755)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, "."]
    _run(command, source, NEGVISION_CUDA="0", PATH=scripts, CXX=str(compiler))
    found = {path.suffix: path for path in dist.iterdir()}
    assert set(found) == {".gz", ".whl"}
    return found


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """``bin`` of an environment with the wheel, and the dependencies of the one that runs this."""
    folder = tmp_path_factory.mktemp("environment")
    _run([sys.executable, "-m", "venv", "--without-pip", folder], folder)
    python = folder / "bin" / "python"
    site = Path(_run([python, "-c", "import site; print(site.getsitepackages()[0])"], folder)[:-1])
    # Files *.pth in that folder are not read, so the editable negvision of it is not seen.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps"]
    _run([*pip, "--no-index", "--ignore-installed", built[".whl"]], folder)
    return folder / "bin"


def _sources(*folders: str, suffix: str = "*.py") -> set[str]:
    found = (path for folder in folders for path in (ROOT / folder).rglob(suffix))
    return {path.relative_to(ROOT).as_posix() for path in found}


def test_wheel_holds_the_package_its_operators_and_the_configs(built):
    names = set(zipfile.ZipFile(built[".whl"]).namelist())
    assert _sources("negvision") <= names
    assert {"negvision/py.typed", "negvision/__init__.pyi"} <= names
    assert f"negvision-{negvision.__version__}-" in built[".whl"].name
    assert {f"negvision/.{name}" for name in _sources("configs")} <= names
    assert {"negvision/ops/_C.abi3.so", "negvision/report/templates/ood_page.html"} <= names
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"negvision"}
    # Sources of the operators and caches stay out.
    endings = (".cpp", ".cu", ".h", ".pyc")
    assert not [name for name in names if name.endswith(endings)]
    assert "-cp310-abi3-" in built[".whl"].name


def test_source_distribution_holds_all_that_is_needed_to_build_and_test(built):
    with tarfile.open(built[".gz"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = ("negvision", "configs", "tests", "tools", "benchmarks")
    assert _sources(*folders) <= names
    assert _sources("docs", suffix="*.md") | _sources("requirements", suffix="*.txt") <= names
    assert _sources("negvision/ops/csrc", suffix="*.*") <= names
    assert {
        "Makefile",
        "conftest.py",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "SECURITY.md",
        "zensical.toml",
    } <= names
    assert not [name for name in names if name.endswith((".pyc", ".so"))]


def test_every_command_starts_from_the_wheel_alone(installed, tmp_path):
    code = (
        "import negvision, negvision.ops\n"
        "from negvision import ATSSAssigner, Inferencer, UNPGLoss\n"
        "from negvision.cli.main import COMMANDS\n"
        "print(negvision.__file__, negvision.ops.extension_info()['loaded'], len(COMMANDS))"
    )
    where, loaded, count = _run([installed / "python", "-c", code], tmp_path).split()
    assert Path(where).is_relative_to(installed.parent)
    assert (loaded, count) == ("True", str(len(COMMANDS)))


def test_quick_start_from_the_wheel_in_an_empty_folder(installed, tmp_path):
    negvision = installed / "negvision"
    shown = _run([negvision, "copy-configs"], tmp_path)
    assert shown == f"{len(_sources('configs'))} configs written to configs\n"
    # The whole of what a user does, with fewer iterations and pictures.
    (tmp_path / "few.py").write_text(FEW)
    _run([negvision, "train", "few.py"], tmp_path, NEGVISION_DATA="data")
    assert (tmp_path / "work_dirs" / "few" / "iter_2.pth").is_file()
    assert len(list((tmp_path / "data" / "digits" / "train").iterdir())) == 12
