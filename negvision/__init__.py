"""A training suite for detection and recognition in which negatives come first.

``from negvision import ATSSAssigner, UNPGLoss, Inferencer`` works for every public name;
``dir(negvision)`` lists them, and ``__init__.pyi`` says where each is defined. A name is imported
when it is first used, so ``import negvision`` itself loads neither torch nor OpenMMLab.

Importing the package installs two import hooks (see :mod:`negvision.compat`). One serves
``mmcv._ext`` from torchvision's kernels where mmcv lacks its compiled operators; the other imports
modules of OpenMMLab's packages when something of them is used.
"""

import os
import re
from functools import cache
from importlib import import_module
from pathlib import Path

from negvision.compat import import_on_demand, provide_mmcv_ext, quiet_imports

__version__ = "0.1.0"

# ONNX Runtime sends usage data over the network once it is imported, unless this is set before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import_on_demand()
provide_mmcv_ext()


@cache
def _exports() -> dict[str, str]:
    """Public name -> module, from ``__init__.pyi``."""
    stub = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    lines = re.findall(r"^from (\.[\w.]+) import (\w+) as \2$", stub, re.MULTILINE)
    return {name: module for module, name in lines}


# lazy_loader does the same; it would be a fourth dependency of the torch-free runtime.
def __getattr__(name: str) -> object:
    # Dunder names are asked for by the interpreter before there is a stub to read.
    module = None if name.startswith("__") else _exports().get(name)
    if module is None:
        raise AttributeError(f"module 'negvision' has no attribute {name!r}")
    with quiet_imports():
        value = getattr(import_module(module, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_exports()})
