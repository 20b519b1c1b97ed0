"""Ranks and open-set rates, against loops and by hand."""

import numpy as np
import pytest
from oracles.faces import slow_identify

from negvision.face.metrics import identification_metric
from negvision.face.metrics.identification_metric import identify


def directions(degrees):
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def random_case(seed, gallery=30, probes=70, integers=False):
    rng = np.random.default_rng(seed)
    # Small whole numbers give many equal scores.
    draw = (lambda n: rng.integers(-1, 2, (n, 3)) + [[2, 0, 0]]) if integers else None
    draw = draw or (lambda n: rng.normal(size=(n, 5)))
    labels = rng.integers(0, 12, gallery), rng.integers(0, 18, probes)
    return (draw(gallery).astype("f4"), labels[0], draw(probes).astype("f4"), labels[1])


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("block", [1 << 24, 90])
def test_equals_the_loop(monkeypatch, integers, block):
    # 90 scores a block: three probes at a time.
    monkeypatch.setattr(identification_metric, "_BLOCK_SCORES", block)
    case = random_case(3, integers=integers)
    result = identify(*case)
    ranks, mates, impostors = slow_identify(*case)
    assert result.ranks.tolist() == ranks
    np.testing.assert_array_equal(result.mate_scores, np.array(mates, "f4"))
    np.testing.assert_array_equal(result.impostor_scores, np.array(impostors, "f4"))
    assert len(impostors) > 5 and result.identities == len(set(case[1]))


def test_cmc_by_hand():
    gallery, people = directions([0, 40, 80, 120]), np.array([0, 1, 2, 3])
    # 10 is nearest to 0; 50 to 1, then 2; 110 to 3, then 2, 1, 0.
    probes, labels = directions([10, 50, 110]), np.array([0, 2, 0])
    result = identify(gallery, people, probes, labels)
    assert result.ranks.tolist() == [1, 2, 4]
    rates = [result.rank_rate(rank) for rank in (1, 2, 3, 4, 5)]
    assert rates == [pytest.approx(1 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3), None, None]


def test_an_identity_counts_once_with_its_best_image():
    gallery, people = directions([0, 90, 20, 25, 30]), np.array([0, 0, 1, 1, 1])
    # The three images of person 1 are all nearer than the best of person 0, and are one person.
    assert identify(gallery, people, directions([40.0]), np.array([0])).ranks.tolist() == [2]
    assert identify(gallery, people, directions([80.0]), np.array([0])).ranks.tolist() == [1]


def test_detection_rate_by_hand():
    gallery, people = directions([0, 90]), np.array([0, 1])
    # Mates at 10, 20, 30 degrees, and one nearer to the other person.
    probes = directions([10, 20, 60, 80, *[15, 25, 45, 45, 45, 45, 45, 45, 45, 45]])
    labels = np.array([0, 0, 1, 0, *[9] * 10])
    result = identify(gallery, people, probes, labels)
    assert result.ranks.tolist() == [1, 1, 1, 2]
    # One impostor of ten may pass, that at 15 degrees: mates nearer than the next, at 25, count.
    point = result.detection_rate(0.1)
    assert (point.rate, point.accepted, point.negatives) == (0.5, 1, 10)
    assert result.detection_rate(0.2).rate == 0.75
    assert result.detection_rate(0.05).rate is None


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("fpir", [0.5, 0.1, 0.05])
def test_detection_rate_is_the_best_of_all_thresholds(integers, fpir):
    case = random_case(5, probes=150, integers=integers)
    result = identify(*case)
    ranks, mates, impostors = map(np.array, slow_identify(*case))
    best = 0
    for threshold in [np.inf, *mates, *impostors]:
        if np.mean(impostors >= threshold) <= fpir:
            best = max(best, np.mean((ranks == 1) & (mates >= threshold)))
    point = result.detection_rate(fpir)
    assert point.rate == pytest.approx(best, abs=1e-12)
    assert np.sum(impostors >= point.threshold) == point.accepted


def test_no_rate_without_impostors_or_mates():
    gallery, people = directions([0, 90]), np.array([0, 1])
    closed = identify(gallery, people, directions([5]), np.array([0]))
    assert closed.detection_rate(0.1) == (0.1, None, None, None, 0)
    others = identify(gallery, people, directions(np.arange(20)), np.full(20, -1))
    assert others.detection_rate(0.1) == (0.1, None, None, None, 20)
    assert others.rank_rate(1) is None
