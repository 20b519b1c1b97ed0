"""Box overlaps and their gradients against formulas written out for one pair at a time."""

import math

import pytest
import torch
from helpers.atss_cases import COMPILED

from negvision.ops import aligned_box_iou, fallback, pairwise_box_iou
from negvision.ops.boxes import MODES

needs_extension = pytest.mark.skipif(not COMPILED, reason="the extension is not built")
TOLERANCE = {torch.float32: {"rtol": 1e-5, "atol": 1e-6}, torch.float64: {"rtol": 1e-12, "atol": 0}}


def boxes(seed: int, count: int, dtype=torch.float64) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=g, dtype=torch.float64) * 10
    return torch.cat([low, low + torch.rand(count, 2, generator=g).double() * 8 + 0.1], 1).to(dtype)


def oracle(a, b, mode, eps=1e-6) -> float:
    """One pair, in Python's floats."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.tolist(), b.tolist()
    inter = max(0, min(ax2, bx2) - max(ax1, bx1)) * max(0, min(ay2, by2) - max(ay1, by1))
    area_a, area_b = (ax2 - ax1) * (ay2 - ay1), (bx2 - bx1) * (by2 - by1)
    if mode == "iof":
        return inter / max(area_a, eps)
    union = max(area_a + area_b - inter, eps)
    iou = inter / union
    w, h = max(ax2, bx2) - min(ax1, bx1), max(ay2, by2) - min(ay1, by1)
    if mode == "giou":
        return iou - (max(w * h, eps) - union) / max(w * h, eps)
    center = ((ax1 + ax2 - bx1 - bx2) / 2) ** 2 + ((ay1 + ay2 - by1 - by2) / 2) ** 2
    distance = center / max(w * w + h * h, eps)
    if mode == "diou":
        return iou - distance
    if mode == "ciou":
        angles = math.atan((ax2 - ax1) / max(ay2 - ay1, eps)) - math.atan(
            (bx2 - bx1) / max(by2 - by1, eps)
        )
        v = 4 / math.pi**2 * angles**2
        return iou - distance - v / max(1 - iou + v, eps) * v
    return iou


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("mode", MODES)
def test_values(path, mode, dtype):
    a, b = boxes(0, 7, dtype), boxes(1, 9, dtype)
    a[0] = b[0]
    want = torch.tensor([[oracle(p, q, mode) for q in b] for p in a], dtype=dtype)
    got = pairwise_box_iou(a, b, mode)
    torch.testing.assert_close(got, want, **TOLERANCE[dtype])
    torch.testing.assert_close(aligned_box_iou(a, b[:7], mode), got[:, :7].diagonal())


@pytest.mark.parametrize("mode", MODES)
def test_boxes_that_touch_coincide_or_are_empty(path, mode):
    rows = [[0, 0, 2, 2], [2, 0, 4, 2], [0, 0, 2, 2], [1, 1, 1, 1], [3, 3, 1, 1], [0, 0, 0, 4]]
    a = torch.tensor(rows, dtype=torch.float32)
    want = torch.tensor([[oracle(p, q, mode) for q in a] for p in a])
    got = pairwise_box_iou(a, a, mode)
    assert got.isfinite().all()
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert got[0, 2] == 1
    if mode in ("iou", "iof"):
        assert got[0, 1] == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("place", range(4))
def test_nan_stays_nan(path, place, mode):
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    spoilt = a.clone()
    spoilt[0, place] = float("nan")
    for function in (pairwise_box_iou, aligned_box_iou):
        assert function(spoilt, a, mode).isnan().all()
        assert function(a, spoilt, mode).isnan().all()


@needs_extension
@pytest.mark.parametrize("function", [pairwise_box_iou, aligned_box_iou])
def test_second_derivatives_are_refused(function):
    a, b = boxes(18, 3).requires_grad_(), boxes(19, 3)
    (grad,) = torch.autograd.grad(function(a, b).sum(), a, create_graph=True)
    with pytest.raises(NotImplementedError, match="once, not twice"):
        grad.sum().backward()


@pytest.mark.parametrize("mode", MODES)
def test_no_boxes(path, mode):
    a, none = boxes(0, 3).requires_grad_(), torch.zeros(0, 4, dtype=torch.float64)
    assert pairwise_box_iou(a, none, mode).shape == (3, 0)
    assert pairwise_box_iou(none, a, mode).shape == (0, 3)
    assert aligned_box_iou(none, none, mode).shape == (0,)
    pairwise_box_iou(a, none, mode).sum().backward()
    assert not a.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(path, dtype):
    a, b = boxes(4, 5, dtype), boxes(5, 6, dtype)
    got = pairwise_box_iou(a, b)
    assert got.dtype == torch.float32
    assert torch.equal(got, pairwise_box_iou(a.float(), b.float()))


@pytest.mark.parametrize("mode", MODES[:4])
@pytest.mark.parametrize("function", [pairwise_box_iou, aligned_box_iou])
def test_gradcheck(path, function, mode):
    a, b = boxes(6, 4).requires_grad_(), boxes(7, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: function(x, y, mode), (a, b))


@pytest.mark.parametrize("function", [pairwise_box_iou, aligned_box_iou])
def test_gradient_of_ciou_holds_its_weight_fixed(path, function):
    a, b = boxes(8, 4).requires_grad_(), boxes(9, 4).requires_grad_()
    p, q = (a[:, None], b[None]) if function is pairwise_box_iou else (a, b)
    angle = [torch.atan((x[..., 2] - x[..., 0]) / (x[..., 3] - x[..., 1])) for x in (p, q)]
    v = 4 / math.pi**2 * (angle[0] - angle[1]) ** 2
    weight = (v / (1 - function(a, b) + v)).detach()
    want = function(a, b, "diou") - weight * v
    got = function(a, b, "ciou")
    torch.testing.assert_close(got, want)
    g = torch.rand(got.shape, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(
        torch.autograd.grad((got * g).sum(), (a, b)), torch.autograd.grad((want * g).sum(), (a, b))
    )


def test_gradients_reach_half_precision_boxes(path):
    a = boxes(10, 3, torch.bfloat16).requires_grad_()
    aligned_box_iou(a, boxes(11, 3, torch.bfloat16), "giou").sum().backward()
    assert a.grad.dtype == torch.bfloat16 and a.grad.any()


@needs_extension
@pytest.mark.parametrize("mode", range(len(MODES)))
@pytest.mark.parametrize("name", ["pairwise_box_iou", "aligned_box_iou"])
def test_opcheck(name, mode):
    a, b = (
        boxes(12, 5, torch.float32).requires_grad_(),
        boxes(13, 5, torch.float32).requires_grad_(),
    )
    torch.library.opcheck(getattr(torch.ops.negvision, name).default, (a, b, mode, 1e-6))


@needs_extension
def test_gradients_are_the_same_in_every_run_and_on_any_number_of_threads():
    a, b = (
        boxes(14, 300, torch.float32).requires_grad_(),
        boxes(15, 200, torch.float32).requires_grad_(),
    )
    threads, grads = torch.get_num_threads(), []
    try:
        for number in (1, 2, 4, 4):
            torch.set_num_threads(number)
            grads.append(torch.autograd.grad(pairwise_box_iou(a, b, "ciou").sum(), (a, b)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(g, w) for run in grads[1:] for g, w in zip(run, grads[0], strict=True))


@needs_extension
def test_compiles_without_a_break():
    a, b = boxes(16, 5, torch.float32), boxes(17, 6, torch.float32)

    def loss(x, y):
        return pairwise_box_iou(x, y, "giou").sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    x, y = a.clone().requires_grad_(), a.clone().requires_grad_()
    compiled(x, b).backward()
    loss(y, b).backward()
    torch.testing.assert_close(x.grad, y.grad)


BOX = torch.zeros(2, 4)


@pytest.mark.parametrize(
    "arguments,error,message",
    [
        ((BOX, BOX, "dice"), ValueError, "mode is 'dice'; it must be one of iou, iof, giou"),
        ((BOX[:, :3], BOX), ValueError, r"boxes1 must have shape \(N, 4\), got \(2, 3\)"),
        ((BOX, BOX[0]), ValueError, r"boxes2 must have shape \(N, 4\), got \(4,\)"),
        ((BOX.long(), BOX), TypeError, "boxes1 must be floating-point, got torch.int64"),
        ((BOX, BOX.to("meta")), ValueError, "boxes1 are on cpu and boxes2 on meta"),
    ],
)
def test_errors_name_what_was_expected(path, arguments, error, message):
    for function in (pairwise_box_iou, aligned_box_iou):
        with pytest.raises(error, match=message):
            function(*arguments)
    with pytest.raises(ValueError, match="equally many boxes, got 2 and 1"):
        aligned_box_iou(BOX, BOX[:1])


def test_pairs_in_chunks_are_the_same_with_gradients(monkeypatch):
    first, second = boxes(0, 7).requires_grad_(), boxes(1, 5)
    whole = fallback.pairwise_box_iou(first, second, "giou", 1e-6)
    monkeypatch.setattr(fallback, "_PAIRS_AT_ONCE", 12)
    parts = fallback.pairwise_box_iou(first, second, "giou", 1e-6)
    assert torch.equal(parts, whole)
    gradients = [torch.autograd.grad(ious.sum(), first)[0] for ious in (whole, parts)]
    torch.testing.assert_close(*gradients)
