"""Focal losses against loops over Python floats, torchvision, and numerical gradients."""

import math

import pytest
import torch

from negvision.compat import mmcv_ext

# Each class, the background (4 of 4 classes), and an ignored label.
TARGET = torch.tensor([0, 1, 2, 3, 4, -1])
ALPHA = 0.3  # not a binary fraction: shows where a float64 computation passes through float32


def logits(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, generator=generator, dtype=torch.float64).mul(3).to(dtype)


def class_weights():
    return torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)


def reference_sigmoid(x, target, gamma, alpha, weight):
    loss = torch.zeros_like(x)
    for n, label in enumerate(target.tolist()):
        for c in range(x.shape[1]):
            p = 1 / (1 + math.exp(-float(x[n, c])))
            if c == label:
                value = -alpha * (1 - p) ** gamma * math.log(p)
            else:
                value = -(1 - alpha) * p**gamma * math.log(1 - p)
            known = 0 <= label < x.shape[1]
            loss[n, c] = value * (float(weight[label]) if weight is not None and known else 1)
    return loss


def reference_softmax(x, target, gamma, alpha, weight):
    loss = x.new_zeros(len(x))
    for n, label in enumerate(target.tolist()):
        if label < 0:
            continue
        exponentials = [math.exp(value) for value in x[n].tolist()]
        p = exponentials[label] / sum(exponentials)
        loss[n] = -alpha * (1 - p) ** gamma * math.log(p)
        if weight is not None:
            loss[n] *= weight[label]
    return loss


@pytest.mark.parametrize("weight", [None, class_weights()], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_sigmoid_focal_loss(substituted_mmcv, gamma, weight):
    x = logits().requires_grad_()
    expected = reference_sigmoid(x.detach(), TARGET, gamma, ALPHA, weight)
    loss = substituted_mmcv.sigmoid_focal_loss(x, TARGET, gamma, ALPHA, weight, "none")
    torch.testing.assert_close(loss, expected)
    mean = substituted_mmcv.sigmoid_focal_loss(x, TARGET, gamma, ALPHA, weight, "mean")
    torch.testing.assert_close(mean, expected.sum() / len(x))
    for reduction in ("none", "mean", "sum"):
        torch.autograd.gradcheck(
            lambda x, reduction=reduction: substituted_mmcv.sigmoid_focal_loss(
                x, TARGET, gamma, ALPHA, weight, reduction
            ),
            x,
        )


def test_sigmoid_focal_loss_is_exact_where_a_probability_underflows(substituted_mmcv):
    x = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    loss = substituted_mmcv.sigmoid_focal_loss(x, torch.tensor([0]), 2.0, 0.25, None, "none")
    torch.testing.assert_close(loss, torch.tensor([[0.25 * 200, 0.75 * 200]]))
    loss.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[-0.25, 0.75]]))


@pytest.mark.parametrize("weight", [None, class_weights()], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_softmax_focal_loss(substituted_mmcv, gamma, weight):
    x, target = logits().requires_grad_(), TARGET.where(TARGET != 4, 0)
    expected = reference_softmax(x.detach(), target, gamma, ALPHA, weight)
    loss = substituted_mmcv.softmax_focal_loss(x, target, gamma, ALPHA, weight, "none")
    torch.testing.assert_close(loss, expected)
    for reduction in ("mean", "sum"):
        torch.autograd.gradcheck(
            lambda x, reduction=reduction: substituted_mmcv.softmax_focal_loss(
                x, target, gamma, ALPHA, weight, reduction
            ),
            x,
        )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_softmax_focal_loss_stays_finite_at_certainty(substituted_mmcv, gamma):
    x = torch.tensor([[500.0, -500.0], [-500.0, 500.0]], requires_grad=True)
    loss = substituted_mmcv.softmax_focal_loss(x, torch.tensor([0, 0]), gamma, 0.25, None, "sum")
    loss.backward()
    assert loss.isfinite() and x.grad.isfinite().all()


@pytest.mark.parametrize("name", ["sigmoid_focal_loss", "softmax_focal_loss"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(substituted_mmcv, name, dtype):
    function = getattr(substituted_mmcv, name)
    target = TARGET.clamp(max=3)
    half = logits(dtype).requires_grad_()
    loss = function(half, target, 2.0, ALPHA, None, "sum")
    loss.backward()
    expected = function(half.detach().double(), target, 2.0, ALPHA, None, "sum")
    assert loss.dtype == half.grad.dtype == dtype
    torch.testing.assert_close(loss.double(), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", ["sigmoid_focal_loss", "softmax_focal_loss"])
def test_no_samples(substituted_mmcv, name):
    x = torch.zeros(0, 4, requires_grad=True)
    target = torch.zeros(0, dtype=torch.long)
    loss = getattr(substituted_mmcv, name)(x, target, 2.0, 0.25, torch.ones(4), "sum")
    loss.backward()
    assert loss == 0 and x.grad.shape == (0, 4)


def test_backward_fills_the_scratch_buffer():
    probabilities, target = logits().softmax(dim=1), TARGET.clamp(max=3)
    buffer, gradient = torch.zeros(6, dtype=torch.float64), torch.zeros_like(probabilities)
    weight = probabilities.new_zeros(0)
    mmcv_ext.softmax_focal_loss_backward(
        probabilities, target, weight, buffer, gradient, gamma=2.0, alpha=ALPHA
    )
    assert (buffer[:5] < 0).all() and buffer[5] == 0
    torch.testing.assert_close(gradient.sum(dim=1), torch.zeros_like(buffer))
