"""Metrics against scikit-learn and the written-out definitions; intervals; errors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from negvision.errors import OODDataError
from negvision.ood import ood_metrics, score_curve

# Few values, so that there are many ties, also of OOD with ID and of both zeros.
TIED = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 3.0, 1e30, -1e30])
FREE = st.floats(-1e6, 1e6, width=32)


def sets(values):
    """Scores with both kinds among them."""
    rows = st.lists(st.tuples(values, st.booleans()), min_size=2, max_size=60)
    return rows.filter(lambda rows: 0 < sum(kind for _, kind in rows) < len(rows))


def tensors(rows):
    scores, kinds = zip(*rows, strict=True)
    return torch.tensor(scores, dtype=torch.float64), torch.tensor(kinds)


def first_fpr(positive, scores):
    fpr, tpr, _ = roc_curve(positive, scores, drop_intermediate=False)
    return fpr[np.argmax(tpr >= 0.95)]


def sklearn_metrics(scores, is_ood, weights=None):
    scores, is_ood = scores.numpy(), is_ood.numpy()
    extra = {} if weights is None else {"sample_weight": weights.numpy()}
    return {
        "auroc": roc_auc_score(is_ood, scores, **extra),
        "ap_out": average_precision_score(is_ood, scores, **extra),
        "ap_in": average_precision_score(~is_ood, -scores, **extra),
    }


@settings(max_examples=300, deadline=None)
@given(st.one_of(sets(TIED), sets(FREE)))
def test_equals_scikit_learn(rows):
    scores, is_ood = tensors(rows)
    found = ood_metrics(scores, is_ood)
    for name, expected in sklearn_metrics(scores, is_ood).items():
        assert getattr(found, name) == pytest.approx(expected, abs=1e-12), name
    assert found.fpr95_ood == pytest.approx(first_fpr(is_ood, scores), abs=1e-12)
    assert found.fpr95_id == pytest.approx(first_fpr(~is_ood, -scores), abs=1e-12)
    assert found.prevalence == pytest.approx(is_ood.double().mean().item(), abs=1e-15)


@settings(max_examples=100, deadline=None)
@given(sets(TIED), st.floats(0.001, 0.999))
def test_ap_at_a_prevalence_equals_weighted_samples(rows, prevalence):
    scores, is_ood = tensors(rows)
    share_ood, share_id = (
        prevalence / is_ood.sum().double(),
        (1 - prevalence) / (~is_ood).sum().double(),
    )
    weights = torch.where(is_ood, share_ood, share_id)
    expected = sklearn_metrics(scores, is_ood, weights)["ap_out"]
    assert ood_metrics(scores, is_ood).ap_at(prevalence) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(sets(TIED), st.integers(0, 99))
def test_weights_equal_repeated_samples(rows, seed):
    scores, is_ood = tensors(rows)
    times = torch.randint(1, 4, scores.shape, generator=torch.Generator().manual_seed(seed))
    weighted = ood_metrics(scores, is_ood, weights=times)
    repeated = ood_metrics(scores.repeat_interleave(times), is_ood.repeat_interleave(times))
    for name, expected in repeated.as_dict().items():
        assert getattr(weighted, name) == pytest.approx(expected, abs=1e-12)


def test_a_perfect_and_a_constant_score():
    is_ood = torch.tensor([True, True, False, False, False])
    perfect = ood_metrics(is_ood.double(), is_ood)
    assert perfect.as_dict() == {
        "auroc": 1, "ap_out": 1, "ap_in": 1, "fpr95_ood": 0, "fpr95_id": 0
    }  # fmt: skip
    constant = ood_metrics(torch.zeros(5), is_ood)
    assert constant.as_dict() == {
        "auroc": 0.5, "ap_out": 0.4, "ap_in": 0.6, "fpr95_ood": 1, "fpr95_id": 1
    }  # fmt: skip


def test_corners_keep_the_area():
    torch.manual_seed(0)
    scores, is_ood = torch.randn(300).round(decimals=1), torch.rand(300) < 0.5
    curve = score_curve(scores, is_ood)
    assert curve.corners().auroc() == pytest.approx(curve.auroc(), abs=1e-12)
    assert len(curve.corners().positives) < len(curve.positives)


class TestIntervals:
    def drawn(self, images=40, seed=0):
        """Boxes with nearly the same score in each image."""
        generator = torch.Generator().manual_seed(seed)
        groups = torch.arange(images).repeat_interleave(20)
        is_ood = groups % 2 == 0
        own = torch.randn(images, generator=generator)[groups]
        noise = 0.1 * torch.randn(len(groups), generator=generator)
        return own + noise + is_ood, is_ood, groups

    def test_equal_a_written_out_bootstrap(self):
        scores, is_ood, groups = self.drawn(images=12)
        found = ood_metrics(scores, is_ood, groups, resamples=50, seed=3)
        generator = torch.Generator().manual_seed(3)
        values = []
        for _ in range(50):
            drawn = torch.randint(12, (12,), generator=generator)
            rows = torch.cat([(groups == group).nonzero()[:, 0] for group in drawn])
            if is_ood[rows].any() and not is_ood[rows].all():
                values.append(roc_auc_score(is_ood[rows], scores[rows]))
        low, high = np.quantile(values, [0.025, 0.975])
        assert found.intervals["auroc"] == pytest.approx((low, high), abs=1e-12)

    def test_need_two_images_of_each_kind(self):
        scores = torch.rand(6)
        is_ood = torch.tensor([True, True, False, False, False, False])
        one = ood_metrics(scores, is_ood, groups=torch.tensor([0, 0, 1, 1, 2, 2]))
        assert one.intervals == {}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"confidence": 1.0}, "confidence must be between 0 and 1"),
            ({"resamples": 0}, "resamples at least 1, got 0.95 and 0"),
            ({"groups": torch.zeros(3)}, r"groups must be \(4,\), got \(3,\)"),
        ],
    )
    def test_arguments_are_checked(self, options, message):
        is_ood = torch.tensor([True, False, True, False])
        options = {"groups": torch.arange(4), **options}
        with pytest.raises(ValueError, match=message):
            ood_metrics(torch.rand(4), is_ood, **options)


class TestBadInput:
    def test_scores_that_are_not_finite_are_counted(self):
        scores = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0, 2.0])
        with pytest.raises(OODDataError, match=r"3 of 5 .* not finite \(1 NaN, 2 infinite\)"):
            ood_metrics(scores, torch.tensor([True, False, True, False, True]))

    @pytest.mark.parametrize(("kind", "missing"), [(True, "ID"), (False, "OOD")])
    def test_only_one_kind(self, kind, missing):
        with pytest.raises(OODDataError, match=f"there is no {missing} sample"):
            ood_metrics(torch.rand(3), torch.full((3,), kind))

    def test_no_samples(self):
        with pytest.raises(OODDataError, match=r"\(0 OOD, 0 ID\)"):
            ood_metrics(torch.rand(0), torch.zeros(0, dtype=torch.bool))

    def test_shapes_and_dtypes(self):
        with pytest.raises(ValueError, match=r"must be \(N,\) both, got \(3,\) and \(2,\)"):
            ood_metrics(torch.rand(3), torch.zeros(2, dtype=torch.bool))
        with pytest.raises(ValueError, match=r"is_ood must be bool, got torch\.int64"):
            ood_metrics(torch.rand(2), torch.tensor([0, 1]))

    @pytest.mark.parametrize("prevalence", [0.0, 1.0, -0.1])
    def test_prevalence(self, prevalence):
        values = ood_metrics(torch.tensor([1.0, 0.0]), torch.tensor([True, False]))
        with pytest.raises(ValueError, match="prevalence must be between 0 and 1"):
            values.ap_at(prevalence)
