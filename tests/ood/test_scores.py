"""Scores against their formulas in float64 and at the ends of their ranges."""

import numpy as np
import pytest
import torch
from oracles.ood_scores import score_of

from negvision.ood import (
    SCORE_NAMES,
    entropy_score,
    msp_score,
    ood_metrics,
    ood_score,
)
from negvision.ood.scores import check_score_name


@pytest.mark.parametrize("name", SCORE_NAMES)
@pytest.mark.parametrize("dim", [-1, 1])
def test_equals_the_formula_in_float64(name, dim):
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 4, dtype=torch.float64) * 4
    temperature = torch.rand(3, 4, dtype=torch.float64) if dim == 1 else None
    if dim == -1:
        temperature = torch.rand(3, 5, dtype=torch.float64)
    scores = ood_score(name, logits, temperature, dim)
    rows = logits.movedim(dim, -1)
    for place in np.ndindex(*rows.shape[:-1]):
        expected = score_of(name, rows[place].tolist(), temperature[place].item())
        assert scores[place].item() == pytest.approx(expected, rel=1e-13, abs=1e-13)


@pytest.mark.parametrize("name", SCORE_NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_finite_for_the_largest_logits(name, dtype):
    # 1 / T at T = 1e-12 is 1e12; float16 ends at 65504.
    largest = min(1e12, torch.finfo(dtype).max)
    logits = torch.tensor([[largest, -largest, 0.0], [-largest, -largest, -largest]], dtype=dtype)
    scores = ood_score(name, logits, torch.tensor([1e-12, 1.0]))
    assert scores.dtype == torch.float32 and scores.isfinite().all()


def test_confident_predictions_stay_distinct():
    """1 - 8e-7 and 1 - 3e-7 still differ in float32."""
    gaps = torch.tensor([14.0, 15.0])
    logits = torch.stack([gaps, torch.zeros(2)], dim=1)
    first, second = msp_score(logits)
    assert -0.99999 > first > second
    assert entropy_score(logits)[0] > entropy_score(logits)[1] > 0


def test_entropy_of_an_impossible_class():
    assert entropy_score(torch.tensor([0.0, float("-inf")])).item() == 0.0


def test_metrics_are_invariant_under_monotone_maps():
    torch.manual_seed(0)
    scores = torch.randn(500, dtype=torch.float64)
    is_ood = torch.rand(500) < 0.4
    expected = ood_metrics(scores, is_ood)
    for mapped in (scores * 1000 - 3, scores.exp(), scores**3, scores.sigmoid()):
        values = ood_metrics(mapped, is_ood)
        assert values.as_dict() == expected.as_dict()


def test_unknown_score_names_the_nearest():
    with pytest.raises(ValueError, match=r"got 'maxlogit'; nearest: 'max_logit'"):
        check_score_name("maxlogit")
