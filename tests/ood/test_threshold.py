"""Thresholds: the share of ID they keep, checkpoints, and errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from negvision.errors import CheckpointError, OODDataError
from negvision.ood import OODThreshold, set_threshold, threshold_at_tpr
from negvision.ood.threshold import quantiles_of

THRESHOLD = OODThreshold(value=-1.5, score="abet", tpr=0.95, num_samples=200, min_score=0.3)


@given(
    st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]) | st.floats(-5, 5, width=32), min_size=1),
    st.floats(0.01, 1.0),
)
def test_lies_between_the_last_kept_score_and_the_next(scores, tpr):
    """Against trying every score; a share within rounding counts as reached."""
    values = torch.tensor(scores)
    found = threshold_at_tpr(values, tpr)
    reaching = [v for v in scores if sum(s <= v for s in scores) / len(scores) >= tpr - 1e-9]
    least, higher = min(reaching), [s for s in scores if s > min(reaching)]
    assert found == ((least + min(higher)) / 2 if higher else least)


def test_shares_of_a_hundred():
    scores = torch.arange(1.0, 101.0)
    assert [threshold_at_tpr(scores, t) for t in (0.95, 0.951, 1.0, 0.001)] == [
        95.5,
        96.5,
        100,
        1.5,
    ]


@given(st.lists(st.floats(-5, 5, width=32), min_size=1), st.integers(2, 12))
def test_quantiles_are_those_of_numpy(scores, count):
    found = quantiles_of(torch.tensor(scores), count)
    expected = np.quantile(np.array(scores, np.float64), np.linspace(0, 1, count))
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_errors_of_scores():
    with pytest.raises(OODDataError, match="nothing was predicted on the in-distribution images"):
        threshold_at_tpr(torch.zeros(0))
    with pytest.raises(OODDataError, match="1 of 2 OOD scores are not finite"):
        threshold_at_tpr(torch.tensor([0.0, float("inf")]))
    with pytest.raises(ValueError, match="tpr must be above 0 and at most 1, got 95"):
        threshold_at_tpr(torch.zeros(3), 95)


def test_survives_a_checkpoint(tmp_path):
    torch.save({"state_dict": {}, "meta": {"ood": THRESHOLD.as_meta()}}, tmp_path / "a.pth")
    checkpoint = torch.load(tmp_path / "a.pth", weights_only=True)
    assert OODThreshold.of_checkpoint(checkpoint) == THRESHOLD
    # A list in files of other formats.
    meta = {"meta": {"ood": {**THRESHOLD.as_meta(), "quantiles": [-3.0, -1.0]}}}
    assert OODThreshold.of_checkpoint(meta) == replace(THRESHOLD, quantiles=(-3.0, -1.0))


@pytest.mark.parametrize("checkpoint", [{}, {"meta": None}, {"meta": {"epoch": 3}}])
def test_a_checkpoint_without_threshold(checkpoint):
    with pytest.raises(CheckpointError, match=r"a\.pth has no OOD threshold.*\n.*calibrate-ood"):
        OODThreshold.of_checkpoint(checkpoint, "a.pth")


@pytest.mark.parametrize(
    "meta",
    [
        {"value": -1.5},
        {**THRESHOLD.as_meta(), "value": float("nan")},
        {"valeu": 1},
        3,
        {**THRESHOLD.as_meta(), "quantiles": ["a"]},
    ],
)
def test_a_malformed_threshold(meta):
    with pytest.raises(CheckpointError, match="its OOD threshold is malformed"):
        OODThreshold.of_checkpoint({"meta": {"ood": meta}})


class Head(nn.Module):
    def __init__(self, score="abet"):
        super().__init__()
        self.score, self.ood_threshold = score, None


def test_is_set_on_every_head():
    model = nn.Sequential(Head(), nn.Linear(1, 1), nn.ModuleList([Head()]))
    assert set_threshold(model, THRESHOLD) == 2
    assert model[0].ood_threshold == model[2][0].ood_threshold == -1.5
    assert set_threshold(nn.Linear(1, 1), THRESHOLD) == 0


def test_a_threshold_of_another_score_is_refused():
    with pytest.raises(CheckpointError, match=r"score 'abet', but the model .* computes 'msp'"):
        set_threshold(Head("msp"), THRESHOLD)
