"""docs/add-a-component.md: its component trains, its test passes and can fail."""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

PAGE = (ROOT / "docs" / "add-a-component.md").read_text()
DIGITS = """
digits = dict(train=8, val=2, test=2, test_ood=2)
train_dataloader = dict(dataset=dict(digits=digits))
val_dataloader = dict(dataset=dict(digits=digits))
train_cfg = dict(max_iters=2, val_interval=2)
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """A user's folder with the three files of the page."""
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        (tmp_path / block.splitlines()[0].removeprefix("# ")).write_text(block)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path


def run(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.mark.slow
def test_its_test_passes_and_can_fail(folder):
    done = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_parts.py")
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout
    source = (folder / "my_parts.py").read_text()
    (folder / "my_parts.py").write_text(source.replace("largest=False", "largest=True"))
    done = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_parts.py")
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout


@pytest.mark.slow
def test_its_config_trains_and_misspelled_arguments_are_reported(folder):
    text = (folder / "nearest.py").read_text() + DIGITS
    (folder / "nearest.py").write_text(text.replace("topk=5", "top_k=5"))
    command = ("-m", "negvision", "train", "nearest.py")
    done = run(folder, *command, NEGVISION_DATA="data")
    assert done.returncode == 2
    assert "NearestAssigner takes no argument 'top_k'; nearest: 'topk'" in done.stderr
    (folder / "nearest.py").write_text(text)
    done = run(folder, *command, NEGVISION_DATA="data")
    assert done.returncode == 0, done.stdout + done.stderr
    (scalars,) = folder.glob("work_dirs/nearest/*/vis_data/scalars.json")
    assert '"largest_weight"' in scalars.read_text() and '"loss_bbox"' in scalars.read_text()


def test_its_example_runs(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    import my_parts

    results = doctest.testmod(my_parts)
    assert results.attempted == 4 and not results.failed
