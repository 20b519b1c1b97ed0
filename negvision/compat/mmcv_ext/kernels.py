"""Torchvision's compiled operators."""

import importlib
import importlib.util
import sys
from pathlib import Path

import torch


def load_torchvision_kernels() -> None:
    """Load the library without the package, which imports the compiler of torch and SymPy.

    What traces tensors without data (torch.compile, torch.export) needs the package.
    """
    spec = importlib.util.find_spec("torchvision")
    folders = spec.submodule_search_locations if spec else None
    found = [path for folder in folders or () for path in Path(folder).glob("_C*.so")]
    if "torchvision" in sys.modules or len(found) != 1:
        importlib.import_module("torchvision")
    else:
        torch.ops.load_library(found[0])
