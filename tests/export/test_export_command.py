"""``negvision export``: a compared file, or an error and no file."""

import errno
import os
import re
from pathlib import Path

import onnx
import pytest
import torch
from helpers.commands import command
from helpers.small_models import write_images

from negvision.cli import export as cli_export
from negvision.export import exporting
from negvision.export.parity import TOLERANCES
from negvision.inference.runtime import ExportedModel

export_model = command("export")

ROOT = Path(__file__).parents[2]
FACE = str(ROOT / "configs/quickstart/unpg_glyphs.py")
BOXES = str(ROOT / "configs/quickstart/abet_boxes.py")


@pytest.fixture
def run(checkpoints, tmp_path, monkeypatch, capsys):
    """Function from options to the exit status, what was printed, and the folder of the file."""
    monkeypatch.chdir(tmp_path)

    def run_export(config, *options, out="out/model.onnx", checkpoint=None):
        name = "face" if config == FACE else "abet"
        path = checkpoint or str(checkpoints(name))
        status = export_model([config, path, "--out", out, *options])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run_export


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("out/**/*"))


def test_detector_is_written_and_compared(run, tmp_path):
    status, out, err = run(BOXES, "--legacy")
    assert status == 0, err
    assert re.search(r"exporting \S+\.pth as onnx, fp32\n", out)
    [compared] = re.findall(r"10 images, batches of 1 and 4: ([\d,]+) boxes compared", out)
    assert int(compared.replace(",", "")) > 1000
    [found] = re.findall(r"largest differences: score (\S+), box (\S+) px, ood (\S+)", out)
    score, box, ood = map(float, found)
    assert score < 1e-4 and box < 0.1 and ood < 1e-3
    assert "detection, 8 classes, fp32, OOD score abet without a threshold, opset 18" in out
    assert _left(tmp_path) == ["model.onnx"]
    assert ExportedModel("out/model.onnx").classes[0] == "zero"


@pytest.mark.parametrize("options", [(), ("--precision", "fp16", "--opset", "20")])
def test_face_model_is_written_and_compared(run, tmp_path, options):
    status, printed, err = run(FACE, *options)
    assert status == 0, err
    assert "20 embeddings compared" in printed
    assert _left(tmp_path) == ["model.onnx"]


def test_torch_archive_has_metadata_and_any_batch_size(run, tmp_path):
    status, printed, err = run(FACE, "--format", "torchexport", out="out/model.pt2")
    assert status == 0 and "20 embeddings compared" in printed, err
    assert _left(tmp_path) == ["model.pt2"]
    files = {"negvision": ""}
    program = torch.export.load("out/model.pt2", extra_files=files)
    assert '"task": "face"' in files["negvision"]
    assert program.module()(torch.rand(5, 3, 32, 32))[0].shape == (5, 128)


def test_comparison_on_images_of_a_folder(run, tmp_path, monkeypatch):
    options = ("--legacy", "--images", str(tmp_path / "images"))
    *_, one, other = write_images(
        tmp_path / "images", **{f"{number}_png": (32, 32) for number in range(9)}
    )
    status, out, _ = run(FACE, *options)
    assert status == 0 and "9 images" in out and "evenly spread" not in out
    (tmp_path / "images/._a.png").write_bytes(b"")  # as macOS leaves it
    monkeypatch.setattr(exporting, "_MOST_COMPARED", 8)
    status, out, _ = run(FACE, *options)
    assert status == 0 and "images: 8 of 9 images, evenly spread" in out and "8 images, b" in out
    os.unlink(one)
    os.unlink(other)
    status, _, err = run(FACE, *options)
    assert status == 2 and "7 images" in err and "at least 8" in err


