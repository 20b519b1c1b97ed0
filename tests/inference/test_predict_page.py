"""The code in docs/predict.md runs unchanged."""

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs/predict.md"


def test_blocks_run_in_order(exported, image_files, tmp_path, monkeypatch, capsys):
    pytest.importorskip("supervision")
    monkeypatch.chdir(tmp_path)
    shutil.copy(exported("abet"), "atss.onnx")
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(image_files[1], name)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    image = cv2.imread("a.jpg")
    names = {"frame": image, "image": image}
    for block in blocks:
        # The weights are random, and no score is high.
        exec(block.replace("score_threshold=0.3", "score_threshold=0.01"), names)
    assert len(capsys.readouterr().out) > 100
    assert len(names["boxes"]) > 20 and {"class_name", "ood_score"} == set(names["boxes"].data)
    assert names["draw"](image, names["found"], names["model"].classes).dtype == np.uint8
