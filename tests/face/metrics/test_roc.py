"""The ROC against scikit-learn, against loops over all thresholds, and by hand."""

import numpy as np
import pytest
from helpers.face_cases import scored
from oracles.faces import slow_tar_at_far
from scipy.stats import ks_2samp
from sklearn import metrics as sklearn_metrics

from negvision.face.metrics.roc import roc_curve

CASES = [scored(0), scored(1, levels=2), scored(2, levels=10, share=0.8), scored(3, size=2)]


@pytest.mark.parametrize(("scores", "same"), CASES)
def test_curve_and_area_equal_scikit_learn(scores, same):
    curve = roc_curve(scores, same)
    far, tar, thresholds = sklearn_metrics.roc_curve(same, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.far, far, atol=1e-12)
    np.testing.assert_allclose(curve.tar, tar, atol=1e-12)
    np.testing.assert_array_equal(curve.thresholds, thresholds[1:])
    assert curve.auroc() == pytest.approx(sklearn_metrics.roc_auc_score(same, scores), abs=1e-12)


@pytest.mark.parametrize(("scores", "same"), CASES)
@pytest.mark.parametrize("far", [0.5, 0.03, 0.005])
def test_tar_at_far_is_the_best_of_all_thresholds(scores, same, far):
    point = roc_curve(scores, same).at_far(far)
    negatives = int((~same).sum())
    assert point.negatives == negatives
    if negatives * far < 1:
        assert point.rate is point.threshold is point.accepted is None
        return
    assert point.rate == pytest.approx(slow_tar_at_far(scores, same, far), abs=1e-12)
    # The reported threshold has the reported effect.
    assert np.mean(scores[same] >= point.threshold) == pytest.approx(point.rate, abs=1e-12)
    assert np.sum(scores[~same] >= point.threshold) == point.accepted <= far * negatives + 1e-9


@pytest.mark.parametrize("count", [10, 1000, 1_000_000])
def test_a_limit_needs_exactly_its_inverse_of_negatives(count):
    def at(negatives):
        scores = np.append(np.arange(negatives), negatives - 1.5)
        return roc_curve(scores, np.arange(negatives + 1) == negatives).at_far(1 / count)

    # One false accept of `count` is the limit, and lets in the positive just below it.
    assert at(count).rate == 1 and at(count).accepted == 1
    assert at(count - 1).rate is None and at(count - 1).negatives == count - 1


@pytest.mark.parametrize(
    ("sign", "auc", "eer", "overlap"), [(1, 1, 0, 0), (-1, 0, 1, 1), (0, 0.5, 0.5, 1)]
)
def test_scores_in_order_in_reverse_and_equal(sign, auc, eer, overlap):
    curve = roc_curve(sign * np.arange(10.0), np.arange(10) >= 5)
    assert (curve.auroc(), curve.equal_error_rate(), curve.overlap()) == (auc, eer, overlap)
    if sign == 0:
        assert curve.at_far(0.2)[1:4] == (0.0, np.inf, 0)


def test_equal_error_rate_by_hand():
    # At 0.6 one of four positives is rejected and one of four negatives accepted.
    scores = np.array([0.9, 0.8, 0.6, 0.3, 0.7, 0.2, 0.1, 0.0])
    same = np.arange(8) < 4
    assert roc_curve(scores, same).equal_error_rate() == 0.25
    # Between (FAR, FRR) = (0, 1/2) and (1/2, 0) the line meets FAR = FRR at 1/4.
    tied = roc_curve(np.array([3, 2, 2, 1]), np.array([True, True, False, False]))
    assert tied.equal_error_rate() == 0.25


@pytest.mark.parametrize(("scores", "same"), CASES)
def test_overlap_is_one_minus_the_kolmogorov_smirnov_distance(scores, same):
    distance = ks_2samp(scores[same], scores[~same], alternative="less").statistic
    assert roc_curve(scores, same).overlap() == pytest.approx(1 - distance, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        ([], [], "0 positive and 0 negative"),
        ([0.5], [True], "1 positive and 0 negative"),
        ([0.5, 0.1], [False, False], "0 positive and 2 negative"),
        ([0.5, np.nan], [True, False], "1 of 2 scores are NaN"),
        ([0.5, 0.1], [True], r"scores \(2,\) and same \(1,\)"),
    ],
)
def test_unusable_scores(scores, same, message):
    with pytest.raises(ValueError, match=message):
        roc_curve(np.array(scores), np.array(same))
