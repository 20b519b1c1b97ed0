import math

import pytest
import torch
from oracles.unpg import MARGINS

from negvision.face.margins import (
    AdaFaceMargin,
    ArcFaceMargin,
    CosFaceMargin,
    MagFaceMargin,
    NoMargin,
)
from negvision.registry import MODELS

ANGLES = [0.01, 0.4, 1.0, 1.57, 1.58, 2.0, 2.6, 2.7, 3.1]  # radians; pi - 0.5 is 2.6416


def cosines(angles, dtype=torch.float64):
    return torch.tensor(angles, dtype=dtype).cos()


def norms_of(*values):
    return torch.tensor(values, dtype=torch.float64)


def close(got, wanted, tolerance=1e-9):
    torch.testing.assert_close(got, norms_of(*wanted), rtol=0, atol=tolerance)


def test_no_margin_and_cosface():
    cosine = cosines(ANGLES)
    assert torch.equal(NoMargin()(cosine, torch.ones_like(cosine)), cosine)
    close(CosFaceMargin(0.35)(cosine, cosine), [math.cos(a) - 0.35 for a in ANGLES])


@pytest.mark.parametrize("m", [0.0, 0.3, 0.5, math.pi / 2])
def test_arcface_before_and_past_pi(m):
    wanted = [math.cos(a + m) if a + m < math.pi else math.cos(a) - m * math.sin(m) for a in ANGLES]
    close(ArcFaceMargin(m)(cosines(ANGLES), torch.ones(len(ANGLES))), wanted)


def test_easy_margin_leaves_samples_beyond_a_right_angle():
    wanted = [math.cos(a + 0.5) if a < math.pi / 2 else math.cos(a) for a in ANGLES]
    close(ArcFaceMargin(0.5, easy_margin=True)(cosines(ANGLES), torch.ones(len(ANGLES))), wanted)


def test_arcface_without_the_derivative_of_the_angle():
    cosine = torch.tensor([0.6, -0.95, 1.0], dtype=torch.float64, requires_grad=True)
    given, detached = (ArcFaceMargin(0.5, detach_angle=d)(cosine, None) for d in (False, True))
    torch.testing.assert_close(given, detached)
    assert torch.autograd.grad(detached.sum(), cosine)[0].tolist() == [1, 1, 1]
    angle = math.acos(0.6)
    slope = torch.autograd.grad(given[0], cosine)[0][0].item()
    assert slope == pytest.approx(math.sin(angle + 0.5) / math.sin(angle))


def test_magface_margin_grows_with_the_norm():
    # 0.45 at 10, 0.8 at 110: 0.0035 more with each unit of the norm, and no more outside.
    norms, margins = norms_of(1, 10, 60, 110, 500), [0.45, 0.45, 0.625, 0.8, 0.8]
    turned = MagFaceMargin()(cosines([1.0] * 5), norms)
    close(turned, [math.cos(1.0 + m) for m in margins])


def test_magface_past_pi():
    norms = norms_of(110, 110)
    close(
        MagFaceMargin(easy_margin=False)(cosines([2.0, 2.5]), norms),
        [math.cos(2.8), math.cos(2.5) - 0.8 * math.sin(0.8)],
    )
    close(MagFaceMargin()(cosines([2.0, 2.5]), norms), [math.cos(2.0), math.cos(2.5)])


def test_magface_regularizer():
    g = {10: 10 / 12100 + 1 / 10, 110: 110 / 12100 + 1 / 110, 55: 55 / 12100 + 1 / 55}
    for norm, value in g.items():
        assert MagFaceMargin().regularizer(norms_of(norm)).item() == pytest.approx(35 * value)
    together = MagFaceMargin(lambda_g=2.0).regularizer(norms_of(3, 55, 110, 999))
    assert together.item() == pytest.approx(2 * (g[10] + g[55] + 2 * g[110]) / 4)


