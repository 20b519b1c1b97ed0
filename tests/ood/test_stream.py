"""Streamed metrics: bounds enclose the exact values for any pieces and processes."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from negvision.errors import OODDataError
from negvision.ood import StreamingOODMetrics, ood_metrics
from negvision.ood.metrics import METRIC_NAMES

# float32 numbers that share a bin, lie at its edges, or are as far apart as possible.
NEAR = [1.0, 1.0 + 2**-23, 1.0 + 2**-13 - 2**-23, 1.0 + 2**-13]
VALUES = st.one_of(
    st.sampled_from([sign * value for value in NEAR for sign in (1, -1)]),
    st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38]),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)
ROWS = st.lists(st.tuples(VALUES, st.booleans()), min_size=2, max_size=50).filter(
    lambda rows: 0 < sum(kind for _, kind in rows) < len(rows)
)


def stream_of(scores, is_ood, exact=False, pieces=1):
    stream = StreamingOODMetrics(exact)
    for part, kinds in zip(scores.chunk(pieces), is_ood.chunk(pieces), strict=True):
        stream.update(part, kinds)
    return stream


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_bounds_enclose_the_exact_values(rows):
    scores = torch.tensor([score for score, _ in rows], dtype=torch.float32)
    is_ood = torch.tensor([kind for _, kind in rows])
    exact = ood_metrics(scores, is_ood)
    found = stream_of(scores, is_ood).compute()
    for name in METRIC_NAMES:
        low, high = found.bounds[name]
        assert low - 1e-9 <= getattr(exact, name) <= high + 1e-9, name
        assert low - 1e-9 <= getattr(found, name) <= high + 1e-9, name
    assert (found.num_ood, found.num_id) == (exact.num_ood, exact.num_id)


def test_bounds_are_reached():
    """The two extreme orders within a bin give the two bounds."""
    scores = torch.tensor([1.0, 1.0 + 2**-23, 1.0 + 2**-22, 0.5])
    is_ood = torch.tensor([True, True, False, False])
    found = stream_of(scores, is_ood).compute()
    worst = ood_metrics(scores, is_ood)
    best = ood_metrics(torch.tensor([2.0, 2.0, 1.0, 0.5]), is_ood)
    for name in ("auroc", "ap_out", "ap_in"):
        ends = (getattr(worst, name), getattr(best, name))
        assert found.bounds[name] == pytest.approx(ends, abs=1e-12), name


def test_bounds_are_narrow_for_typical_scores():
    """AbeT's scores gather near -log C; half a million pixels, prevalence 1 %."""
    torch.manual_seed(0)
    is_ood = torch.rand(500_000) < 0.01
    scores = -2.3 - torch.randn(500_000).abs() * (1 + 5 * ~is_ood)
    found = stream_of(scores, is_ood, pieces=7).compute()
    exact = ood_metrics(scores, is_ood)
    for name in METRIC_NAMES:
        low, high = found.bounds[name]
        assert low <= getattr(exact, name) <= high and high - low < 1e-3, name


def test_equal_zeros_share_a_bin():
    found = stream_of(torch.tensor([0.0, -0.0]), torch.tensor([True, False])).compute()
    assert found.auroc == 0.5


@pytest.mark.parametrize("exact", [False, True])
def test_merged_streams_equal_one(exact):
    """Also after pickling, by which processes exchange them."""
    torch.manual_seed(0)
    scores, is_ood = torch.randn(300), torch.rand(300) < 0.5
    whole = stream_of(scores, is_ood, exact).compute()
    parts = [
        pickle.loads(pickle.dumps(stream_of(s, o, exact)))
        for s, o in zip(scores.split(100), is_ood.split(100), strict=True)
    ]
    merged = StreamingOODMetrics(exact)
    for part in [*parts, pickle.loads(pickle.dumps(StreamingOODMetrics(exact)))]:
        merged.merge(part)
    assert merged.compute().as_dict() == whole.as_dict()


def test_pickles_hold_only_nonempty_bins():
    small = stream_of(torch.rand(100), torch.rand(100) < 0.5)
    assert len(pickle.dumps(small)) < 10_000


def test_errors():
    stream = StreamingOODMetrics()
    with pytest.raises(OODDataError, match="1 of 2 OOD scores are not finite"):
        stream.update(torch.tensor([float("nan"), 0.0]), torch.tensor([True, False]))
    with pytest.raises(ValueError, match="must have the same shape"):
        stream.update(torch.zeros(2), torch.zeros(3, dtype=torch.bool))
    for empty in (stream, StreamingOODMetrics(exact=True)):
        with pytest.raises(OODDataError, match="there is no OOD sample"):
            empty.compute()
    stream.update(torch.zeros(2), torch.ones(2, dtype=torch.bool))
    with pytest.raises(OODDataError, match="there is no ID sample"):
        stream.compute()
    with pytest.raises(ValueError, match="an exact and a binned stream"):
        stream.merge(StreamingOODMetrics(exact=True))
