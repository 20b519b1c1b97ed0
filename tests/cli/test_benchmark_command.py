"""``negvision benchmark`` from its arguments to the table and the JSON."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.commands import command

from negvision.benchmark import measure as measuring
from negvision.benchmark import whole
from negvision.benchmark.preparing import lay_out, write_exported
from negvision.engine import compiling
from negvision.engine.config.reading import load_config
from negvision.errors import UserError

benchmark = command("benchmark")

ROOT = Path(__file__).parents[2]
FACE = str(ROOT / "configs/quickstart/unpg_glyphs.py")
QUICK = ["--seconds", "0.01", "--threads", "1"]


@pytest.fixture
def quick(monkeypatch):
    """No compiler, and processes of their own only where they do not import torch."""

    def no_compiler(module, options):
        raise UserError("compile needs a C++ compiler.\nInstall one")

    own = measuring.peak_memory
    monkeypatch.setattr(compiling, "compile_parts", no_compiler)
    monkeypatch.setattr(
        measuring,
        "peak_memory",
        lambda kind, setup: own(kind, setup) if kind == "onnxruntime" else None,
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    lay_out(load_config(FACE), None, None, folder)
    write_exported(folder)
    return folder / "model.onnx"


def test_a_config_is_measured_in_every_way(quick, capsys, tmp_path):
    file = tmp_path / "new" / "cost.json"
    assert benchmark([FACE, *QUICK, "--batch-size", "3", "--json", str(file)]) == 0
    out = capsys.readouterr().out
    first, second = out.splitlines()[:2]
    assert first == (
        "unpg_glyphs.py, random weights: face, 32 x 32 pixels (height x width), batches of 3, cpu, "
        "1 threads"
    )
    assert "compiled: compile needs a C++ compiler." in out
    assert "onnxruntime, largest differences: embedding" in out
    found = json.loads(file.read_text())
    eager, exported = found["rows"]["eager"], found["rows"]["onnxruntime"]
    assert eager["images_per_s"] > 0 and eager["differences"] == {}
    assert exported["ratio"] == pytest.approx(exported["images_per_s"] / eager["images_per_s"])
    assert exported["differences"]["embedding"] < 1e-4
    # It holds its weights at least.
    assert exported["peak_memory"] > 4 * found["parameters"] / 2
    assert second.startswith(f"{found['parameters'] / 1e6:.3g} million weights")
    # Each weight of a convolution takes part once at least, in two operations.
    assert found["operations_per_image"] > found["parameters"]


def test_an_exported_model_is_measured_alone(quick, exported, capsys):
    assert benchmark([str(exported), *QUICK]) == 0
    out = capsys.readouterr().out
    assert out.startswith("model.onnx: face, 32 x 32 pixels")
    assert "GFLOP" not in out
    assert [line.split()[0] for line in out.splitlines()[4:]] == ["onnxruntime"]


def test_a_way_that_finds_something_else_is_status_1(quick, exported, monkeypatch, capsys):
    own = measuring.build
    monkeypatch.setattr(whole, "write_exported", lambda folder: shutil.copy(exported, folder))

    def build(kind, setup):
        subject = own(kind, setup)
        if kind == "onnxruntime":
            results = subject.results()[::-1]
            return type(subject)(subject.batches, subject.run, lambda: results)
        return subject

    monkeypatch.setattr(measuring, "build", build)
    assert benchmark([FACE, *QUICK]) == 1
    assert "onnxruntime DIFFERS: embedding" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m.onnx", "--checkpoint", "a.pth"], "m.onnx contains its weights"),
        (["m.onnx", "--cfg-options", "a=1"], "m.onnx contains its weights"),
        ([FACE, "--batch-size", "0"], "--batch-size: '0' is not an integer above 0"),
        ([FACE, "--threads", "-1"], "--threads: '-1'"),
        ([FACE, "--seconds", "0"], "--seconds: '0'"),
        ([FACE, "--size", "0", "32"], "--size: '0'"),
        ([FACE, "--json", str(ROOT)], "cannot be written"),
        ([FACE, "--device", "gpu"], "device 'gpu': give cpu, cuda"),
        ([FACE, "--size", "40", "32"], "does not run on pictures of 40 x 32"),
        ([FACE, "--checkpoint", "nowhere.pth"], "nowhere.pth"),
        (["nowhere.onnx"], "model 'nowhere.onnx' does not exist"),
        (["nowhere.py"], "config 'nowhere.py' does not exist"),
    ],
)
def test_what_cannot_be_measured_is_told(capsys, arguments, message):
    assert benchmark([*arguments[:1], *QUICK, *arguments[1:]]) == 2
    assert message in capsys.readouterr().err


def test_a_model_without_a_size_of_its_own_asks_for_one(tmp_path, capsys):
    (tmp_path / "any.py").write_text(
        f"_base_ = {str(ROOT / 'configs/quickstart/atss_digits.py')!r}\n"
        "test_dataloader = dict(dataset=dict(pipeline=[dict(type='negvision.PackDetInputs')]))\n"
    )
    assert benchmark([str(tmp_path / "any.py"), *QUICK]) == 2
    assert "give their size: --size HEIGHT WIDTH" in capsys.readouterr().err
