"""Each problem of an installation is found once, with a remedy; a sound one has none."""

import importlib
import sys

import pytest

from negvision.compat.versions import (
    build_mmcv_command,
    check_imports,
    check_versions,
    installed_distributions,
)

SOUND = {
    "torch": "2.11.0",
    "torchvision": "0.26.0",
    "onedl-mmengine": "0.10.12",
    "onedl-mmcv": "2.3.6",
    "onedl-mmdetection": "3.5.1",
    "onedl-mmsegmentation": "1.4.2",
    "opencv-python-headless": "4.12.0.88",
    "opencv-python": "4.12.0.88",
    "pycocotools": "2.0.11",
    "faster-coco-eval": "1.8.0",
}
UPSTREAM = {
    **{name: version for name, version in SOUND.items() if not name.startswith("onedl")},
    "mmengine": "0.10.8",
    "mmcv": "2.1.0",
    "mmdet": "3.3.0",
    "mmsegmentation": "1.2.2",
}


def without(*names):
    return {name: version for name, version in SOUND.items() if name not in names}


@pytest.mark.parametrize(
    "installed",
    [
        SOUND,
        UPSTREAM,
        {**SOUND, "torch": "2.11.0+cu130", "torchvision": "0.26.0+cu130"},
        {**SOUND, "torch": "2.10.0", "torchvision": "0.25.1"},
        {**SOUND, "torch": "2.13.0+cpu", "torchvision": "0.28.0"},
        without("opencv-python"),
    ],
)
def test_sound_installations_have_no_findings(installed):
    assert check_versions(installed) == []


BOTH = "are both installed"


@pytest.mark.parametrize(
    ("changes", "problem", "remedy"),
    [
        ({"mmcv": "2.1.0"}, f"onedl-mmcv 2.3.6 and mmcv 2.1.0 {BOTH}", "&& pip install onedl-mmcv"),
        ({"mmdet": "3.3.0"}, BOTH, "pip uninstall -y mmdet onedl-mmdetection"),
        ({"mmsegmentation": "1.2.2"}, "same files (mmseg/)", "mmsegmentation onedl-mmsegmentation"),
        ({"mmengine": "0.10.7"}, BOTH, "pip uninstall -y mmengine onedl-mmengine"),
        ({"onedl-mmdetection": None}, "mmdet is not installed", "pip install onedl-mmdetection"),
        ({"torch": "2.9.1", "torchvision": "0.24.1"}, "2.9.1 is too old", "'torch>=2.10'"),
        ({"torchvision": "0.25.0"}, "for another torch than 2.11.0", "'torchvision==0.26.*'"),
        ({"torch": "2.11.0+cu130", "torchvision": "0.26.0+cpu"}, "(cu130 and cpu)", "same package"),
        ({"torchvision": None}, "torchvision is not installed", "'torchvision==0.26.*'"),
        ({"torch": None}, "torch is not installed", "pip install torch torchvision"),
        ({"opencv-python": "4.10.0.84"}, "opencv-python 4.10.0.84", "opencv-python==4.12.0.88"),
        ({"pycocotools": None}, "pycocotools is not installed", "pip install pycocotools"),
    ],
)
def test_each_problem_is_found_with_its_remedy(changes, problem, remedy):
    installed = {name: value for name, value in {**SOUND, **changes}.items() if value}
    [finding] = check_versions(installed)
    assert problem in finding.problem and remedy in finding.remedy


def test_mmengine_that_cannot_load_its_checkpoints():
    [finding] = check_versions({**UPSTREAM, "mmengine": "0.10.7"})
    assert "mmengine 0.10.7 cannot load its own checkpoints" in finding.problem


def test_several_problems_are_all_found():
    installed = {**SOUND, "mmcv": "2.1.0", "mmdet": "3.3.0", "opencv-python": "4.10.0.84"}
    assert len(check_versions({**installed, "torch": "2.9.0"})) == 5


def test_names_are_normalized():
    installed = installed_distributions()
    assert "faster-coco-eval" in installed and "torch" in installed
    assert all(name == name.lower() and "_" not in name for name in installed)


def test_build_command_names_what_is_installed():
    assert build_mmcv_command(SOUND).endswith("--no-binary onedl-mmcv onedl-mmcv==2.3.6")
    assert build_mmcv_command(UPSTREAM).endswith("--no-binary mmcv mmcv==2.1.0")
    assert build_mmcv_command({}).endswith("--no-binary onedl-mmcv onedl-mmcv")


def test_the_stack_imports():
    assert check_imports() == []


@pytest.mark.parametrize(
    ("module", "error", "remedy"),
    [
        ("torchvision", RuntimeError("operator torchvision::nms does not exist"), "torch==2.11.0"),
        ("torch", OSError("libcudart.so.13: cannot open"), "torch==2.11.0 torchvision==0.26.0"),
        ("mmcv", ImportError("libGL.so.1"), "--no-deps onedl-mmcv"),
        ("mmdet", AssertionError("MMCV==2.2.0 is used but incompatible"), "onedl-mmdetection"),
        ("mmseg", AssertionError("MMCV==2.3.6 is used but incompatible"), "onedl-mmsegmentation"),
    ],
)
def test_the_first_import_that_fails_is_the_finding(monkeypatch, module, error, remedy):
    imported = []

    def import_module(name):
        imported.append(name)
        if name == module:
            raise error
        return sys.modules.get(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    [finding] = check_imports(SOUND)
    assert finding.problem.startswith(f"{module} does not import ({type(error).__name__}: ")
    assert str(error) in finding.problem
    assert remedy in finding.remedy
    assert imported[-1] == module


def test_missing_packages_are_not_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "mmdet", None)  # an import would raise
    assert check_imports(without("onedl-mmdetection")) == []
