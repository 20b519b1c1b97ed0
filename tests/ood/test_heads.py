"""Cosine logits, the learned temperature, and both together."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from negvision.ood import AbeTLogits, CosineLogits, InnerLogits, LearnedTemperature, abet_score


def cosine_written_out(weight, features):
    """The formula for one feature and one class at a time."""
    rows = []
    for h in features:
        norms = [(w.norm() + 1e-4) * (h.norm() + 1e-4) for w in weight]
        rows.append(torch.stack([w @ h / n for w, n in zip(weight, norms, strict=True)]))
    return torch.stack(rows)


def as_map(features, height, width):
    """(N * H * W, D) as (N, D, H, W)."""
    return features.view(-1, height, width, features.shape[1]).permute(0, 3, 1, 2)


def test_cosines_equal_the_formula_in_float64():
    torch.manual_seed(0)
    head = CosineLogits(6, 4).double()
    features = torch.randn(24, 6, dtype=torch.float64)
    expected = cosine_written_out(head.weight, features)
    torch.testing.assert_close(head(features), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(
        head(as_map(features, 3, 4)), as_map(expected, 3, 4), rtol=0, atol=1e-14
    )


def test_zero_features_give_zero_logits_and_finite_gradients():
    head = CosineLogits(8, 3)
    features = torch.zeros(2, 8, requires_grad=True)
    logits = head(features)
    logits.sum().backward()
    assert torch.equal(logits, torch.zeros(2, 3))
    assert features.grad.isfinite().all() and head.weight.grad.isfinite().all()


@pytest.mark.parametrize("conv", [False, True])
def test_temperature_equals_the_formula_in_float64(conv):
    torch.manual_seed(0)
    head = LearnedTemperature(6, conv).double().train()
    features = torch.randn(24, 6, dtype=torch.float64) * 3
    values = features @ head.linear.weight.view(6) + (0 if conv else head.linear.bias)
    with torch.no_grad():
        head.norm.weight.fill_(1.7)
        head.norm.bias.fill_(-0.3)
    normed = (values - values.mean()) / (values.var(unbiased=False) + head.norm.eps).sqrt()
    expected = 1 / (1 + torch.exp(-(1.7 * normed - 0.3))) + 1e-12
    given = as_map(features, 3, 4) if conv else features
    found = head(given)
    assert found.shape == ((2, 3, 4) if conv else (24,))
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("training", [False, True])
def test_empty_and_single_sample_batches(count, training):
    head = LearnedTemperature(4).train(training)
    features = torch.randn(count, 4)
    assert torch.equal(head(features), LearnedTemperature.forward(head.eval(), features))
    assert int(head.norm.num_batches_tracked) == 0


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("logits", ["cosine", "inner"])
def test_both_heads_together(conv, logits):
    torch.manual_seed(0)
    head = AbeTLogits(6, 4, conv=conv, logits=logits).double().eval()
    features = torch.randn(24, 6, dtype=torch.float64)
    given = as_map(features, 3, 4) if conv else features
    z, temperature = head(given)
    g = cosine_written_out(head.classifier.weight, features)
    if logits == "inner":
        g = features @ head.classifier.weight.T
    expected = g / temperature.flatten()[:, None]
    torch.testing.assert_close(z, as_map(expected, 3, 4) if conv else expected)
    score = abet_score(z, dim=1).flatten()
    torch.testing.assert_close(score, -expected.exp().sum(1).log())


@pytest.mark.parametrize("initial", [0.5, 0.05])
def test_the_temperature_starts_where_it_is_told_also_after_a_reset(initial):
    torch.manual_seed(0)
    head = AbeTLogits(8, 3, initial_temperature=initial).temperature
    for reset in (False, True):
        if reset:
            head.norm.bias.data.fill_(9)
            head.reset_parameters()
        values = head(torch.randn(400, 8))
        logits = (values / (1 - values)).log()
        assert logits.mean().item() == pytest.approx(math.log(initial / (1 - initial)), abs=1e-3)
    assert (head.norm.bias == 0) == (initial == 0.5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("conv", [False, True])
def test_autocast_changes_nothing(dtype, conv):
    """Logits and scores equal float32 arithmetic on the half-precision feature."""
    torch.manual_seed(0)
    head = AbeTLogits(8, 5, conv=conv)
    features = torch.randn(*((4, 8, 3, 3) if conv else (36, 8))).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        z, temperature = head(features)
        score = abet_score(z, 1)
    assert z.dtype == temperature.dtype == score.dtype == torch.float32
    expected, _ = head(features.float())
    torch.testing.assert_close(z, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_at_the_lowest_temperature(dtype):
    """Scores, loss and gradients stay finite when the sigmoid underflows to T = 1e-12."""
    head = AbeTLogits(8, 5)
    nn.init.zeros_(head.temperature.norm.weight)
    nn.init.constant_(head.temperature.norm.bias, -1e4)
    features = torch.randn(16, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        z, temperature = head(features)
        loss = F.cross_entropy(z, torch.arange(16) % 5)
    assert torch.all(temperature == 1e-12)
    assert abet_score(z).isfinite().all() and loss.isfinite()
    loss.backward()
    assert features.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("conv", [False, True])
def test_shapes_on_the_meta_device(conv):
    head = AbeTLogits(8, 5, conv=conv).to("meta")
    features = torch.empty(*((4, 8, 3, 3) if conv else (36, 8)), device="meta")
    z, temperature = head(features)
    assert z.shape == ((4, 5, 3, 3) if conv else (36, 5))
    assert temperature.shape == ((4, 3, 3) if conv else (36,))


def test_compiles_to_one_graph():
    head = AbeTLogits(16, 10).eval()
    assert torch._dynamo.explain(head)(torch.randn(5, 16)).graph_break_count == 0


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: CosineLogits(8, 3)(torch.zeros(2, 7)), r"features must be \(N, 8\) or"),
        (lambda: InnerLogits(8, 3)(torch.zeros(2, 8, 3)), r"features must be \(N, 8\) or"),
        (lambda: CosineLogits(0, 3), "in_features must be at least 1, got 0"),
        (lambda: CosineLogits(4, 0), "num_classes must be at least 1, got 0"),
        (lambda: AbeTLogits(4, 2, logits="linear"), "one of cosine, inner, got 'linear'"),
        (
            lambda: AbeTLogits(4, 2, initial_temperature=1.0),
            "initial_temperature must be between 0 and 1, got 1.0",
        ),
        (
            lambda: LearnedTemperature(4)(torch.zeros(1, 4, 2, 2)),
            r"features must be \(N, D\), got \(1, 4, 2, 2\)",
        ),
        (
            lambda: LearnedTemperature(4, conv=True)(torch.zeros(2, 4)),
            r"features must be \(N, D, H, W\), got \(2, 4\)",
        ),
    ],
)
def test_bad_arguments(use, message):
    with pytest.raises(ValueError, match=message):
        use()
