"""Assignments by predictions against the slow oracle, edge cases, and errors."""

import functools

import pytest
import torch
from helpers.atss_cases import COMPILED, SIMILARITIES
from helpers.prediction_cases import RULES, WEIGHTS, arguments, assign, oracle, predictions

from negvision.ops import predictions as module
from negvision.ops import task_aligned_targets

HAS_OPERATOR = COMPILED and hasattr(torch.ops.negvision, "assign_by_predictions")
NAN, INF = float("nan"), float("inf")


def check(rule, case, topk=5, weights=None, centers=None, alike=None):
    priors, boxes, scores, gt, labels = arguments(rule, case)
    centers_of_images = None if centers is None else [centers]
    got = assign(
        rule, priors, boxes[None], scores[None], [gt], [labels], topk, weights, centers_of_images,
        alike,
    )  # fmt: skip
    want = oracle(
        rule, priors, boxes, scores, gt, labels, topk, weights or WEIGHTS[rule], centers, alike
    )  # fmt: skip
    assert torch.equal(got[0][0], want[0])
    assert torch.equal(got[1][0], want[1])
    padded = torch.cat([torch.tensor([-1]), labels])
    assert torch.equal(got[2][0], padded[got[0][0]])
    if len(got) == 4:
        torch.testing.assert_close(got[3][0], want[2], rtol=1e-6, atol=0)
    return got[0][0]


