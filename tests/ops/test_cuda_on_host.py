"""The CUDA kernels run on the host, on a stand-in for the CUDA runtime: what they compute is what
the CPU kernels compute. Memory models, streams and speed are left to the tests that need a GPU."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from atss_cases import COMPILED, grid, integer_boxes, random_boxes

from negvision.ops import atss_assign
from negvision.ops.boxes import MODES

sys.path.insert(0, str(Path(__file__).parent / "cuda_stand_in"))
from build import NAMESPACE, build

COMPILER = os.environ.get("CXX", "g++").split()[0]
pytestmark = [
    pytest.mark.skipif(not COMPILED, reason="the extension is not built"),
    pytest.mark.skipif(not shutil.which(COMPILER), reason="no C++ compiler"),
]
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    torch.ops.load_library(str(build(tmp_path_factory.mktemp("stand_in"), COMPILER)))
    return getattr(torch.ops, NAMESPACE)


@pytest.fixture
def check(stand_in, monkeypatch):
    """``atss_assign`` that also runs the CUDA kernels and compares to the bit."""
    real = torch.ops.negvision.atss_assign.default

    def both(*arguments):
        want, got = real(*arguments), stand_in.atss_assign(*arguments)
        assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))
        return want

    monkeypatch.setattr(torch.ops.negvision, "atss_assign", both)
    return atss_assign


@pytest.mark.parametrize("make", [random_boxes, integer_boxes])
def test_grids(check, make):
    positives = 0
    for case in range(30):
        g = torch.Generator().manual_seed(case)
        height, width = torch.randint(40, 260, (2,), generator=g).tolist()
        shapes = ((1.0, 1.0),) if case % 3 else ((1.0, 1.0), (0.7, 1.4))
        priors, counts = grid(height, width, offset=0.5 * (case % 2), shapes=shapes)
        sizes = torch.randint(0, 12, (4,), generator=g).tolist()
        gts = [make(g, n, height, width) for n in sizes]
        positives += int((check(priors, counts, gts)[0] > 0).sum())
    assert positives > 1000


@pytest.mark.parametrize("topk", [1, 9, 26, 100])
@pytest.mark.parametrize("noise", [0.0, 1e-3, 10.0])
def test_masks_crowds_and_priors_off_the_grid(check, noise, topk):
    g = torch.Generator().manual_seed(topk)
    priors, counts = grid(100, 133)
    shift = torch.randn(len(priors), 2, generator=g) * noise
    priors = priors + torch.cat([shift, shift], 1)
    gts = [random_boxes(g, n, 100, 133) for n in (2, 0, 5)]
    for share in (0.01, 0.6, 1.0):
        check(
            priors, counts, gts, topk,
            valid=torch.rand(3, len(priors), generator=g) < share,
            ignore_boxes=[random_boxes(g, n, 100, 133) for n in (2, 1, 0)],
            ignore_iof_thr=0.5,
        )  # fmt: skip
    check(priors + torch.arange(3.0)[:, None, None] * 7, counts, gts, topk)


def test_prediction_aware_overlaps(check):
    g = torch.Generator().manual_seed(0)
    priors, counts = grid(100, 133)
    gts = [random_boxes(g, n, 100, 133) for n in (5, 0, 10)]
    check(
        priors, counts, gts, alpha=0.8,
        pred_boxes=priors + torch.randn(3, *priors.shape, generator=g) * 4,
        pred_scores=torch.randn(3, len(priors), 6, generator=g),
        gt_labels=[torch.randint(6, (len(gt),), generator=g) for gt in gts],
    )  # fmt: skip


@pytest.mark.parametrize("own_priors", [False, True])
def test_more_images_than_one_launch_takes(check, own_priors):
    g = torch.Generator().manual_seed(1)
    priors, counts = grid(32, 32, strides=(8, 16))
    if own_priors:
        priors = priors + torch.arange(450.0)[:, None, None] % 7
    gts = [random_boxes(g, i % 4, 32, 32, largest=40) for i in range(450)]
    crowds = [random_boxes(g, i % 2, 32, 32, largest=40) for i in range(450)]
    check(priors, counts, gts, ignore_boxes=crowds, ignore_iof_thr=0.5)


def test_more_levels_than_a_warp_has_lanes(check):
    priors, counts = grid(64, 64, strides=(16,))
    g = torch.Generator().manual_seed(2)
    check(priors.repeat(40, 1), counts * 40, [random_boxes(g, 5, 64, 64)], topk=3)


def test_degenerate_input(check):
    priors, counts = grid(64, 64)
    rows = [[10, 10, 10, 30], [30, 30, 10, 10], [NAN] * 4, [0, 0, INF, 9], [8, 8, 40, 40]]
    gt = torch.tensor(rows)
    spoilt = priors.clone()
    spoilt[::5] = NAN
    check(priors, counts, [gt])
    check(spoilt, counts, [gt])
    check(priors, [0, *counts, 0], [gt])
    check(priors, counts, [torch.zeros(0, 4)] * 2)
    check(torch.zeros(0, 4), [0, 0], [gt])
    check(priors, counts, [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", range(len(MODES)))
def test_overlaps_and_gradients(stand_in, mode, dtype):
    g = torch.Generator().manual_seed(3)
    a, b = (random_boxes(g, n, 200, 333).to(dtype) for n in (37, 70))
    for kind, second in (("pairwise", b), ("aligned", b[:37])):
        ours = getattr(torch.ops.negvision, f"{kind}_box_iou")
        theirs = getattr(stand_in, f"{kind}_box_iou")
        want, got = ours(a, second, mode, 1e-6), theirs(a, second, mode, 1e-6)
        assert torch.equal(got, want)
        grad = torch.rand(want.shape, generator=g).to(dtype)
        backward = getattr(torch.ops.negvision, f"{kind}_box_iou_backward")
        want = backward(grad, a, second, mode, 1e-6)
        got = getattr(stand_in, f"{kind}_box_iou_backward")(grad, a, second, mode, 1e-6)
        torch.testing.assert_close(got, want)  # the sums are of another order
