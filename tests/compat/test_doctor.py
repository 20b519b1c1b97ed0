"""The doctor's report on sound and faulty machines."""

import importlib.machinery
import subprocess
import sys

import mmcv
import pytest

import negvision.ops
from negvision.cli import doctor
from negvision.cli.main import main
from negvision.compat.versions import Finding

COMPILED = {"loaded": True, "path": "/somewhere/_C.abi3.so", "cuda": True, "error": None}


@pytest.fixture
def sound(monkeypatch):
    """A machine without any problem, whatever this one is like."""
    monkeypatch.setattr(doctor, "check_versions", lambda installed: [])
    monkeypatch.setattr(doctor, "check_imports", lambda installed: [])
    monkeypatch.setattr(negvision.ops, "extension_info", lambda: dict(COMPILED), raising=False)
    monkeypatch.setattr(doctor, "_gpus", lambda: ["NVIDIA H200, 140 GiB, sm_90"])
    monkeypatch.setattr(doctor, "_driver", lambda: "580.65.06")
    return monkeypatch


def run(capsys):
    code = main(["doctor"])
    return code, capsys.readouterr().out


def test_a_sound_machine(sound, capsys):
    code, out = run(capsys)
    assert code == 0
    assert out.endswith("No problems found.\n")
    for label in ("Python", "torch", "torchvision", "mmengine", "mmcv", "mmdet", "mmseg",
                  "pycocotools", "faster-coco-eval", "opencv", "negvision.ops", "mmcv._ext",
                  "nvcc"):  # fmt: skip
        assert any(line.startswith(f"  {label} ") for line in out.splitlines()), label
    assert "NVIDIA H200, 140 GiB, sm_90" in out
    assert "580.65.06" in out
    assert "compiled for CPU and CUDA  (/somewhere/_C.abi3.so)" in out


def test_version_problems_are_printed_with_remedies(sound, capsys):
    sound.setattr(doctor, "check_versions", lambda installed: [Finding("Old.", "pip a")])
    sound.setattr(doctor, "check_imports", lambda installed: [Finding("Broken.", "pip b")])
    code, out = run(capsys)
    assert code == 1
    assert out.endswith("2 problems\n  1. Old.\n     -> pip a\n  2. Broken.\n     -> pip b\n")


def test_kernels_that_are_not_compiled(sound, capsys):
    info = {"loaded": False, "path": None, "cuda": False, "error": "undefined symbol: aoti"}
    sound.setattr(negvision.ops, "extension_info", lambda: info, raising=False)
    code, out = run(capsys)
    assert code == 1
    assert "not compiled (undefined symbol: aoti)" in out
    assert "-> pip install --no-build-isolation -e ." in out


def test_kernels_without_cuda_are_a_problem_beside_a_gpu_only(sound, capsys):
    info = {**COMPILED, "cuda": False}
    sound.setattr(negvision.ops, "extension_info", lambda: info, raising=False)
    code, out = run(capsys)
    assert code == 1 and "FORCE_CUDA=1 pip install" in out
    sound.setattr(doctor, "_gpus", list)
    sound.setattr(doctor, "_driver", lambda: None)
    code, out = run(capsys)
    assert code == 0 and "everything runs on the CPU" in out


def test_a_gpu_that_torch_cannot_use(sound, capsys):
    sound.setattr(doctor, "_gpus", list)
    sound.setattr(doctor, "_torch_cuda", lambda: "13.0")
    code, out = run(capsys)
    assert code == 1
    assert "torch (built for CUDA 13.0) cannot use the GPU of driver 580.65.06" in out
    sound.setattr(doctor, "_torch_cuda", lambda: None)
    code, out = run(capsys)
    assert code == 1
    assert "this torch is built without CUDA" in out


def test_the_substitute_is_named(sound, substituted_mmcv, capsys):
    _, out = run(capsys)
    assert "negvision's, on torchvision's kernels" in out
    assert "mmcv_ext" in out


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
    code = "import sys; from negvision.cli.main import main; sys.exit(main(['doctor']))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    last = result.stdout.splitlines()[-1]
    assert result.returncode == (0 if last == "No problems found." else 1), result.stderr
    assert result.stdout.startswith("Versions\n  negvision ")
    assert "OneDL" not in result.stdout
