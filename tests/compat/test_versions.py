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
    "ultrafast-pycocotools": "0.1.14",
}
UPSTREAM = {
    **{name: version for name, version in SOUND.items() if not name.startswith("onedl")},
    "mmengine": "0.10.8",
    "mmcv": "2.1.0",
    "mmdet": "3.3.0",
    "mmsegmentation": "1.2.2",
}


@pytest.mark.parametrize(
    "installed",
    [
        SOUND,
        UPSTREAM,
        {**SOUND, "torch": "2.11.0+cu130", "torchvision": "0.26.0+cu130"},
        {**SOUND, "torch": "2.10.0", "torchvision": "0.25.1"},
        {**SOUND, "torch": "2.13.0+cpu", "torchvision": "0.28.0"},
        {**SOUND, "torch": "2.15.0+cu132", "torchvision": "0.29.2+cu132"},
        {name: version for name, version in SOUND.items() if name != "opencv-python"},
    ],
)
def test_sound_installations_have_no_findings(installed):
    assert check_versions(installed) == []


@pytest.mark.parametrize(
    ("changes", "problem", "remedy"),
    [
        (
            {"mmcv": "2.1.0"},
            "onedl-mmcv 2.3.6 and mmcv 2.1.0 are both installed",
            "pip uninstall -y onedl-mmcv mmcv && pip install onedl-mmcv==2.3.6",
        ),
        ({"mmsegmentation": "1.2.2"}, "same files (mmseg/)", "install onedl-mmsegmentation==1.4.2"),
        ({"onedl-mmdetection": None}, "mmdet is not installed", "pip install onedl-mmdetection"),
        ({"torch": "2.9.1", "torchvision": "0.24.1"}, "2.9.1 is too old", "torch==2.11.0"),
        ({"torchvision": "0.25.0"}, "for another torch than 2.11.0", "'torchvision==0.26.*'"),
        ({"torch": "2.11.0+cu130", "torchvision": "0.26.0+cpu"}, "0.26.0+cpu was", "package index"),
        ({"torchvision": None}, "torchvision is not installed", "pip install torchvision"),
        ({"torch": None}, "torch is not installed", "pip install torch"),
        ({"opencv-python": "4.10.0.84"}, "opencv-python 4.10.0.84", "headless==4.12.0.88"),
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


def test_build_command_names_what_is_installed():
    assert build_mmcv_command(SOUND).endswith("--no-binary onedl-mmcv onedl-mmcv==2.3.6")
    assert build_mmcv_command(UPSTREAM).endswith("--no-binary mmcv mmcv==2.1.0")
    assert build_mmcv_command({}).endswith("--no-binary onedl-mmcv onedl-mmcv")


def test_this_installation_is_found_and_imports():
    assert {"ultrafast-pycocotools", "torch"} <= set(installed_distributions())
    assert check_imports(installed_distributions()) == []


@pytest.mark.parametrize(
    ("module", "error", "remedy"),
    [
        ("torch", OSError("libcudart.so.13: cannot open"), "torch==2.11.0 torchvision==0.26.0"),
        ("cv2", ImportError("libGL.so.1"), "--no-deps opencv-python-headless"),
        ("mmdet", AssertionError("MMCV==2.2.0 is used but incompatible"), "onedl-mmdetection"),
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
    name = type(error).__name__
    assert finding.problem == f"{module} does not import ({name}: {error})."
    assert remedy in finding.remedy
    assert imported[-1] == module
