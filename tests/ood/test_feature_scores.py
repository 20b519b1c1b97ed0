"""Scores of features against loops over their formulas, their statistics, and heads."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from scipy.special import logsumexp

from negvision.errors import CheckpointError, OODDataError
from negvision.ood import (
    FEATURE_SCORE_NAMES,
    AbeTLogits,
    LinearLogits,
    fit_statistics,
)
from negvision.ood.feature_scores import build_feature_score, score_name

D, C, N = 12, 4, 200


def layer(seed=0, score="knn", **options):
    """A trained layer, features of its classes, and others."""
    torch.manual_seed(seed)
    head = LinearLogits(D, C, score, **options).double().eval()
    labels = torch.arange(N) % C
    features = 3 * head.weight.detach()[labels] + torch.randn(N, D, dtype=torch.float64)
    return head, features, 2 * torch.randn(30, D, dtype=torch.float64)


def alone(score, size=D, classes=C, **options):
    part = build_feature_score(score, size, classes, **options).eval()
    part.attach(torch.eye(classes, size), torch.zeros(classes), cosine=False)
    return part


def unit(rows):
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-10)


def knn(x, z, seen, outputs, head):
    distances = ((unit(x)[:, None] - unit(seen)) ** 2).sum(2)
    return np.sort(distances, axis=1)[:, 49]


def class_distances(x, seen, outputs):
    labels = outputs.argmax(1)
    means = {c: seen[labels == c].mean(0) for c in np.unique(labels)}
    inside = np.array([row - means[label] for row, label in zip(seen, labels, strict=True)])
    precision = np.linalg.pinv(inside.T @ inside / len(seen), hermitian=True)
    return [min(mahalanobis(row, mean, precision) ** 2 for mean in means.values()) for row in x]


def nearest_class(x, z, seen, outputs, head):
    return np.array(class_distances(x, seen, outputs))


def relative(x, z, seen, outputs, head):
    centered = seen - seen.mean(0)
    precision = np.linalg.pinv(centered.T @ centered / len(seen), hermitian=True)
    everywhere = [mahalanobis(row, seen.mean(0), precision) ** 2 for row in x]
    return np.array(class_distances(x, seen, outputs)) - everywhere


def vim(x, z, seen, outputs, head):
    origin = -np.linalg.pinv(head.weight.detach().numpy()) @ head.bias.detach().numpy()
    values, vectors = np.linalg.eigh((seen - origin).T @ (seen - origin) / len(seen))
    rest = vectors[:, np.argsort(-values)[D // 2 :]]
    alpha = outputs.max(1).mean() / np.linalg.norm((seen - origin) @ rest, axis=1).mean()
    return alpha * np.linalg.norm((x - origin) @ rest, axis=1) - logsumexp(z, 1)


def nnguide(x, z, seen, outputs, head):
    bank = unit(seen) * logsumexp(outputs, 1)[:, None]
    guidance = np.sort(unit(x) @ bank.T, axis=1)[:, -100:].mean(1)
    return -guidance * logsumexp(z, 1)


def fdbd(x, z, seen, outputs, head):
    weight = head.weight.detach().numpy()
    scores = []
    for row, logits in zip(x, z, strict=True):
        best = logits.argmax()
        others = [c for c in range(C) if c != best]
        apart = [np.linalg.norm(weight[best] - weight[c]) for c in others]
        total = sum((logits[best] - logits[c]) / d for c, d in zip(others, apart, strict=True))
        scores.append(-total / np.linalg.norm(row - seen.mean(0)))
    return np.array(scores)


FORMULAS = {
    "knn": knn,
    "mahalanobis": nearest_class,
    "relative_mahalanobis": relative,
    "vim": vim,
    "nnguide": nnguide,
    "fdbd": fdbd,
}


@pytest.mark.parametrize("name", FEATURE_SCORE_NAMES)
@pytest.mark.parametrize("maps", [False, True])
def test_each_equals_its_formula(name, maps):
    head, seen, others = layer(score=name)
    with fit_statistics(head), torch.no_grad():
        head(seen[:70])
        head(seen[70:])
    x = torch.cat([seen[:20], others])
    with torch.no_grad():
        z, found = head(x)
        if maps:  # (2, D, 5, 5)
            found = head.feature_score(
                x.view(2, 5, 5, D).permute(0, 3, 1, 2), z.view(2, 5, 5, C).permute(0, 3, 1, 2)
            )
            assert found.shape == (2, 5, 5)
        outputs = torch.nn.functional.linear(seen, head.weight, head.bias)
    expected = FORMULAS[name](*(part.numpy() for part in (x, z, seen, outputs)), head)
    # Sums are taken in float32 where the statistics are stored.
    np.testing.assert_allclose(found.flatten().numpy(), expected, rtol=1e-6, atol=1e-6)
    assert found.flatten()[:20].mean() < found.flatten()[20:].mean()


@pytest.mark.parametrize("name", FEATURE_SCORE_NAMES)
def test_statistics_are_in_the_state_dict_and_change_no_logits(name):
    head, seen, others = layer(score=name)
    plain = torch.nn.functional.linear(others, head.weight, head.bias)
    assert torch.equal(head.train()(others).logits, plain) and head(others).temperature is None
    with pytest.raises(CheckpointError, match="no statistics of in-distribution features"):
        head.eval()(others)
    with fit_statistics(head):
        assert torch.equal(head(seen).temperature, torch.ones(N, dtype=torch.float64))
    other = LinearLogits(D, C, name).double().eval()
    other.load_state_dict(head.state_dict())
    logits, scores = head(others)
    assert torch.equal(logits, plain) and torch.equal(other(others).temperature, scores)


def test_only_features_of_objects_are_fitted():
    rows = torch.tensor([[9.0, 0, 0], [0, 9, 0], [0, 0, 9]])
    for options, logits, kept in (
        ({}, rows, 2),  # the third column is the background
        ({"sigmoid": True}, torch.tensor([[-0.8, -9], [-0.9, -9], [2, -9]]), 2),
    ):
        part = alone({"type": "knn", "neighbors": 1}, 3, 2, **options)
        with fit_statistics(part):
            part(rows, logits)
        assert part.count == kept


@pytest.mark.parametrize("sizes", [[1000], [7] * 100, [1, 300, 2, 150]])
def test_memory_is_bounded_and_the_sample_is_even(sizes):
    part = alone({"type": "knn", "samples": 64, "neighbors": 1}, 1, 2)
    part.fitting, start = True, 0
    for size in sizes:
        rows = torch.arange(start, start + size, dtype=torch.float32)[:, None]
        part(rows, torch.tensor([[1.0, 0.0]]).expand(size, 2))
        assert sum(len(kept) for kept, _ in part._kept) <= 128
        start += size
    places = part.sample()[0].flatten()
    assert len(places) == 64 and len(places.unique()) == 64
    steps = places.diff()
    assert steps.max() <= 2 * steps.min() + 1 and start - places[-1] <= 2 * steps.max()


@pytest.mark.parametrize("name", ["knn", "nnguide"])
def test_bank_keeps_an_even_part_of_what_other_scores_are_fitted_on(name):
    torch.manual_seed(0)
    part = alone("vim")
    part.attach(torch.randn(C, D), torch.randn(C), False)
    with fit_statistics(part):
        part(torch.randn(120, D), torch.randn(120, C))
    rows, logits = torch.randn(6000, D), torch.randn(6000, C)
    bank = part.replaced(name, rows.double(), logits.double())
    assert bank.count == 2500 == len(bank.bank)
    places = torch.linspace(0, 5999, 2500).round().long()
    few = part.replaced(name, rows[places].double(), logits[places].double())
    assert torch.equal(bank.bank, few.bank)


@pytest.mark.parametrize("name", ["knn", "nnguide"])
def test_empty_rows_of_a_bank_and_gradients_change_no_score(name):
    """Features that occur several times tie at the last neighbor."""
    torch.manual_seed(0)
    rows, logits = torch.randn(5, D).repeat(4, 1), torch.randn(5, C).repeat(4, 1)
    others, outputs = torch.cat([rows[:3], torch.randn(9, D)]), torch.randn(12, C)
    found = []
    for samples in (20, 64):
        part = alone({"type": name, "neighbors": 6, "samples": samples})
        with fit_statistics(part):
            part(rows, logits)
        assert part.count == 20 and len(part.bank) == samples
        found += [part(others, outputs), part(others.clone().requires_grad_(), outputs)]
    for one in found[1:]:
        assert torch.equal(one, found[0])
    assert found[1].requires_grad


@pytest.mark.parametrize("name", FEATURE_SCORE_NAMES)
@pytest.mark.parametrize("filled", [D, 1, 0])  # channels that are not 0
def test_degenerate_features_give_finite_scores(name, filled):
    part = alone(name)
    same = torch.ones(120, D) * (torch.arange(D) < filled)
    with fit_statistics(part):
        part(same, torch.eye(C)[torch.zeros(120, dtype=torch.long)])  # one class only
    for rows in (same[:2], torch.zeros(2, D), torch.zeros(0, D)):
        assert part(rows, torch.zeros(len(rows), C)).isfinite().all()


@pytest.mark.parametrize("conv", [False, True])
def test_abet_hands_the_score_on_in_place_of_its_temperature(conv):
    torch.manual_seed(0)
    head = AbeTLogits(D, C + 1, conv=conv, score="mahalanobis", foreground=C).eval()
    plain = AbeTLogits(D, C + 1, conv=conv).eval()
    plain.load_state_dict(
        {k: v for k, v in head.state_dict().items() if not k.startswith("feature_score")}
    )
    rows = torch.randn(64, D)
    features = rows.view(4, 4, 4, D).permute(0, 3, 1, 2) if conv else rows
    with fit_statistics(head):
        head(features)
    logits, score = head(features)
    expected, temperature = plain(features)
    assert torch.equal(logits, expected) and score.shape == temperature.shape
    assert not torch.equal(score, temperature)
    assert torch.equal(head.train()(features).temperature, plain.train()(features).temperature)


def test_too_few_features_for_the_neighbors_are_an_error():
    part = alone("knn")
    with pytest.raises(OODDataError, match="50 neighbors, but only 3"), fit_statistics(part):
        part(torch.randn(3, D), torch.randn(3, C))


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ("knnn", "score must be one of .*, got 'knnn'; nearest: 'knn'"),
        ({"type": "msp", "neighbors": 3}, "score 'msp' has no options"),
        ({"type": "knn", "nearest": 3}, "unexpected keyword argument 'nearest'"),
        ({"type": "knn", "neighbors": 0}, "neighbors must be from 1 to samples=2500, got 0"),
        ({"type": "vim", "samples": 0}, "samples must be at least 1, got 0"),
        (None, "got None"),
    ],
)
def test_options_are_checked(score, message):
    with pytest.raises(ValueError, match=message):
        build_feature_score(score or {"type": None}, D, C)
    assert score_name({"type": "knn", "neighbors": 3}) == "knn"
