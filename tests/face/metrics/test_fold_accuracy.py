"""Cross-validated accuracy, against loops and by hand."""

import numpy as np
import pytest
from helpers.face_cases import scored
from oracles.faces import slow_best_threshold

from negvision.face.metrics.verification_metric import (
    best_threshold,
    cross_validated_accuracy,
    tenths,
)


@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_threshold_is_the_best_of_all(levels, share):
    for seed in range(5):
        scores, same = scored(seed, size=60, levels=levels, share=share)
        assert best_threshold(scores, same) == slow_best_threshold(scores, same)


def test_threshold_by_hand():
    same = np.array([True, True, False, False])
    assert best_threshold(np.array([0.75, 0.5, 0.25, 0.0]), same) == 0.375
    # Three are right between 0.75 and 0.5 (of both kinds), and below 0.25: the highest is taken.
    assert best_threshold(np.array([0.75, 0.25, 0.5, 0.0]), same) == 0.625
    # Accepting none and all are right for two each, nothing for more.
    assert best_threshold(np.full(4, 0.5), same) == np.inf
    # All but the last: better to accept every pair.
    assert best_threshold(np.array([0.1, 0.2, 0.3, 0.4]), np.array([1, 1, 1, 0], bool)) == -np.inf


def test_neighboring_floats_are_separated():
    high = np.nextafter(0.1, 1)
    assert best_threshold(np.array([high, 0.1]), np.array([True, False])) == high
    low = np.float32(0.1)
    for _ in range(2):
        high = np.nextafter(low, np.float32(1))
        scores, same = np.array([high, low, high, low]), np.array([True, False, True, False])
        result = cross_validated_accuracy(scores, same, np.array([0, 0, 1, 1]))
        assert result.accuracies.tolist() == [1, 1]
        low = high


def test_the_threshold_never_sees_the_test_fold():
    # The scores of fold 0 would do with a threshold of 5, those of fold 1 with one of 0.5.
    scores = np.array([6, 4, 1, 0.0])
    same = np.array([True, False, True, False])
    result = cross_validated_accuracy(scores, same, np.array([0, 0, 1, 1]))
    assert result.thresholds.tolist() == [0.5, 5]
    assert result.accuracies.tolist() == [0.5, 0.5]


def test_even_and_uneven_folds():
    # LFW: 300 of each kind per fold, alternating.
    same = np.tile(np.repeat([True, False], 300), 10)
    assert (tenths(same) == np.arange(6000) // 600).all()
    # 13 pairs in 10 parts: one or two each, in order.
    parts = tenths(np.ones(13, bool))
    assert sorted(parts) == parts.tolist() and set(np.bincount(parts)) == {1, 2}


def test_obstacles():
    same = np.array([True, False, True, False])
    with pytest.raises(ValueError, match="positive pairs in at least 2 folds, they are in 1"):
        cross_validated_accuracy(np.ones(4), same, np.array([0, 0, 0, 1]))
    with pytest.raises(ValueError, match="negative pairs in at least 2 folds, they are in 0"):
        cross_validated_accuracy(np.ones(2), np.ones(2, bool), np.arange(2))
