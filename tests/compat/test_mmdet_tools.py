"""Configs with negvision's components train under mmdetection's own tools/train.py."""

import os
import subprocess
import sys
from pathlib import Path

import mmdet
import pytest

from negvision.compat.finder import SubstituteLoader

ROOT = Path(__file__).parents[2]
TOOL = Path(mmdet.__file__).parent / ".mim/tools/train.py"
CONFIG = f"""
_base_ = {str(ROOT / "configs/quickstart/atss_digits.py")!r}
{{imports}}
digits = dict(train=8, val=2, test=2, test_ood=2)
here = dict(num_workers=0, persistent_workers=False, dataset=dict(digits=digits))
train_dataloader = dict(batch_size=4, **here)
val_dataloader = here
train_cfg = dict(max_iters=2, val_interval=2)
"""


def train(tmp_path: Path, imports: str) -> subprocess.CompletedProcess:
    (tmp_path / "digits.py").write_text(CONFIG.format(imports=imports))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NEGVISION_DATA": "data"}
    return subprocess.run(
        [sys.executable, TOOL, "digits.py", "--work-dir", "run"],
        cwd=tmp_path,
        env={**environment, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.mark.slow
def test_one_line_in_the_config_is_enough(tmp_path):
    done = train(tmp_path, 'custom_imports = dict(imports=["negvision"])')
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run/iter_2.pth").is_file()


@pytest.mark.slow
def test_the_line_is_needed_only_without_compiled_operators(tmp_path):
    import mmcv._ext

    done = train(tmp_path, "")
    if isinstance(mmcv._ext.__spec__.loader, SubstituteLoader):
        assert "No module named 'mmcv._ext'" in done.stderr
    else:
        assert done.returncode == 0, done.stderr[-2000:]