def test_difference_leaves_no_file(run, tmp_path, monkeypatch):
    write = exporting.write_onnx

    @torch.no_grad()
    def write_shifted(graph, *args):
        bias = graph.module.head.atss_reg.bias
        bias += 0.05
        model = write(graph, *args)
        bias -= 0.05
        return model

    monkeypatch.setattr(exporting, "write_onnx", write_shifted)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.onnx").write_text("an older one")
    status, _, err = run(BOXES, "--legacy")
    assert status == 1
    assert "was not written, because it differs from PyTorch" in err and "more than 0.5" in err
    assert _left(tmp_path) == ["model.onnx"]
    assert (tmp_path / "out/model.onnx").read_text() == "an older one"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("score_thr=0.99", "nothing was compared: .*--images DIR"),
        ("nms.type=soft_nms", "(?s)soft_nms.*docs/export.md"),
    ],
)
def test_model_without_a_usable_box_is_an_error(run, tmp_path, option, message):
    status, _, err = run(BOXES, "--legacy", "--cfg-options", f"model.test_cfg.{option}")
    assert status == 2 and re.search(message, err), err
    assert _left(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "out", "message"),
    [
        ((), "out/model.pt", "--format onnx writes NAME.onnx"),
        ((), "out/.onnx", "writes NAME.onnx"),
        (("--opset", "17"), "out/model.onnx", "--opset 17: give a version from 18"),
        (("--opset", "999"), "out/model.onnx", "--opset 999: give a version from 18"),
        (("--format", "openvino"), "out/model.xml", "pip install openvino"),
        (("--precision", "int8"), "out/model.onnx", "--calibration DIR go together"),
        (("--calibration", "."), "out/model.onnx", "--calibration DIR go together"),
        (("--precision", "fp16", "--legacy"), "out/model.onnx", "--legacy supports fp32 only"),
        (("--format", "torchexport", "--legacy"), "out/model.pt2", "has no effect on torchexport"),
        (
            ("--format", "torchexport", "--precision", "fp16"),
            "out/model.pt2",
            "does not support --precision fp16",
        ),
        (("--images", "nowhere"), "out/model.onnx", "nowhere: no such folder"),
    ],
)
def test_invalid_options_are_refused_at_once(run, tmp_path, monkeypatch, options, out, message):
    # As if openvino were not installed.
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    status, _, err = run(BOXES, *options, out=out, checkpoint="not looked at")
    assert status == 2 and message in err, err
    assert _left(tmp_path) == []


def test_missing_weights_are_reported(run, checkpoints, tmp_path):
    state = torch.load(checkpoints("abet"))["state_dict"]
    torch.save({key: state[key] for key in state if "atss_reg" not in key}, tmp_path / "part.pth")
    status, _, err = run(BOXES, checkpoint="part.pth")
    assert status == 2 and "lacks 2 of" in err and "bbox_head.atss_reg.weight" in err


def test_path_through_a_file_is_reported_first(run, tmp_path):
    (tmp_path / "out").write_text("a file")
    status, _, err = run(BOXES, checkpoint="not looked at")
    assert status == 2 and "model.onnx cannot be written" in err


def test_full_disk_leaves_no_file(run, tmp_path, monkeypatch):
    def save(model, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(exporting, "save", save)
    status, _, err = run(FACE, "--legacy")
    assert status == 2 and "model.onnx: cannot be written: the disk is full" in err
    assert _left(tmp_path) == []


def test_opset_unknown_to_onnx_runtime_is_reported(run, tmp_path, monkeypatch):
    save = exporting.save

    def save_of_later(model, path):
        model.opset_import[0].version = 999
        monkeypatch.setattr(onnx.checker, "check_model", lambda model: None)
        save(model, path)

    monkeypatch.setattr(exporting, "save", save_of_later)
    status, _, err = run(FACE, "--legacy", "--opset", "20")
    assert status == 2 and "with --opset 20 does not run here" in err
    assert "--opset 18 is the tested version" in err
    assert _left(tmp_path) == []


def test_missing_package_is_named(run, monkeypatch):
    monkeypatch.setattr(cli_export, "find_spec", lambda name: None if name == "onnxscript" else 1)
    status, _, err = run(BOXES)
    assert status == 2 and "onnxscript is not installed" in err and "requirements/export.txt" in err


def test_tolerances_are_as_documented():
    page = (ROOT / "docs/export.md").read_text()
    for name, limit in TOLERANCES.items():
        assert f"| {name} | {limit.score:g} | {limit.box:g} px | {limit.share:.0%} |" in page
