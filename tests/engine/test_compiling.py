"""What compiling needs; that it does not change a training is tested in test_options_of_tasks."""

import pytest
from torch import nn

from negvision.engine import compiling
from negvision.engine.compiling import check_compiler, compile_parts
from negvision.errors import ConfigError, UserError


def test_nothing_to_compile():
    with pytest.raises(ConfigError, match="Linear has no backbone, neck or head to compile"):
        compile_parts(nn.Linear(2, 2), {"backend": "eager"})


def test_no_compiler(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"no g\+\+ or clang\+\+ on PATH.*without --compile"):
        compile_parts(nn.ModuleDict({"backbone": nn.Linear(2, 2)}), {})
    # Other backends need none.
    assert compile_parts(nn.ModuleDict({"neck": nn.ReLU()}), {"backend": "eager"}) == ["neck"]


def test_no_headers(monkeypatch, tmp_path):
    monkeypatch.setattr(compiling.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(compiling.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    with pytest.raises(UserError, match=r"Python\.h does not exist.*python3-dev"):
        check_compiler()