@pytest.mark.parametrize("rule", RULES)
def test_random_images(path, rule):
    positives = 0
    for seed in range(12):
        case = predictions(seed, count=(5, 1, 9)[seed % 3], strides=((8, 16), (16, 32))[seed % 2])
        positives += int((check(rule, case, topk=(5, 1, 13)[seed // 4]) > 0).sum())
    assert positives > 40


@pytest.mark.parametrize("rule", RULES)
def test_boxes_enough_for_predictions_to_be_sorted(path, rule):
    points, squares, boxes, logits, gt, labels = predictions(16, count=40, strides=(8, 32))
    boxes[::9, 2], boxes[4::9] = NAN, INF
    assert check(rule, (points, squares, boxes, logits, gt, labels)).any()


@pytest.mark.parametrize("weights", [(0.0, 0.0, 1.0), (1.7, 0.3, 0.5), (2.5, 2.5, 0.0), (1, 20, 9)])
@pytest.mark.parametrize("rule", RULES)
def test_weights(path, rule, weights):
    check(rule, predictions(20), weights=weights)


@pytest.mark.parametrize("topk", [1, 6, 13])
@pytest.mark.parametrize("alike", SIMILARITIES)
def test_similarities_of_task_aligned_assignment(path, alike, topk):
    """With and without sorted predictions: more or fewer than 32 boxes."""
    positives = 0
    for seed, count in ((30, 6), (31, 40)):
        case = predictions(seed, count, strides=(8, 32))
        case[2][::9, 2], case[2][4::9], case[2][3::9] = NAN, INF, case[2][3::9].flip(1)
        positives += int((check("task_aligned", case, topk, alike=alike) > 0).sum())
        check("task_aligned", case, topk, (1.0, 0.0, 0.0), alike=alike)
        small = predictions(seed + 2, count, size=200, strides=(8, 32))
        small[4][:, 2:] = small[4][:, :2] + 3  # boxes that hardly overlap any prediction
        check("task_aligned", small, topk, (0.5, 2.0, 0.0), alike=alike)
    assert positives > 4


@pytest.mark.parametrize("rule", RULES)
def test_ties_are_broken_by_index(path, rule):
    points, squares, _, logits, gt, labels = predictions(3, count=6, strides=(8,))
    gt = (gt / 8).round() * 8 + torch.tensor([0.0, 0, 8, 8])
    gt[3:], labels = gt[:3], labels * 0  # the same boxes twice
    logits = logits.round()
    inds = check(rule, (points, squares, squares, logits, gt, labels), topk=7)
    assert inds.any() and (inds <= 3).all()


@pytest.mark.parametrize("rule", RULES)
def test_tiny_boxes_between_points_and_one_prior(path, rule):
    points, squares, boxes, logits, _, labels = predictions(4)
    gt = torch.tensor([[8.5, 8.5, 10.5, 10.5], [40.5, 24.5, 42, 26], [-60.0, -60, -50, -50]])
    check(rule, (points, squares, boxes, logits, gt, labels[:3]))
    one = tuple(x[:1] for x in (points, squares, boxes, logits))
    check(rule, (*one, torch.tensor([[0.0, 0, 30, 30]]), labels[:1]))
    check(rule, (*one, gt, labels[:3]))


@pytest.mark.parametrize("rule", RULES)
def test_nothing_to_assign(path, rule):
    priors, boxes, scores, gt, labels = arguments(rule, predictions(5))
    results = assign(
        rule, priors, boxes[None].repeat(2, 1, 1), scores[None].repeat(2, 1, 1), [gt[:0]] * 2,
        [labels[:0]] * 2,
    )  # fmt: skip
    results = [*results, *assign(rule, priors, boxes[None][:0], scores[None][:0], [], [])]
    none = priors[:0], boxes[None, :0], scores[None, :0], [gt], [labels]
    results = [*results, *assign(rule, *none)]
    for result in results:
        assert ((result == 0) | (result == -1)).all()


@pytest.mark.parametrize("rule", RULES)
def test_boxes_and_predictions_that_are_not_finite(path, rule):
    points, squares, boxes, logits, gt, labels = predictions(6)
    bad = torch.tensor(
        [[9.0, 9, 9, 30], [30, 30, 9, 9], [NAN] * 4, [0, 0, INF, 30], [-3e38, 0, 3e38, 9]]
    )
    together = (points, squares, boxes, logits, torch.cat([gt, bad]), torch.cat([labels, labels]))
    inds = check(rule, together)
    alone = check(rule, (points, squares, boxes, logits, gt, labels))
    assert torch.equal(inds, alone) and alone.any()
    spoilt, wrong = boxes.clone(), logits.clone()
    spoilt[::3, 1] = NAN
    spoilt[1::5, 2] = INF
    wrong[2::4] = NAN
    priors, _, scores, *_ = arguments(rule, (points, squares, boxes, wrong, gt, labels))
    found = assign(rule, priors, spoilt[None], scores[None], [gt], [labels])
    assert found[1].isfinite().all() and not found[0][0, 2::4].any()
    if rule != "soft_label":
        assert not found[0][0, ::3].any()


@pytest.mark.parametrize("rule", RULES)
def test_a_batch_equals_its_images_in_any_dtype(path, rule):
    cases = [predictions(seed, count) for seed, count in ((7, 4), (8, 0), (9, 11))]
    each = [arguments(rule, case) for case in cases]
    priors, boxes, scores = (torch.stack([case[i] for case in each]) for i in range(3))
    gts, labels = [case[3] for case in each], [case[4] for case in each]
    whole = assign(rule, priors[0], boxes, scores, gts, labels)
    own = assign(rule, priors.double(), boxes.double(), scores.double(), gts, labels)
    assert whole[0][0].any() and whole[0][2].any() and not whole[0][1].any()
    for i in range(3):
        one = assign(
            rule, priors[i], boxes[i : i + 1], scores[i : i + 1], gts[i : i + 1], labels[i : i + 1]
        )
        assert all(torch.equal(a[i], b[0]) for a, b in zip(whole, one, strict=True))
    assert all(map(torch.equal, whole, own))


def test_centers_of_masks(path):
    case = predictions(10)
    check("soft_label", case, centers=case[4][:, :2] + 3)


@pytest.mark.skipif(not HAS_OPERATOR, reason="the extension is not built")
@pytest.mark.parametrize("rule", RULES)
def test_threads_do_not_change_the_result_nor_does_the_fallback(rule, monkeypatch):
    case = predictions(11, count=200, size=256)
    priors, boxes, scores, gt, labels = arguments(rule, case)
    run = functools.partial(assign, rule, priors, boxes[None], scores[None], [gt], [labels], 10)
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            results.append(run())
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr("negvision.ops._assignment.is_compiled_for", lambda device: False)
    results.append(run())
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))


@pytest.mark.skipif(not HAS_OPERATOR, reason="the extension is not built")
@pytest.mark.parametrize("spread", [0.0, 1e-6, 1e-3])
@pytest.mark.parametrize("rule", RULES)
def test_pairs_that_hardly_differ_and_extreme_scores_rank_exactly(rule, spread, monkeypatch):
    """Estimates leave out no pair that ranks: differences are far below their error."""
    points, squares, _, logits, gt, labels = predictions(21, count=60, size=128, strides=(8, 16))
    g = torch.Generator().manual_seed(22)
    boxes = gt[torch.arange(len(points)) % 7] + spread * torch.randn(len(points), 4, generator=g)
    logits = spread * torch.randn(logits.shape, generator=g)
    logits[::5], logits[1::5], logits[2::5] = -200, 40, logits[2::5] - 90
    priors, boxes, scores, gt, labels = arguments(
        rule, (points, squares, boxes, logits, gt, labels)
    )  # fmt: skip
    run = functools.partial(assign, rule, priors, boxes[None], scores[None], [gt], [labels])
    fast = [run(topk) for topk in (1, 9)]
    monkeypatch.setattr("negvision.ops._assignment.is_compiled_for", lambda device: False)
    for topk, result in zip((1, 9), fast, strict=True):
        assert all(map(torch.equal, result, run(topk))) and result[0].any()


def test_class_costs_do_not_depend_on_the_pieces(monkeypatch):
    priors, boxes, scores, gt, labels = arguments("sim_ota", predictions(23, classes=80))
    whole = assign("sim_ota", priors, boxes[None], scores[None], [gt], [labels])
    monkeypatch.setattr(module, "_SCORES_AT_ONCE", 200)
    pieces = assign("sim_ota", priors, boxes[None], scores[None], [gt], [labels])
    assert all(map(torch.equal, whole, pieces)) and whole[0].any()


def targets_by_loops(scores, boxes, points, labels, gts, topk=10, alpha=0.5, beta=6.0):
    """The targets of one image, from the oracle."""
    priors = points[:, [0, 1, 0, 1]]
    inds, overlaps, metrics = oracle(
        "contained", priors, boxes, scores, gts, labels, topk, (alpha, beta)
    )  # fmt: skip
    target = torch.zeros(scores.shape)
    for i, g in enumerate((inds - 1).tolist()):
        if g >= 0:
            own = inds == g + 1
            target[i, labels[g]] = metrics[i] * overlaps[own].max() / (metrics[own].max() + 1e-9)
    return inds, target


def test_targets_as_ultralytics_wants_them(path):
    cases = [predictions(seed, count) for seed, count in ((12, 6), (13, 4))]
    boxes, logits = (torch.stack([case[i] for case in cases]) for i in (2, 3))
    points, gts = cases[0][0][:, :2], torch.zeros(2, 6, 4)
    labels, mask = torch.zeros(2, 6, 1), torch.zeros(2, 6, 1)
    for i, case in enumerate(cases):
        gts[i, : len(case[4])], labels[i, : len(case[4]), 0] = case[4], case[5].float()
        mask[i, : len(case[4])] = 1
    gts[1, 4:] = gts[0, :2]  # masked, whatever they are
    scores = logits.sigmoid().requires_grad_()
    got = task_aligned_targets(scores, boxes, points, labels, gts, mask)
    assert [x.dtype for x in got] == [torch.int64, *[torch.float32] * 2, torch.bool, torch.int64]
    for i, case in enumerate(cases):
        inds, target = targets_by_loops(scores[i].detach(), case[2], points, case[5], case[4])
        index = (inds - 1).clamp(min=0)
        assert torch.equal(got[3][i], inds > 0) and torch.equal(got[4][i], index) and inds.any()
        assert torch.equal(got[0][i], case[5][index]) and torch.equal(got[1][i], case[4][index])
        torch.testing.assert_close(got[2][i], target)
    assert not any(x.requires_grad for x in got)
    empty = task_aligned_targets(scores, boxes, points, labels[:, :0], gts[:, :0], mask[:, :0])
    assert (empty[0] == 4).all() and not any(x.any() for x in empty[1:])
    assert [x.shape for x in empty] == [x.shape for x in got]


@pytest.mark.parametrize("rule", RULES)
def test_wrong_arguments(path, rule):
    priors, boxes, scores, gt, labels = arguments(rule, predictions(14))
    right = {
        "priors": priors,
        "boxes": boxes[None],
        "scores": scores[None],
        "gts": [gt],
        "labels": [labels],
    }
    for change, message in (
        ({"priors": priors[:, :2]}, r"priors must have shape \(\*, \*, 4\)"),
        ({"boxes": boxes[None, 1:]}, "pred_boxes must have shape"),
        ({"scores": scores[None, 1:]}, "pred_scores must have shape"),
        ({"labels": [labels + 3]}, "but pred_scores have 4 classes"),
        ({"labels": [labels - 4]}, "gt_labels are from"),
        ({"labels": [labels[1:]]}, "gt_labels must have shape"),
        ({"labels": []}, "gt_labels are of 0 images, not 1"),
        ({"topk": 0}, "topk must be at least 1"),
        ({"gts": [gt, gt]}, "pred_boxes must have shape"),
        ({"weights": (-1.0, -1.0, 1.0)}, "at least 0"),
    ):
        if rule == "contained" and "weights" in change:
            continue
        with pytest.raises(ValueError, match=message):
            assign(rule, **right | change)
    if rule in ("sim_ota", "soft_label"):
        with pytest.raises(ValueError, match="strides above 0"):
            assign(rule, **right | {"priors": priors * torch.tensor([1, 1, 0, 1])})
    if rule != "soft_label":
        for change in (-3.0, 3.0):
            with pytest.raises(RuntimeError, match=r"outside \[0, 1\]: scores must be prob"):
                assign(rule, **right | {"scores": scores[None] + change})


@pytest.mark.skipif(not HAS_OPERATOR, reason="the extension is not built")
@pytest.mark.parametrize("rule", range(4))
def test_opcheck(rule):
    priors, boxes, scores, gt, labels = arguments(RULES[rule], predictions(15))
    costs = scores.new_zeros(1, len(priors)) if rule > 1 else None
    operator = torch.ops.negvision.assign_by_predictions.default
    given = [
        priors[None],
        boxes[None],
        scores[None],
        costs,
        gt,
        [5],
        labels,
        None,
        rule,
        3,
        [1.0, 2, 3],
    ]
    torch.library.opcheck(operator, tuple(given))
    for index, value, message in (
        (0, priors[None].double(), "priors must be float32"),
        (3, scores.new_zeros(1), "class_costs"),
        (5, [4], "num_gts add up to 4, but there are 5 boxes"),
        (8, 4, "rule 0 to 3"),
        (10, [1.0], "weights three numbers"),
    ):
        with pytest.raises(RuntimeError, match=message):
            operator(*given[:index], value, *given[index + 1 :])
