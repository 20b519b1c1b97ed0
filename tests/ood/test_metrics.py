"""Figures against scikit-learn, pytorch-ood and definitions written out; intervals; errors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_ood.metrics import OODMetrics as PytorchOODMetrics
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from negvision.errors import OODDataError
from negvision.ood import ood_metrics, score_curve

# Few values, so that ties abound, among them ties of OOD with ID and both zeros.
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


def sklearn_figures(scores, is_ood, weights=None):
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
    for name, expected in sklearn_figures(scores, is_ood).items():
        assert getattr(found, name) == pytest.approx(expected, abs=1e-12), name
    assert found.fpr95_ood == pytest.approx(first_fpr(is_ood, scores), abs=1e-12)
    assert found.fpr95_id == pytest.approx(first_fpr(~is_ood, -scores), abs=1e-12)
    assert found.prevalence == pytest.approx(is_ood.double().mean().item(), abs=1e-15)


@settings(max_examples=100, deadline=None)
@given(sets(TIED), st.floats(0.001, 0.999))
def test_ap_at_a_prevalence_is_that_of_weighted_samples(rows, prevalence):
    scores, is_ood = tensors(rows)
    share_ood, share_id = (
        prevalence / is_ood.sum().double(),
        (1 - prevalence) / (~is_ood).sum().double(),
    )
    weights = torch.where(is_ood, share_ood, share_id)
    expected = sklearn_figures(scores, is_ood, weights)["ap_out"]
    assert ood_metrics(scores, is_ood).ap_at(prevalence) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(sets(TIED), st.integers(0, 99))
def test_weights_are_repeated_samples(rows, seed):
    scores, is_ood = tensors(rows)
    times = torch.randint(1, 4, scores.shape, generator=torch.Generator().manual_seed(seed))
    weighted = ood_metrics(scores, is_ood, weights=times)
    repeated = ood_metrics(scores.repeat_interleave(times), is_ood.repeat_interleave(times))
    for name, expected in repeated.figures().items():
        assert getattr(weighted, name) == pytest.approx(expected, abs=1e-12)


def test_equals_pytorch_ood_in_the_matching_direction():
    """Its labels below zero are OOD; its FPR95TPR has OOD as the positive class."""
    torch.manual_seed(0)
    scores = torch.randn(4000)
    is_ood = torch.rand(4000) < 0.3
    scores = scores + is_ood
    theirs = PytorchOODMetrics()
    theirs.update(scores, torch.where(is_ood, -1, 1))
    expected = theirs.compute()
    ours = ood_metrics(scores, is_ood)
    assert ours.auroc == pytest.approx(expected["AUROC"], abs=1e-6)
    assert ours.fpr95_ood == pytest.approx(expected["FPR95TPR"], abs=1e-6)
    # Its AUPR is the trapezoid under the same curve, where average precision is step-wise.
    assert trapezoid(ours.curve) == pytest.approx(expected["AUPR-OUT"], abs=1e-6)
    assert trapezoid(ours.curve.reversed()) == pytest.approx(expected["AUPR-IN"], abs=1e-6)


def trapezoid(curve):
    """Area under precision against recall, which starts at recall 0 and precision 1."""
    precision = torch.cat([torch.ones(1), curve.positives / (curve.positives + curve.negatives)])
    recall = torch.cat([torch.zeros(1), curve.positives / curve.positives[-1]])
    return torch.trapezoid(precision, recall).item()


def test_the_two_directions_differ():
    """The same scores: 95 % of the OOD is found late, 95 % of the ID is kept early."""
    scores = torch.cat([torch.linspace(0, 1, 100), torch.linspace(0.9, 3, 95), torch.zeros(6)])
    is_ood = torch.arange(201) >= 100
    figures = ood_metrics(scores, is_ood)
    assert figures.fpr95_ood == 1.0
    assert figures.fpr95_id == pytest.approx(9 / 101)


def test_scores_of_any_range_and_dtype():
    is_ood = torch.tensor([True, False, True, False])
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        scores = torch.tensor([-30.0, -100.0, 5.0, -7.0], dtype=dtype)
        assert ood_metrics(scores, is_ood).auroc == 0.75
    assert ood_metrics(np.array([1.0, 0.0]), np.array([True, False])).auroc == 1.0


def test_a_perfect_and_a_constant_score():
    is_ood = torch.tensor([True, True, False, False, False])
    perfect = ood_metrics(is_ood.double(), is_ood)
    assert perfect.figures() == {
        "auroc": 1, "ap_out": 1, "ap_in": 1, "fpr95_ood": 0, "fpr95_id": 0
    }  # fmt: skip
    constant = ood_metrics(torch.zeros(5), is_ood)
    assert constant.figures() == {
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
        """Boxes whose scores are those of their image, nearly: few images tell little."""
        generator = torch.Generator().manual_seed(seed)
        groups = torch.arange(images).repeat_interleave(20)
        is_ood = groups % 2 == 0
        own = torch.randn(images, generator=generator)[groups]
        noise = 0.1 * torch.randn(len(groups), generator=generator)
        return own + noise + is_ood, is_ood, groups

    def test_equal_a_bootstrap_written_out(self):
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

    def test_are_over_images_and_so_wider_than_over_boxes(self):
        scores, is_ood, groups = self.drawn()
        over_images = ood_metrics(scores, is_ood, groups, resamples=200).intervals["auroc"]
        each = torch.arange(len(scores))
        over_boxes = ood_metrics(scores, is_ood, each, resamples=200).intervals["auroc"]
        assert np.ptp(over_images) > 2 * np.ptp(over_boxes)

    def test_cover_the_true_value_about_as_often_as_they_say(self):
        # AUROC of N(1, 1) against N(0, 1), the distribution of images here.
        truth = 0.5 * (1 + math.erf(1 / math.sqrt(2.02) / math.sqrt(2)))
        covered = 0
        for seed in range(60):
            low, high = ood_metrics(*self.drawn(60, seed), resamples=100).intervals["auroc"]
            covered += low <= truth <= high
        assert 50 <= covered <= 60

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
    def test_one_kind_alone(self, kind, missing):
        with pytest.raises(OODDataError, match=f"there is no {missing} sample among them"):
            ood_metrics(torch.rand(3), torch.full((3,), kind))

    def test_nothing_at_all(self):
        with pytest.raises(OODDataError, match=r"\(0 OOD, 0 ID\)"):
            ood_metrics(torch.rand(0), torch.zeros(0, dtype=torch.bool))

    def test_shapes_and_kinds(self):
        with pytest.raises(ValueError, match=r"must be \(N,\) both, got \(3,\) and \(2,\)"):
            ood_metrics(torch.rand(3), torch.zeros(2, dtype=torch.bool))
        with pytest.raises(ValueError, match=r"is_ood must be bool, got torch\.int64"):
            ood_metrics(torch.rand(2), torch.tensor([0, 1]))

    @pytest.mark.parametrize("prevalence", [0.0, 1.0, -0.1])
    def test_prevalence(self, prevalence):
        figures = ood_metrics(torch.tensor([1.0, 0.0]), torch.tensor([True, False]))
        with pytest.raises(ValueError, match="prevalence must be between 0 and 1"):
            figures.ap_at(prevalence)
