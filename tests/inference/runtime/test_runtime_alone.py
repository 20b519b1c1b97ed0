"""The runtime in an environment of numpy, onnxruntime and opencv returns the same boxes."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from helpers.small_models import write_images

from negvision.inference.runtime import ExportedModel

ROOT = Path(__file__).parents[3]
PROGRAM = """
import json, sys
sys.path[:0] = [{packages!r}]
from negvision.inference.runtime import ExportedModel
model = ExportedModel({model!r}, threads=1)
found = list(model.predict({files!r}, batch_size=2))
print(json.dumps([{{
    "boxes": one.boxes.tolist(), "scores": one.scores.tolist(), "labels": one.labels.tolist(),
    "ood": one.ood_scores.tolist()}} for one in found]))
tops = {{name.partition(".")[0] for name, module in sys.modules.items()
        if {packages!r} in (getattr(module, "__file__", None) or "")}}
print(json.dumps(sorted(tops)))
"""


def _environment(folder: Path, packages: list[str]) -> Path:
    """A folder with ``packages``, the libraries of their wheels, and the source of negvision."""
    folder.mkdir()
    for name in packages:
        own = Path(find_spec(name).origin).parent
        if name == "cv2":  # it looks for its parts next to its real files
            shutil.copytree(own, folder / "cv2")
        else:
            (folder / own.name).symlink_to(own)
        for libraries in own.parent.glob("*.libs"):
            link = folder / libraries.name
            if not link.exists():
                link.symlink_to(libraries)
    (folder / "negvision").symlink_to(ROOT / "negvision")
    return folder


def test_same_boxes_without_torch_and_openmmlab(exported, tmp_path):
    sizes = {"a_png": (140, 200), "b_png": (192, 100), "c_png": (192, 192)}
    files = write_images(tmp_path / "images", **sizes)
    model = str(exported("abet"))
    packages = str(_environment(tmp_path / "packages", ["numpy", "onnxruntime", "cv2"]))
    # Isolated and without site-packages, so that only the folder is searched.
    program = PROGRAM.format(packages=packages, model=model, files=files)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    found, loaded = map(json.loads, done.stdout.splitlines())
    assert set(loaded) <= {"negvision", "numpy", "onnxruntime", "cv2"}
    for own, wanted in zip(found, ExportedModel(model).predict(files, 2), strict=True):
        assert len(own["boxes"]) > 20
        assert own["labels"] == wanted.labels.tolist()
        np.testing.assert_allclose(own["boxes"], wanted.boxes, atol=1e-3)
        np.testing.assert_allclose(own["scores"], wanted.scores, atol=1e-5)
        np.testing.assert_allclose(own["ood"], wanted.ood_scores, rtol=1e-4, atol=1e-5)
