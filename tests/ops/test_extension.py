"""Without the compiled operators, and the contract of the operators with torch."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.atss_cases import COMPILED, grid, random_boxes

import negvision
from negvision.ops import _extension, atss_assign, extension_info

needs_extension = pytest.mark.skipif(not COMPILED, reason="the extension is not built")


def test_info_names_the_library():
    info = extension_info()
    assert info["loaded"] == COMPILED and (info["error"] is None) == COMPILED
    if COMPILED:
        assert Path(info["path"]).name.startswith("_C")


def run_without_extension(tmp_path: Path, code: str, library: bytes | None = None) -> str:
    """Run code on a copy of the package that has no library, or one of these bytes."""
    source = Path(negvision.__file__).parent
    ignore = shutil.ignore_patterns("*.so", "csrc", "__pycache__")
    shutil.copytree(source, tmp_path / "negvision", ignore=ignore)
    if library is not None:
        (tmp_path / "negvision/ops/_C.abi3.so").write_bytes(library)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


CODE = """
import torch
from negvision.ops import aligned_box_iou, atss_assign, extension_info, pairwise_box_iou
box = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
for _ in range(3):
    print(atss_assign(box.repeat(2, 1), [2], [box])[0].tolist())
    pairwise_box_iou(box, box), aligned_box_iou(box, box)
print(extension_info()["loaded"], extension_info()["error"])
"""


def test_without_the_library_results_are_equal_and_one_warning_is_issued(tmp_path):
    output = run_without_extension(tmp_path, CODE)
    assert output.count("[[1, 1]]") == 3
    assert output.count("RuntimeWarning") == 1
    assert "compiled operators are missing (not built; with a C++ compiler" in output
    assert "same results are computed in PyTorch, more slowly" in output


def test_negvision_pure_hides_the_library_without_a_warning(monkeypatch, recwarn):
    monkeypatch.setenv("NEGVISION_PURE", "1")
    monkeypatch.setattr("negvision.ops._extension._load", _extension._load.__wrapped__)
    assert extension_info() == {
        "loaded": False,
        "path": None,
        "cuda": False,
        "error": "NEGVISION_PURE=1",
    }
    assert not _extension.is_compiled_for("cpu") and not recwarn.list


def test_devices_without_float64_hand_the_assignment_to_the_cpu(path, monkeypatch):
    priors, counts = grid(64, 64)
    gts = [random_boxes(torch.Generator().manual_seed(0), 5, 64, 64)]
    expected = atss_assign(priors, counts, gts)
    monkeypatch.setattr("negvision.ops._assignment._WITHOUT_FLOAT64", {"cpu"})
    handed_over = atss_assign(priors, counts, gts)
    assert all(map(torch.equal, handed_over, expected)) and expected[0].gt(0).any()


def test_a_library_that_cannot_be_loaded_is_named(tmp_path):
    output = run_without_extension(tmp_path, CODE, library=b"not a library")
    assert output.count("RuntimeWarning") == 1 and "build it again with" in output
    assert "_C.abi3.so" in output and "False" in output


@needs_extension
@pytest.mark.parametrize("full", [False, True])
def test_opcheck(full):
    g = torch.Generator().manual_seed(0)
    priors, counts = grid(64, 64)
    gts = [random_boxes(g, n, 64, 64) for n in (3, 0, 2)]
    optional = [None, None, [0, 0, 0], -1.0, None, None, None, 1.0]
    if full:
        optional = [
            torch.rand(3, len(priors), generator=g) < 0.9,
            random_boxes(g, 2, 64, 64),
            [1, 0, 1],
            0.5,
            priors.expand(3, -1, -1).contiguous(),
            torch.randn(3, len(priors), 4, generator=g),
            torch.tensor([0, 1, 2, 3, 0]),
            0.8,
        ]
    arguments = (priors[None], counts, torch.cat(gts), [3, 0, 2], 9, *optional)
    torch.library.opcheck(torch.ops.negvision.atss_assign.default, arguments)


@needs_extension
def test_operators_check_their_arguments():
    priors, counts = grid(64, 64, strides=(8,))
    rest = (None, None, [0], -1.0, None, None, None, 1.0)
    assign = torch.ops.negvision.atss_assign
    box = torch.zeros(1, 4)
    with pytest.raises(RuntimeError, match="priors must be float32"):
        assign(priors[None].double(), counts, box, [1], 9, *rest)
    with pytest.raises(RuntimeError, match="num_gts add up to 2, but there are 1 boxes"):
        assign(priors[None], counts, box, [2], 9, *rest)
    with pytest.raises(RuntimeError, match=r"num_gts\[0\] is -1"):
        assign(priors[None], counts, box, [-1], 9, *rest)
    with pytest.raises(RuntimeError, match="valid must be bool"):
        assign(priors[None], counts, box, [1], 9, torch.ones(1, 64), *rest[1:])
    with pytest.raises(RuntimeError, match="mode must be 0 to 4, got 7"):
        torch.ops.negvision.pairwise_box_iou(box, box, 7, 1e-6)
    with pytest.raises(RuntimeError, match="both be float32 or both float64"):
        torch.ops.negvision.aligned_box_iou(box, box.double(), 0, 1e-6)
