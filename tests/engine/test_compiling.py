"""Compiling parts of a model; that it changes nothing in a training is in test_options_of_tasks."""

import copy

import pytest
import torch
from torch import nn

from negvision.engine import compiling
from negvision.engine.compiling import check_compiler, compile_parts
from negvision.errors import ConfigError, UserError


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        return self.linear(x.mean((2, 3)))

    def loss_by_feat(self, scores):
        return scores.square().mean()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = Head()

    def forward(self, x):
        return self.head.loss_by_feat(self.head.forward(self.backbone(x)))


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_model_gives_the_same_results(backend):
    torch.manual_seed(0)
    plain, x = Model(), torch.randn(2, 3, 8, 8)
    model = copy.deepcopy(plain)
    names = list(model.state_dict())
    assert compile_parts(model, {"backend": backend}) == ["backbone", "head"]
    for one in (plain, model):
        one(x).backward()
    assert list(model.state_dict()) == names
    for (name, parameter), other in zip(plain.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(other.grad, parameter.grad, msg=name)
    for one, other in zip(plain.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(other, one)


def test_nothing_to_compile():
    with pytest.raises(ConfigError, match="Linear has no backbone, neck or head to compile"):
        compile_parts(nn.Linear(2, 2), {"backend": "eager"})


def test_no_compiler(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"no g\+\+ or clang\+\+ on PATH.*without --compile"):
        compile_parts(Model(), {})
    compile_parts(Model(), {"backend": "eager"})  # which needs none


def test_no_headers(monkeypatch, tmp_path):
    monkeypatch.setattr(compiling.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(compiling.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    with pytest.raises(UserError, match=r"Python\.h does not exist.*python3-dev"):
        check_compiler()
