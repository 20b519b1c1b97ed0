"""Modules of OpenMMLab's packages are imported when they are used, as if they had been before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from negvision.compat import on_demand

ROOT = Path(__file__).parents[2]
# One process, since imports take seconds. What is in memory is listed after each step.
STEPS = """
import sys
import negvision

HEAVY = (
    *("sklearn", "scipy", "matplotlib", "pandas", "sympy", "numba"),
    *("torchvision", "torch._dynamo", "torch.distributed.fsdp"),
)

def loaded(*names):
    return [name for name in names if name in sys.modules]

import mmdet.models, mmdet.datasets, mmseg.registry
from mmdet.registry import MODELS
from mmengine.registry import OPTIMIZERS, MODEL_WRAPPERS
print("packages", loaded(*HEAVY, "mmdet.models.detectors.atss"))

names = set(MODELS.module_dict)
print("names", {"ATSS", "FrozenBN", "Linear"} <= names, len(names) > 250, len(names) == len(MODELS))
print("names", "TverskyLoss" in set(mmseg.registry.MODELS.module_dict))
print("names alone", loaded("mmdet.models.detectors.atss"))

print("same class", MODELS.get("ATSS") is mmdet.models.ATSS is MODELS.get("mmdet.ATSS"))
print("registries above", MODELS.get("BN").__name__, MODELS.get("DCNv2").__name__)
print("of torch", OPTIMIZERS.get("AdamW").__name__)
print("of negvision", MODELS.get("negvision.ATSSHead").__module__)
print("of others", sorted(MODELS.get(n).__module__ for n in ("CLRNet", "LineDetDataProcessor")))
print("module", mmdet.models.detectors.gfl.__name__)
print("unknown", MODELS.get("NoSuchModel"), "NoSuchModel" in MODELS.module_dict)

from mmengine.model import is_model_wrapper
print("wrappers", is_model_wrapper(None), loaded("torch.distributed.fsdp"))

# One step of a detector.
import mmengine, torch
cfg = mmengine.Config.fromfile("configs/quickstart/atss_digits.py")
with mmengine.registry.DefaultScope.overwrite_default_scope("mmdet"):
    model = MODELS.build(cfg.model)
print("found", len(model.eval().predict(
    torch.zeros(1, 3, 64, 64),
    [mmdet.structures.DetDataSample(metainfo=dict(
        img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0)))],
)))
import negvision.engine.checkpoints.finding, negvision.inference.sources
import negvision.inference.output, negvision.inference.torch_model
print("after a prediction", loaded(*HEAVY))

# Components of a user, before those of the same name have been imported.
try:
    MODELS.register_module("FCOS", module=torch.nn.Identity)
except KeyError as error:
    print("taken", error)
MODELS.register_module("TOOD", module=torch.nn.Identity, force=True)
print("replaced", MODELS.get("TOOD") is torch.nn.Identity is not mmdet.models.TOOD)
print("replaced", MODELS.get("TOOD") is torch.nn.Identity)
"""
EXPECTED = """
packages []
names True True True
names True
names alone []
same class True
registries above BatchNorm2d ModulatedDeformConv2dPack
of torch AdamW
of negvision negvision.detection.heads.atss_heads
of others ['mmdet.datasets.transforms.processors', 'mmdet.models.detectors.clrnet_detector']
module mmdet.models.detectors.gfl
unknown None False
wrappers False []
found 1
after a prediction []
taken 'FCOS is already registered in model at mmdet.models.detectors.fcos'
replaced True
replaced True
"""


def test_imports_wait_until_something_is_used():
    env = {key: value for key, value in os.environ.items() if key != "NEGVISION_DATA"}  # is logged
    command = [sys.executable, "-c", STEPS]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.stdout == EXPECTED.lstrip(), done.stderr


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("from mmdet.registry import TASK_UTILS, MODELS\n", ("mmdet", "MODELS")),
        ("from mmengine.registry import (TASK_UTILS,\n    MODELS)\n", ("mmengine", "MODELS")),
        ("from mmengine.registry import \\\n    HOOKS as MODELS\n", ("mmengine", "HOOKS")),
        ("from mmengine import MODELS\n", ("mmengine", "MODELS")),
        ("from ..registry import MODELS\n", ("mmseg", "MODELS")),
        ("", ("mmseg", "MODELS")),
    ],
)
def test_registrations_are_read_from_the_text(line, where):
    text = f'''"""
    >>> @MODELS.register_module()
"""
{line}
@MODELS.register_module(name="One")
class Other: ...

@MODELS.register_module()
@other
def two(): ...

for name in THREE:
    MODELS.register_module(name, module=three)
'''
    module = on_demand._read_module("mmseg", "mmseg.a", text)
    assert module.named == [(where, "One"), (where, "two")]
    assert module.other == {where}
    assert not on_demand._read_module("mmseg", "mmseg.a", text.partition("for")[0]).other


def test_a_module_does_not_replace_what_is_imported_from_it():
    package = on_demand._Package("json")
    vars(package)["_later"] = {}
    package._put_off("json.decoder", {"json": "JSONDecoder"})
    package.json = sys.modules["json"]  # as Python does after an import
    assert package.json is sys.modules["json"].JSONDecoder
    package.other = sys.modules["json"]
    assert package.other is sys.modules["json"]
    with pytest.raises(AttributeError, match="'json' has no attribute 'absent'"):
        package.absent  # noqa: B018


def test_image_corruptions_are_imported_at_the_first_call():
    code = (
        "import sys, negvision, numpy as np\n"
        "from imagecorruptions import corrupt\n"
        "print('numba' in sys.modules)\n"
        "image = np.zeros((40, 40, 3), np.uint8)\n"
        "print([corrupt(image, corruption_name='contrast').shape for _ in range(2)])"
    )
    pytest.importorskip("imagecorruptions")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout == "False\n[(40, 40, 3), (40, 40, 3)]\n", done.stderr
