"""Shared by the tests of the substituted operators."""

import importlib

import pytest

import negvision  # noqa: F401  (installs the hook before any test module imports mmcv)
from negvision.compat.finder import SubstituteLoader


@pytest.fixture
def substituted_mmcv():
    """``mmcv.ops`` on the substitute; skips where mmcv has compiled operators."""
    extension = importlib.import_module("mmcv._ext")
    if not isinstance(extension.__spec__.loader, SubstituteLoader):
        pytest.skip("mmcv has compiled operators here; negvision's are not in use")
    return importlib.import_module("mmcv.ops")