def test_magface_gradient_of_the_norm():
    norms = norms_of(60).requires_grad_()
    (slope,) = torch.autograd.grad(MagFaceMargin()(cosines([1.0]), norms).sum(), norms)
    assert slope.item() == pytest.approx(-math.sin(1.0 + 0.625) * 0.0035)
    (slope,) = torch.autograd.grad(MagFaceMargin().regularizer(norms), norms)
    assert slope.item() == pytest.approx(35 * (1 / 12100 - 1 / 3600))


def test_adaface_by_hand():
    margin = AdaFaceMargin().double().eval()
    margin.mean.fill_(20.0)
    margin.std.fill_(4.0)
    # Deviations of -2, 0, 1 and 20, which is clamped to 1 in the end.
    turned = margin(cosines([1.0] * 4), norms_of(12, 20, 24, 100))
    quality = [-8 / 4.001 * 0.333, 0, 4 / 4.001 * 0.333, 1]
    close(turned, [math.cos(1.0 - 0.4 * q) - 0.4 - 0.4 * q for q in quality])
    # The angle stays between 0 and pi.
    turned = margin(cosines([0.2, 3.1]), norms_of(99, 1))
    close(turned, [math.cos(1e-3) - 0.8, math.cos(math.pi - 1e-3)])


def test_adaface_running_statistics():
    margin = AdaFaceMargin(momentum=0.25)
    norms = torch.tensor([10.0, 20.0, 30.0, 500.0])  # the last counts as 100
    margin(torch.zeros(4), norms)
    values = [10.0, 20.0, 30.0, 100.0]
    deviation = math.sqrt(sum((v - 40) ** 2 for v in values) / 3)
    assert margin.mean.item() == pytest.approx(0.75 * 20 + 0.25 * 40)
    assert margin.std.item() == pytest.approx(0.75 * 100 + 0.25 * deviation)
    before = margin.mean.clone(), margin.std.clone()
    margin.eval()(torch.zeros(4), norms)
    assert (margin.mean, margin.std) == before
    margin.train()(torch.zeros(1), norms[:1])  # one sample has no deviation
    assert margin.std == before[1] and margin.mean != before[0]


def test_adaface_gives_the_norm_no_gradient():
    norms = norms_of(30, 60).requires_grad_()
    cosine = cosines([1.0, 1.2]).requires_grad_()
    AdaFaceMargin().double()(cosine, norms).sum().backward()
    assert norms.grad is None and (cosine.grad > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MARGINS)
def test_finite_at_the_ends_and_beyond_by_rounding(name, dtype):
    step = torch.finfo(dtype).eps
    cosine = torch.tensor([1, -1, 1 + step, -1 - step, 1 - step], dtype=dtype).requires_grad_()
    norms = torch.full_like(cosine, 25.0)
    turned = MODELS.build({"type": f"negvision.{name}"})(cosine, norms)
    (gradient,) = torch.autograd.grad(turned.sum(), cosine)
    assert turned.isfinite().all() and gradient.isfinite().all()
    assert (turned <= cosine + 1e-3).all()


@pytest.mark.parametrize("name", MARGINS)
def test_gradient_in_float64(name):
    norms = norms_of(15, 30, 60, 90, 12)
    module = MODELS.build({"type": f"negvision.{name}"}).double().eval()
    cosine = cosines([0.3, 1.0, 1.4, 2.2, 2.9]).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: module(c, norms), cosine)
    assert module(cosine[:0], norms[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("margin", "arguments", "message"),
    [
        (CosFaceMargin, {"m": -0.1}, "at least 0, got -0.1"),
        (ArcFaceMargin, {"m": 28.6}, "at most 1.5708, got 28.6"),
        (MagFaceMargin, {"u_margin": 45}, "at most 1.5708, got 45"),
        (MagFaceMargin, {"l_a": 0}, "0 < l_a < u_a, got 0 and 110"),
        (MagFaceMargin, {"l_a": 120}, "0 < l_a < u_a, got 120 and 110"),
        (AdaFaceMargin, {"m": math.nan}, "at least 0, got nan"),
        (AdaFaceMargin, {"momentum": 0}, r"lie in \(0, 1\], got 0"),
    ],
)
def test_wrong_arguments(margin, arguments, message):
    with pytest.raises(ValueError, match=message):
        margin(**arguments)
