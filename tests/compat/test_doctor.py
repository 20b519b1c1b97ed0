"""The doctor's report on sound and faulty machines."""

import importlib.machinery
import re
import subprocess
import sys

import mmcv
import pytest

import negvision.ops
from negvision.cli import doctor
from negvision.cli.main import main
from negvision.compat.versions import PROVIDERS, Finding

COMPILED = {"loaded": True, "path": "/somewhere/_C.abi3.so", "cuda": True, "error": None}
FAILED = {"loaded": False, "path": None, "cuda": False, "error": "undefined symbol: aoti"}


@pytest.fixture
def sound(monkeypatch):
    """A machine without any problem, whatever this one is like."""
    monkeypatch.setattr(doctor, "check_versions", lambda installed: [])
    monkeypatch.setattr(doctor, "check_imports", lambda installed: [])
    monkeypatch.setattr(negvision.ops, "extension_info", lambda: COMPILED, raising=False)
    monkeypatch.setattr(doctor, "_torch_devices", lambda: (["NVIDIA H200", "NVIDIA L4"], "13.0"))
    monkeypatch.setattr(doctor, "_driver", lambda: "580.65.06")
    return monkeypatch


def run(capsys):
    code = main(["doctor"])
    return code, capsys.readouterr().out


def test_a_sound_machine(sound, capsys):
    code, out = run(capsys)
    assert code == 0
    assert out.endswith("No problems found.\n")
    for label in ("Python", *PROVIDERS, "negvision.ops", "mmcv._ext", "nvcc"):
        assert any(line.startswith(f"{label} ") for line in out.splitlines()), label
    assert re.search("\nGPU +NVIDIA H200\n +NVIDIA L4\n", out)
    assert "580.65.06" in out
    assert "compiled for CPU and CUDA  (/somewhere/_C.abi3.so)" in out


def test_version_problems_are_printed_with_remedies(sound, capsys):
    sound.setattr(doctor, "check_versions", lambda installed: [Finding("Old.", "pip a")])
    sound.setattr(doctor, "check_imports", lambda installed: [Finding("Broken.", "pip b")])
    code, out = run(capsys)
    assert code == 1
    assert out.endswith("problems: 2\n  1. Old.\n     -> pip a\n  2. Broken.\n     -> pip b\n")


@pytest.mark.parametrize(
    ("info", "devices", "driver", "status", "message"),
    [
        (FAILED, (["L4"], "13.0"), "580", 1, "not compiled (undefined symbol: aoti)"),
        ({**COMPILED, "cuda": False}, (["L4"], "13.0"), "580", 1, "FORCE_CUDA=1 pip install"),
        ({**COMPILED, "cuda": False}, ([], None), None, 0, "everything runs on the CPU"),
        (COMPILED, ([], "13.0"), "580", 1, "(built for CUDA 13.0) cannot use the GPU of driver"),
        (COMPILED, ([], None), "580", 1, "this torch is built without CUDA"),
    ],
)
def test_kernels_and_gpus(sound, capsys, info, devices, driver, status, message):
    sound.setattr(negvision.ops, "extension_info", lambda: info, raising=False)
    sound.setattr(doctor, "_torch_devices", lambda: devices)
    sound.setattr(doctor, "_driver", lambda: driver)
    code, out = run(capsys)
    assert code == status and message in out


def test_the_substitute_is_named(sound, substituted_mmcv, capsys):
    _, out = run(capsys)
    assert "negvision's, on torchvision's kernels" in out and "mmcv_ext" in out


@pytest.mark.parametrize("loads", [True, False])
def test_a_compiled_mmcv_is_named(sound, capsys, tmp_path, loads):
    path = tmp_path / "_ext.py"
    path.write_text("" if loads else "raise ImportError('undefined symbol: _ZN3c10')")
    loader = importlib.machinery.SourceFileLoader("mmcv._ext", str(path))
    spec = importlib.machinery.ModuleSpec("mmcv._ext", loader, origin=str(path))

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            return spec if name == "mmcv._ext" else None

    # monkeypatch puts back what was there before; the fake itself is taken out below.
    sound.setattr(mmcv, "_ext", None, raising=False)
    sound.delitem(sys.modules, "mmcv._ext", raising=False)
    sound.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    code, out = run(capsys)
    sys.modules.pop("mmcv._ext", None)
    if loads:
        assert code == 0 and f"compiled  ({path})" in out
    else:
        assert code == 1
        assert "do not load (ImportError: undefined symbol: _ZN3c10)" in out
        assert "MMCV_WITH_OPS=1 pip install" in out


def test_a_missing_mmcv_does_not_stop_the_report(sound, capsys):
    sound.delitem(sys.modules, "mmcv._ext", raising=False)
    sound.setitem(sys.modules, "mmcv", None)
    _, out = run(capsys)
    assert "not available: mmcv does not import" in out


def test_this_machine():
    done = subprocess.run(
        [sys.executable, "-m", "negvision", "doctor"], capture_output=True, text=True, timeout=600
    )
    last = done.stdout.splitlines()[-1]
    assert done.returncode == (0 if last == "No problems found." else 1), done.stderr
    assert done.stdout.startswith("negvision ")
    assert "OneDL" not in done.stdout
