"""Calibration errors with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from negvision.data.reliability import reliability


def test_scores_that_are_probabilities_have_no_error_and_others_their_gap():
    generator = np.random.default_rng(0)
    scores = generator.uniform(0, 1, 200_000)
    hits = generator.random(len(scores)) < scores
    honest = reliability(scores, hits)
    assert honest.error < 0.01 and honest.mean_confidence == pytest.approx(0.65, abs=0.005)
    assert honest.total == pytest.approx(140_000, rel=0.01)
    # A detector that is right in half of the cases it is sure of.
    bold = reliability(np.minimum(scores + 0.2, 1), generator.random(len(scores)) < scores)
    assert bold.error == pytest.approx(bold.mean_confidence - bold.mean_precision, abs=0.01)


def test_the_last_bin_has_1_and_scores_outside_do_not_count():
    found = reliability(np.array([1.0, 0.3, 0.29, 1.5, -2.0, np.nan]), np.ones(6))
    assert found.total == 2 and found.count[[0, -1]].tolist() == [1, 1]
    assert found.error == pytest.approx(0.35)
    assert np.isnan(found.precision[1:-1]).all()


def test_without_detections_there_is_no_error():
    found = reliability(np.zeros(3), np.zeros(3))
    assert np.isnan(found.error) and "there are no detections with scores from 0.3" in found.line()
