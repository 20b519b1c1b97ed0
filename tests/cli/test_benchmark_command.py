"""``negvision benchmark`` from its arguments to the table and the JSON."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.commands import command

from negvision.benchmark import cost
from negvision.benchmark import measure as measuring
from negvision.benchmark.cost import write_exported, write_model
from negvision.engine import compiling
from negvision.engine.config.reading import load_config
from negvision.errors import UserError

benchmark = command("benchmark")

ROOT = Path(__file__).parents[2]
FACE = str(ROOT / "configs/quickstart/unpg_glyphs.py")
QUICK = ["--seconds", "0.01", "--threads", "1"]


@pytest.fixture
def quick(monkeypatch):
    """No compiler, and separate processes only for ONNX Runtime, which starts fast."""

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
    write_model(load_config(FACE), None, None, folder)
    write_exported(folder)
    return folder / "model.onnx"


def test_config_is_measured_in_every_way(quick, capsys, tmp_path):
    file = tmp_path / "new" / "cost.json"
    assert benchmark([FACE, *QUICK, "--batch-size", "3", "--json", str(file)]) == 0
    out = capsys.readouterr().out
    # Importing mmdet for the first time prints a line of its own.
    first, second = out[out.index("unpg_glyphs.py") :].splitlines()[:2]
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
    # At least its weights.
    assert exported["peak_memory"] > 4 * found["parameters"] / 2
    assert second.startswith(f"{found['parameters'] / 1e6:.3g} million weights")
    # Every convolution weight is used at least once, in two operations.
    assert found["operations_per_image"] > found["parameters"]


def test_exported_model_is_measured_alone(quick, exported, capsys):
    assert benchmark([str(exported), *QUICK]) == 0
    out = capsys.readouterr().out
    out = out[out.index("model.onnx: face, 32 x 32 pixels") :]
    assert "GFLOP" not in out
    assert [line.split()[0] for line in out.splitlines()[4:]] == ["onnxruntime"]


def test_different_results_give_status_1(quick, exported, monkeypatch, capsys):
    own = measuring.build
    monkeypatch.setattr(cost, "write_exported", lambda folder: shutil.copy(exported, folder))

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
        ([FACE, "--size", "40", "32"], "does not run on images of 40 x 32"),
        ([FACE, "--checkpoint", "nowhere.pth"], "nowhere.pth"),
        (["nowhere.onnx"], "model 'nowhere.onnx' does not exist"),
        (["nowhere.py"], "config 'nowhere.py' does not exist"),
    ],
)
def test_errors_name_their_cause(capsys, arguments, message):
    assert benchmark([*arguments[:1], *QUICK, *arguments[1:]]) == 2
    assert message in capsys.readouterr().err


def test_model_without_a_size_asks_for_one(tmp_path, capsys):
    (tmp_path / "any.py").write_text(
        f"_base_ = {str(ROOT / 'configs/quickstart/atss_digits.py')!r}\n"
        "test_dataloader = dict(dataset=dict(pipeline=[dict(type='negvision.PackDetInputs')]))\n"
    )
    assert benchmark([str(tmp_path / "any.py"), *QUICK]) == 2
    assert "give their size: --size HEIGHT WIDTH" in capsys.readouterr().err
