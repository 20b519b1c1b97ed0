"""The CUDA kernels against the CPU kernels, on a GPU and on the host.

On the host the kernels are compiled against a stand-in for the CUDA runtime, so what they compute
is tested everywhere. Memory models, streams and speed need the GPU tests of test_cuda.py.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from helpers.atss_cases import COMPILED, SIMILARITIES, grid, integer_boxes, random_boxes
from helpers.prediction_cases import RULES, arguments, assign, predictions

from negvision.ops import atss_assign, max_iou_assign
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


def moved(value):
    if isinstance(value, torch.Tensor):
        return value.cuda()
    return [moved(item) for item in value] if isinstance(value, list) else value


ASSIGNMENTS = ("atss_assign", "assign_by_predictions", "max_iou_assign")


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def check(request, monkeypatch):
    """``atss_assign``; all assignments also run the CUDA kernels and compare to the bit."""
    on_gpu = request.param == "gpu"
    for name in ASSIGNMENTS:
        real = getattr(torch.ops.negvision, name).default
        cuda = real if on_gpu else getattr(request.getfixturevalue("stand_in"), name)

        def both(*arguments, real=real, cuda=cuda):
            want, got = real(*arguments), cuda(*(map(moved, arguments) if on_gpu else arguments))
            assert all(g.is_cuda == on_gpu for g in got)
            assert all(torch.equal(g.cpu(), w) for g, w in zip(got, want, strict=True))
            return want

        monkeypatch.setattr(torch.ops.negvision, name, both)
    return atss_assign


@pytest.mark.parametrize("rule", RULES)
def test_assignments_by_predictions(check, rule):
    for seed in range(4):
        each = [
            arguments(rule, predictions(seed * 3 + i, count))
            for i, count in enumerate((6, 0, 40))
        ]  # fmt: skip
        boxes, scores = (torch.stack([case[i] for case in each]) for i in (1, 2))
        gts, labels = ([case[i] for case in each] for i in (3, 4))
        gts[0][1, 0], gts[0][2] = NAN, gts[0][3]
        boxes[2, ::7, 1] = NAN
        inds, *_ = assign(rule, each[0][0], boxes, scores, gts, labels, (1, 5, 13, 40)[seed])
        assert inds.any()
    assign(rule, each[0][0][:0], boxes[:, :0], scores[:, :0], gts, labels)
    for count in (0, 450):
        many = boxes[:1, ::9].repeat(count, 1, 1), scores[:1, ::9].repeat(count, 1, 1)
        assign(rule, each[0][0][::9], *many, gts[:1] * count, labels[:1] * count)


@pytest.mark.parametrize("assign_all,of_prior", [(True, False), (False, True)])
def test_max_iou(check, assign_all, of_prior):
    g = torch.Generator().manual_seed(3)
    priors, _ = grid(96, 133, strides=(16, 32), scale=2, shapes=((1.0, 1.0), (0.7, 1.4)))
    gts = [make(g, n, 96, 133) for make in (random_boxes, integer_boxes) for n in (7, 0, 9)]
    gts[0][1, 0], gts[0][2] = NAN, gts[0][3]
    crowds = [random_boxes(g, n % 3, 96, 133) for n in range(6)]
    for own, times in (
        (priors, 1), (priors + torch.arange(6.0)[:, None, None], 1), (priors[::40], 80),
        (priors[:0], 1),
    ):  # fmt: skip
        labels = [torch.arange(len(gt)) for gt in gts * times]
        inds, *_ = max_iou_assign(
            own, gts * times, labels, 0.5, 0.4, gt_max_assign_all=assign_all,
            ignore_boxes=crowds * times, ignore_iof_thr=0.5, ignore_wrt_candidates=of_prior,
        )  # fmt: skip
        assert not inds.numel() or len(inds.unique()) > 5
    max_iou_assign(priors, [], [], 0.5, 0.4)


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


@pytest.mark.parametrize("alike", SIMILARITIES)
def test_similarities(check, alike):
    g = torch.Generator().manual_seed(4)
    priors, counts = grid(100, 133)
    gts = [random_boxes(g, n, 100, 133, largest=20) for n in (5, 0, 30)]
    for min_size in (0.0, 9.0):
        check(
            priors, counts, gts, similarity=alike[0], similarity_scale=alike[1], min_size=min_size
        )  # fmt: skip
    squares, boxes, scores, gt, labels = arguments("task_aligned", predictions(5, count=40))
    boxes[::7, 1], boxes[1::7] = NAN, boxes[1::7].flip(1)
    given = squares, boxes[None], scores[None], [gt], [labels], 5
    assert assign("task_aligned", *given, alike=alike)[0].any()


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


def tiles(seed: int, dtype: torch.dtype):
    """Similarities, labels of rows and columns, and a diagonal: within a part, beyond it, empty."""
    g = torch.Generator().manual_seed(seed)
    for rows, columns, diagonal, classes in (
        (7, 33, -7, 5), (40, 40, 0, 6), (5, 300, 290, 3), (3, 5000, -3, 900), (2, 8200, 4090, 2),
        (4, 9, 20, 4), (6, 50, -6, 1), (0, 5, 0, 2), (5, 0, -5, 2), (1, 1, -1, 1 << 20),
    ):  # fmt: skip
        yield (
            torch.rand(rows, columns, generator=g, dtype=dtype) * 2 - 1,
            torch.randint(classes, (rows,), generator=g).int(),
            torch.randint(classes, (columns,), generator=g).int(),
            diagonal,
        )


CLOSE = {torch.float32: {"rtol": 1e-6, "atol": 1e-6}, torch.float64: {"rtol": 1e-12, "atol": 1e-12}}


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("bounds", [None, (-0.4, 0.3), (-INF, INF), (0.2, 0.2), (NAN, NAN)])
def test_log_sums_and_their_gradients(stand_in, dtype, bounds):
    ours, kept = torch.ops.negvision, 0
    bounds = None if bounds is None else torch.tensor(bounds, dtype=dtype)
    for case, (tile, rows, columns, diagonal) in enumerate(tiles(5, dtype)):
        if case % 2 and tile.numel():
            tile[:, -1] = 0.2  # on a bound
        arguments = (rows, columns, diagonal, bounds, 64.0)
        want, got = (ops.negatives_logsumexp(tile, *arguments) for ops in (ours, stand_in))
        torch.testing.assert_close(got[0], want[0], **CLOSE[dtype])
        assert torch.equal(got[1], want[1])
        kept += int(want[1].sum())
        grad = torch.linspace(-1, 1, len(rows), dtype=dtype)
        want, got = tile.clone(), tile.clone()
        # The same log-sums for both: the exponential would magnify a difference.
        logsumexp = ours.negatives_logsumexp(tile, *arguments)[0]
        for ops, result in ((ours, want), (stand_in, got)):
            ops.negatives_softmax_(result, *arguments, logsumexp, grad)
        torch.testing.assert_close(got, want, **CLOSE[dtype])
    assert kept > 0


@pytest.mark.parametrize("dtype", CLOSE)
def test_nan_and_infinite_similarities_reach_the_same_results(stand_in, dtype):
    tile = torch.rand(6, 600, dtype=dtype, generator=torch.Generator().manual_seed(6)) * 2 - 1
    tile[0] = NAN
    tile[1, 577] = NAN
    tile[2, 3] = -INF
    tile[3, 500] = INF
    tile[4, :] = 0.25
    labels = torch.arange(6).int(), torch.full((600,), 9).int()
    for diagonal in (-6, 500):
        arguments = (tile, *labels, diagonal, None, 64.0)
        want, kept = torch.ops.negvision.negatives_logsumexp(*arguments)
        got, also = stand_in.negatives_logsumexp(*arguments)
        torch.testing.assert_close(got, want, **CLOSE[dtype], equal_nan=True)
        assert torch.equal(kept, also)
        assert got[:2].isnan().all() and got[[2, 4, 5]].isfinite().all()


@pytest.mark.parametrize("dtype", CLOSE)
def test_histograms_are_equal(stand_in, dtype):
    bits, counted = torch.finfo(dtype).bits, 0
    for tile, rows, columns, diagonal in tiles(7, dtype):
        if tile.numel():
            tile.view(-1)[::7] = torch.tensor([0.0, -0.0, NAN, INF, -INF])[tile.numel() % 5]
        prefixes = torch.zeros(2, dtype=torch.int64)
        for shift in range(bits - 8, -1, -8):
            arguments = (tile, rows, columns, diagonal, prefixes, shift)
            want = torch.ops.negvision.negatives_histogram(*arguments)
            assert torch.equal(stand_in.negatives_histogram(*arguments), want)
            counted += int(want.sum())
            prefixes = prefixes << 8 | want.argmax(1)
    assert counted > 10_000
