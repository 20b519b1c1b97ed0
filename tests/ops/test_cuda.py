"""CUDA against CPU: the same bits, and no wait for the device. Skipped where there is no GPU."""

import pytest
import torch
from atss_cases import grid, integer_boxes, random_boxes

from negvision.ops import aligned_box_iou, atss_assign, extension_info, pairwise_box_iou
from negvision.ops.boxes import MODES

pytestmark = pytest.mark.gpu
BATCH = 8


@pytest.fixture(autouse=True)
def compiled():
    assert extension_info()["cuda"], "build the CUDA kernels: FORCE_CUDA=1 make env"


def moved(value):
    if isinstance(value, torch.Tensor):
        return value.cuda()
    return [moved(item) for item in value] if isinstance(value, list) else value


def assert_same_bits(priors, counts, gts, topk=9, **named):
    want = atss_assign(priors, counts, gts, topk, **named)
    got = atss_assign(
        priors.cuda(), counts, moved(gts), topk, **{k: moved(v) for k, v in named.items()}
    )
    for g, w in zip(got, want, strict=True):
        assert g.is_cuda and torch.equal(g.cpu(), w)
    return want[0]


@pytest.mark.parametrize("make", [random_boxes, integer_boxes])
def test_a_thousand_images_of_each_kind(make):
    positives = 0
    for case in range(1000 // BATCH):
        g = torch.Generator().manual_seed(case)
        height, width = torch.randint(40, 400, (2,), generator=g).tolist()
        shapes = ((1.0, 1.0),) if case % 3 else ((1.0, 1.0), (0.7, 1.4))
        priors, counts = grid(height, width, offset=0.5 * (case % 2), shapes=shapes)
        sizes = torch.randint(0, 40, (BATCH,), generator=g).tolist()
        gts = [make(g, n, height, width) for n in sizes]
        positives += int((assert_same_bits(priors, counts, gts) > 0).sum())
    assert positives > 10_000


@pytest.mark.parametrize("topk", [1, 9, 26, 100])
@pytest.mark.parametrize("noise", [0.0, 1e-3, 10.0])
def test_masks_crowds_and_priors_off_the_grid(noise, topk):
    g = torch.Generator().manual_seed(topk)
    priors, counts = grid(200, 333)
    shift = torch.randn(len(priors), 2, generator=g) * noise
    priors = priors + torch.cat([shift, shift], 1)
    gts = [random_boxes(g, n, 200, 333) for n in (5, 0, 30)]
    for share in (0.01, 0.6, 1.0):
        assert_same_bits(
            priors, counts, gts, topk,
            valid=torch.rand(3, len(priors), generator=g) < share,
            ignore_boxes=[random_boxes(g, n, 200, 333) for n in (2, 1, 0)],
            ignore_iof_thr=0.5,
        )  # fmt: skip
    each = priors + torch.arange(3.0)[:, None, None] * 7
    assert_same_bits(each, counts, gts, topk)


def test_prediction_aware_overlaps():
    g = torch.Generator().manual_seed(0)
    priors, counts = grid(200, 333)
    gts = [random_boxes(g, n, 200, 333) for n in (5, 0, 30)]
    assert_same_bits(
        priors, counts, gts, alpha=0.8,
        pred_boxes=priors + torch.randn(3, *priors.shape, generator=g) * 4,
        pred_scores=torch.randn(3, len(priors), 6, generator=g),
        gt_labels=[torch.randint(6, (len(gt),), generator=g) for gt in gts],
    )  # fmt: skip


def test_more_images_than_one_launch_takes():
    g = torch.Generator().manual_seed(1)
    priors, counts = grid(64, 64)
    gts = [random_boxes(g, i % 4, 64, 64) for i in range(450)]
    crowds = [random_boxes(g, i % 2, 64, 64) for i in range(450)]
    assert_same_bits(priors, counts, gts, ignore_boxes=crowds, ignore_iof_thr=0.5)


def test_degenerate_input():
    nan, inf = float("nan"), float("inf")
    priors, counts = grid(64, 64)
    rows = [[10, 10, 10, 30], [30, 30, 10, 10], [nan] * 4, [0, 0, inf, 9], [8, 8, 40, 40]]
    assert_same_bits(priors, counts, [torch.tensor(rows)])
    spoilt = priors.clone()
    spoilt[::5] = nan
    assert_same_bits(spoilt, counts, [torch.tensor(rows)])
    assert_same_bits(priors, counts, [torch.zeros(0, 4)] * 2)
    assert_same_bits(torch.zeros(0, 4), [0, 0], [torch.tensor(rows)])
    assert_same_bits(priors, counts, [])


def test_too_many_candidates_are_refused():
    priors, counts = grid(800, 800, strides=(4, 8, 16))
    with pytest.raises(RuntimeError, match="lower topk"):
        atss_assign(priors.cuda(), counts, [torch.zeros(1, 4).cuda()], topk=2000)


def test_nothing_waits_for_the_device():
    g = torch.Generator().manual_seed(2)
    priors, counts = grid(200, 333)
    gts = [random_boxes(g, n, 200, 333).cuda() for n in (5, 0, 30)]
    crowds = [random_boxes(g, 1, 200, 333).cuda() for _ in gts]
    valid = torch.ones(3, len(priors), dtype=torch.bool).cuda()
    priors = priors.cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            atss_assign(
                priors, counts, gts, valid=valid, ignore_boxes=crowds, ignore_iof_thr=0.5
            )  # fmt: skip
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", MODES)
def test_overlaps_and_gradients(mode, dtype):
    g = torch.Generator().manual_seed(3)
    a, b = (random_boxes(g, n, 200, 333).to(dtype).requires_grad_() for n in (70, 130))
    p, q = (x.detach().cuda().requires_grad_() for x in (a, b))
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {}
    for function, n in ((pairwise_box_iou, None), (aligned_box_iou, 70)):
        want, got = function(a, b[:n], mode), function(p, q[:n], mode)
        torch.testing.assert_close(got.cpu(), want, **tolerance)
        want_grads = torch.autograd.grad(want.square().sum(), (a, b))
        got_grads = torch.autograd.grad(got.square().sum(), (p, q))
        for x, y in zip(got_grads, want_grads, strict=True):
            torch.testing.assert_close(x.cpu(), y, **tolerance)
        again = torch.autograd.grad(function(p, q[:n], mode).square().sum(), (p, q))
        assert all(torch.equal(x, y) for x, y in zip(again, got_grads, strict=True))
    if mode in ("iou", "iof"):
        assert torch.equal(pairwise_box_iou(p, q, mode).cpu(), pairwise_box_iou(a, b, mode))


@pytest.mark.parametrize("name", ["pairwise_box_iou", "aligned_box_iou"])
def test_opcheck(name):
    boxes = random_boxes(torch.Generator().manual_seed(4), 6, 99, 99).cuda().requires_grad_()
    torch.library.opcheck(getattr(torch.ops.negvision, name).default, (boxes, boxes, 2, 1e-6))
