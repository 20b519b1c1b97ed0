"""What needs a GPU: limits, no waits for the device, gradients and log-sums against the CPU.

The assignment is compared in test_cuda_on_host.py.
"""

import pytest
import torch
from helpers.atss_cases import grid, random_boxes
from helpers.prediction_cases import RULES, arguments, assign, predictions

from negvision.ops import (
    aligned_box_iou,
    atss_assign,
    class_logsumexp,
    extension_info,
    max_iou_assign,
    pair_logsumexp,
    pairwise_box_iou,
    task_aligned_targets,
)
from negvision.ops.boxes import MODES

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def compiled():
    assert extension_info()["cuda"], "build the CUDA kernels: FORCE_CUDA=1 make env"


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


@pytest.mark.parametrize("rule", RULES)
def test_other_assignments_wait_for_nothing(rule):
    priors, boxes, scores, gt, labels = (
        x.cuda() for x in arguments(rule, predictions(0, count=40, size=256))
    )
    batch = priors, boxes.expand(2, -1, -1), scores.expand(2, -1, -1), [gt, gt[:0]]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        assign(rule, *batch, [labels, labels[:0]])
        max_iou_assign(priors, batch[3], [labels, labels[:0]], 0.5, 0.4)
        if rule == "contained":
            mask = torch.ones_like(gt[None, :, :1])
            task_aligned_targets(
                scores[None], boxes[None], priors[:, :2], labels[None, :, None], gt[None], mask
            )  # fmt: skip
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("rule", RULES)
def test_too_large_topk_is_refused(rule):
    priors, boxes, scores, gt, labels = (
        x.cuda() for x in arguments(rule, predictions(0, size=256))
    )
    with pytest.raises(RuntimeError, match="lower topk"):
        assign(rule, priors, boxes[None], scores[None], [gt], [labels], 300)


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


def log_sums(e, w, labels, whisker, hold=1 << 24, tile=None):
    """Both log-sums, what is kept, and the gradients of their sum."""
    of_class = class_logsumexp(e, w, labels, 64.0, tile=tile)
    pairs = pair_logsumexp(e, labels, 64.0, whisker, hold=hold)
    grads = torch.autograd.grad(torch.logaddexp(of_class, pairs.value).sum(), (e, w))
    return of_class, *pairs, *grads


def batch(dtype, count=600, classes=20_000):
    g = torch.Generator().manual_seed(5)
    e = torch.nn.functional.normalize(torch.randn(count, 64, generator=g, dtype=dtype))
    w = torch.randn(classes, 64, generator=g, dtype=dtype)
    return e, w, torch.randint(classes // 100, (count,), generator=g)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("whisker", [0.0, 1.5, None])
def test_log_sums_of_negatives(dtype, whisker):
    e, w, labels = batch(dtype)
    want = log_sums(e.requires_grad_(), w.requires_grad_(), labels, whisker)
    p, q = (x.detach().cuda().requires_grad_() for x in (e, w))
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {}
    runs = [
        log_sums(p, q, labels.cuda(), whisker, hold, tile)
        for hold, tile in ((1 << 24, None), (0, 1 << 18), (0, 1 << 18))
    ]
    for got in runs:
        for name, x, y in zip(
            ("class", "pair", "bounds", "kept", "total"), got, want, strict=False
        ):
            if name == "kept" and dtype == torch.float32:
                assert abs(x.item() - y.item()) <= 4  # similarities beside a bound
            else:
                torch.testing.assert_close(x.cpu(), y, **tolerance, msg=name)
        for x, y in zip(got[5:], want[5:], strict=True):
            torch.testing.assert_close(x.cpu(), y, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(x, y) for x, y in zip(runs[1], runs[2], strict=True))


@pytest.mark.parametrize("products", [torch.bfloat16, torch.float16])
def test_rounded_products(products):
    unit = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[products]
    e, w, labels = batch(torch.float32)
    exact = class_logsumexp(e.requires_grad_(), w.requires_grad_(), labels, 64.0)
    want = torch.autograd.grad(exact.sum(), (e, w))
    p, q = (x.detach().cuda().requires_grad_() for x in (e, w))
    for tile in (None, 1 << 18):
        got = class_logsumexp(p, q, labels.cuda(), 64.0, tile=tile, products=products)
        assert got.dtype == torch.float32
        assert (got.cpu() - exact).abs().max() < 64 * 2 * unit
        for x, y in zip(torch.autograd.grad(got.sum(), (p, q)), want, strict=True):
            assert (x.cpu() - y).norm() < 8 * unit * y.norm()


@pytest.mark.parametrize("products", [None, torch.bfloat16])
def test_log_sums_wait_for_nothing(products):
    e, w, labels = (x.cuda() for x in batch(torch.float32))
    e.requires_grad_(), w.requires_grad_()
    log_sums(e, w, labels, 1.5)
    class_logsumexp(e, w, labels, 64.0, products=products).sum().backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for hold in (0, 1 << 24):
            log_sums(e, w, labels, 1.5, hold)
            log_sums(e, w, labels, None, hold)
        class_logsumexp(e, w, labels, 64.0, products=products).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_operators_on_negatives_pass_opcheck():
    ops, tile = torch.ops.negvision, torch.rand(6, 5000).cuda()
    labels = torch.arange(6).int().cuda(), (torch.arange(5000) % 9).int().cuda()
    bounds, each = torch.tensor([0.1, 0.9]).cuda(), torch.linspace(3, 4, 6).cuda()
    prefixes = torch.zeros(2, dtype=torch.int64).cuda()
    check = torch.library.opcheck
    check(ops.negatives_logsumexp.default, (tile, *labels, -6, bounds, 3.0))
    check(ops.negatives_softmax_.default, (tile.clone(), *labels, 0, bounds, 3.0, each, each))
    check(ops.negatives_histogram.default, (tile, *labels, 0, prefixes, 24))
