"""Metrics of the pairs of a batch, against loops over them."""

import math

import numpy as np
import pytest
import torch

from negvision.face.pair_scores import BINS, pair_scores


def cosine(a, b) -> float:
    return float(a.double() @ b.double() / a.double().norm() / b.double().norm())


def pairs_one_by_one(embeddings, labels, centers, first_class=0):
    """Similarities by kind, sorted."""
    found = {kind: [] for kind in ("own_center", "positive", "center_negative", "metric_negative")}
    for i, label in enumerate(labels.tolist()):
        for row, center in enumerate(centers):
            kind = "own_center" if row + first_class == label else "center_negative"
            found[kind].append(cosine(embeddings[i], center))
        for j in range(i):
            kind = "positive" if labels[j] == label else "metric_negative"
            found[kind].append(cosine(embeddings[i], embeddings[j]))
    return {kind: sorted(values) for kind, values in found.items()}


def whiskers(values, reach):
    low, high = values[len(values) // 4], values[3 * len(values) // 4]
    return low - reach * (high - low), high + reach * (high - low)


def percentile(values, percent):
    return next(v for k, v in enumerate(values, 1) if k * 100 >= percent * len(values))


def a_batch(count=24, classes=9, size=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        3 * torch.randn(count, size, generator=generator),
        torch.randint(classes, (count,), generator=generator),
        0.1 * torch.randn(classes, size, generator=generator),
    )


@pytest.mark.parametrize("whisker", [0.0, 0.4, 1.5])
def test_scalars_equal_a_loop_over_the_pairs(whisker):
    embeddings, labels, centers = a_batch()
    found = pair_scores(embeddings, labels, centers, whisker=whisker)
    expected = pairs_one_by_one(embeddings, labels, centers)
    for kind, values in expected.items():
        assert np.allclose(getattr(found, kind), values, atol=1e-6), kind
    negatives = expected["metric_negative"]
    low, high = whiskers(negatives, whisker)
    p95 = max(percentile(negatives, 95), percentile(expected["center_negative"], 95))
    scalars = {f"{kind}_mean": np.mean(values) for kind, values in expected.items()} | {
        "center_negative_max": expected["center_negative"][-1],
        "metric_negative_max": negatives[-1],
        "whisker_low": low,
        "whisker_high": high,
        # The quartiles themselves lie on the bounds of whisker 0.
        "filtered_share": np.mean([not low - 1e-7 <= v <= high + 1e-7 for v in negatives]),
        "gap": percentile(expected["own_center"], 5) - p95,
        "metric_gap": percentile(expected["positive"], 5) - percentile(negatives, 95),
    }
    assert found.scalars() == pytest.approx(scalars, abs=1e-6)
    assert whisker == 1.5 or scalars["filtered_share"] > 0


def test_histograms_count_every_pair_once_in_its_bin():
    embeddings, labels, centers = a_batch()
    embeddings[1] = embeddings[0]  # a cosine of 1, which rounding may carry beyond
    labels[1] = labels[0]
    histograms = pair_scores(embeddings, labels, centers).histograms()
    for kind, values in pairs_one_by_one(embeddings, labels, centers).items():
        expected, _ = np.histogram(np.clip(values, -1, 1), BINS, (-1, 1))
        assert histograms[kind] == expected.tolist(), kind
    assert histograms["positive"][-1] >= 1


def test_shard_of_the_centers_gives_the_pairs_of_its_classes():
    embeddings, labels, centers = a_batch()
    found = pair_scores(embeddings, labels, centers[3:6], first_class=3)
    expected = pairs_one_by_one(embeddings, labels, centers[3:6], first_class=3)
    assert len(found.own_center) == ((labels >= 3) & (labels < 6)).sum()
    for kind, values in expected.items():
        assert np.allclose(getattr(found, kind), values, atol=1e-6), kind


def test_classes_and_samples_are_limited_without_random_numbers(monkeypatch):
    monkeypatch.setattr("negvision.face.pair_scores.MAX_SAMPLES", 10)
    monkeypatch.setattr("negvision.face.pair_scores.MAX_CENTERS", 4)
    embeddings, labels, centers = a_batch(count=40, classes=30)
    state = torch.random.get_rng_state()
    found = pair_scores(embeddings, labels, centers)
    assert torch.equal(state, torch.random.get_rng_state())
    assert len(found.positive) + len(found.metric_negative) == 45
    others = [
        cosine(embeddings[i], centers[c])
        for i in range(10)
        for c in (0, 7, 15, 22)
        if labels[i] != c
    ]
    assert np.allclose(found.center_negative, sorted(others), atol=1e-6)
    # The own center is compared with whether or not it is among those.
    assert len(found.own_center) == 10


@pytest.mark.parametrize(
    ("labels", "left_out"),
    [
        ([0, 1, 2], {"positive_mean", "metric_gap"}),
        ([1, 1, 1], {"metric_negative_mean", "metric_negative_max", "metric_gap"}),
        ([2], {"positive_mean", "metric_negative_mean", "metric_negative_max", "metric_gap"}),
        # Labels that are no class have no center; the loss reports them.
        ([7, 7, 7], {"own_center_mean", "metric_negative_mean", "metric_negative_max"}),
    ],
)
def test_missing_kinds_of_pairs_are_left_out(labels, left_out):
    embeddings, _, centers = a_batch(count=len(labels), classes=4)
    scalars = pair_scores(embeddings, torch.tensor(labels), centers).scalars()
    assert not left_out & set(scalars)
    assert all(math.isfinite(value) for value in scalars.values())
    assert ("whisker_low" in scalars) == (len(set(labels)) > 1)
    assert ("gap" in scalars) == (labels[0] < 4)


def test_one_class_one_sample_and_no_sample_leave_no_negative():
    one = pair_scores(torch.ones(1, 3), torch.tensor([0]), torch.ones(1, 3))
    assert one.scalars() == {"own_center_mean": pytest.approx(1)}
    none = pair_scores(torch.ones(0, 3), torch.tensor([], dtype=torch.int64), torch.ones(2, 3))
    assert none.scalars() == {}
    assert sum(map(sum, none.histograms().values())) == 0


def test_embeddings_that_are_not_finite_are_left_out():
    embeddings, labels, centers = a_batch(count=6)
    invalid = embeddings.clone()
    invalid[2, 1], invalid[4, 0] = float("nan"), float("inf")
    kept = [0, 1, 3, 5]
    expected = pair_scores(embeddings[kept], labels[kept], centers)
    assert pair_scores(invalid, labels, centers).scalars() == expected.scalars()
