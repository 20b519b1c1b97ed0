"""Products of rounded factors: how far off their log-sums and gradients are."""

import math

import pytest
import torch
from helpers.negatives_cases import units

from negvision.ops import class_logsumexp

ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


@pytest.mark.parametrize("products", ROUNDING)
@pytest.mark.parametrize("tile", [40, None])
def test_rounded_products(path, products, tile):
    """Within the stated bound of float32, on random data and where rounding errs most."""
    scale, unit = 64.0, ROUNDING[products]
    e = units(0, 30, 64, torch.float32).requires_grad_()
    w = (units(1, 200, 64, torch.float32) * 3).requires_grad_()
    labels, weights = torch.arange(30).flip(0), torch.linspace(0.5, 1.5, 30)
    got = class_logsumexp(e, w, labels, scale, tile=tile, products=products)
    exact = class_logsumexp(e, w, labels, scale)
    assert got.dtype == torch.float32
    assert 0 < (got - exact).abs().max() < scale * 2 * unit
    # The softmax moves by as much, up and down, and its weights are rounded as well.
    bound = math.expm1(2 * scale * 2 * unit) + 3 * unit
    gradients = torch.autograd.grad(got, (e, w), weights)
    for mine, want in zip(gradients, torch.autograd.grad(exact, (e, w), weights), strict=True):
        assert mine.dtype == torch.float32
        assert (mine - want).norm() < bound * want.norm()
        assert (mine - want).norm() < 8 * unit * want.norm()  # what is seen
    # Components just above a power of two by half a place: all are cut in the same direction.
    one = torch.full((1, 254), 254**-0.5)
    other = torch.tensor([7])
    got = class_logsumexp(one, one, other, 1.0, tile=tile, products=products)
    off = (got - class_logsumexp(one, one, other, 1.0)).abs().item()
    assert off < 2.01 * unit and (off > unit or products == torch.float16)


@pytest.mark.parametrize("products", ROUNDING)
@pytest.mark.parametrize("size", [1e-30, 1e-9, 1.0, 1e9])
def test_rounded_products_of_small_and_large_gradients(path, products, size):
    """Weights of a mean over a batch and many classes are below what float16 tells from 0."""
    e = units(0, 8, 16, torch.float32).requires_grad_()
    w = units(1, 5_000, 16, torch.float32).requires_grad_()
    labels = torch.arange(8)
    of_e, of_w = (
        torch.autograd.grad(
            class_logsumexp(e, w, labels, 16.0, products=which), (e, w), torch.full((8,), size)
        )
        for which in (products, None)
    )
    for mine, want in zip(of_e, of_w, strict=True):
        assert (mine / size - want / size).norm() < 8 * ROUNDING[products] * (want / size).norm()


def test_rounded_products_of_no_sample(path):
    e, w = torch.zeros(0, 4).requires_grad_(), units(1, 3, 4, torch.float32).requires_grad_()
    got = class_logsumexp(e, w, torch.zeros(0).long(), 1.0, products=torch.bfloat16)
    got.sum().backward()
    assert got.shape == (0,) and not w.grad.any()


def test_rounded_products_of_other_types(path):
    e, labels = units(0, 3), torch.arange(3)
    for embeddings, products in ((e, torch.bfloat16), (e.float(), torch.float64)):
        with pytest.raises(ValueError, match=r"products must be None, or torch\.bfloat16"):
            class_logsumexp(embeddings, e, labels, 1.0, products=products)
