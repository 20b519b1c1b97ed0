"""Resampling, intervals and comparisons against known answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from negvision.bootstrap import Side, bootstrap, draw_counts, interval, paired_difference


def mean_of(values):
    """The mean of weighted values (I,) as a figure."""
    return lambda weights: weights @ values[:, None] / weights.sum(1, keepdims=True)


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(0).normal(0.5, 0.2, 400)
    draws = bootstrap(mean_of(values), np.arange(400), 2000)
    low, high = interval(values.mean(keepdims=True), draws)
    reach = 1.96 * values.std() / 20
    np.testing.assert_allclose([low[0], high[0]], values.mean() + [-reach, reach], atol=0.003)


def test_the_bias_of_few_samples_is_taken_off_once():
    # The largest of 30 values is below the largest possible one, and that of a resample again.
    values = np.linspace(0, 0.9, 30)
    draws = bootstrap(
        lambda weights: np.max(np.where(weights > 0, values, 0), 1)[:, None], np.arange(30)
    )
    low, high = interval(np.array([0.9]), draws)
    assert draws.mean() < 0.9 and (low[0] + high[0]) / 2 == pytest.approx(1.8 - draws.mean())
    undefined = interval(np.array([np.nan, 0.5]), np.array([[np.nan, np.nan], [np.nan, 0.5]]))
    assert np.isnan(undefined).all()


def test_images_of_a_unit_are_drawn_together_and_strata_keep_their_size():
    units, strata = np.repeat(np.arange(6), 3), np.repeat([0, 0, 1, 1, 1, 1], 3)
    seen = []
    bootstrap(lambda weights: seen.append(weights) or weights[:, :1], units, 40, strata=strata)
    weights = np.concatenate(seen).reshape(-1, 6, 3)
    assert (weights == weights[:, :, :1]).all()
    assert (weights[:, :2, 0].sum(1) == 2).all() and (weights[:, 2:, 0].sum(1) == 4).all()
    with pytest.raises(ValueError, match="several strata"):
        bootstrap(mean_of(np.ones(4)), np.zeros(4), 2, strata=np.array([0, 0, 1, 1]))


def test_one_seed_draws_the_same_units():
    first, second = (np.stack(list(draw_counts(20, 3, seed=4))) for _ in range(2))
    assert (first == second).all() and not (first[0] == first[1]).all()


def test_a_paired_difference_equals_the_paired_t_test():
    generator = np.random.default_rng(1)
    skill = generator.normal(0, 3, 300)
    a, b = skill + generator.normal(0, 1, 300), skill + 0.25 + generator.normal(0, 1, 300)
    sides = [
        Side.of([(np.array([one.mean()]), bootstrap(mean_of(one), np.arange(300), 4000))])
        for one in (a, b)
    ]
    found = paired_difference(*sides, units=300)
    expected = stats.ttest_rel(b, a)
    assert found.p_value[0] == pytest.approx(expected.pvalue, abs=0.02)
    limits = expected.confidence_interval()
    assert (found.low[0], found.high[0]) == pytest.approx(tuple(limits), abs=0.01)
    # Unpaired, the spread of the skill would hide the difference.
    assert stats.ttest_ind(b, a).pvalue > 5 * found.p_value[0]
    power = 300 * (2.8 * (b - a).std() / np.sqrt(300) / (b - a).mean()) ** 2
    assert found.units_needed[0] == pytest.approx(power, rel=0.1)


def test_trainings_of_a_recipe_are_compared_as_by_welch():
    a, b = np.array([[0.46], [0.47], [0.475]]), np.array([[0.47], [0.50], [0.482]])
    same = np.zeros((50, 1))
    found = paired_difference(
        Side.of([(one, same) for one in a]), Side.of([(one, same) for one in b]), units=200
    )
    expected = stats.ttest_ind(b, a, equal_var=False)
    assert found.p_value[0] == pytest.approx(expected.pvalue[0])
    assert found.probability[0] == pytest.approx(1 - expected.pvalue[0] / 2)
    # The difference is no larger than the noise of trainings: images do not help.
    assert found.units_needed[0] == np.inf


def test_identical_models_do_not_differ():
    side = Side.of([(np.array([0.5, np.nan]), np.random.default_rng(0).random((9, 2)))])
    found = paired_difference(side, side, units=9)
    assert (found.difference[0], found.low[0], found.high[0]) == (0, 0, 0)
    assert (found.probability[0], found.p_value[0]) == (0.5, 1)
    assert np.isnan([found.probability[1], found.low[1], found.units_needed[1]]).all()
    with pytest.raises(ValueError, match="at least 2 units"):
        paired_difference(side, side, units=1)
