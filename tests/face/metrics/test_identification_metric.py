"""Ranks and open-set rates, against loops."""

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
