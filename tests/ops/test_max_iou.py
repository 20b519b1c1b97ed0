"""Max-IoU assignment against a slow oracle, and its edge cases."""

import pytest
import torch
from helpers.atss_cases import COMPILED, grid, integer_boxes, random_boxes

from negvision.ops import max_iou_assign, pairwise_box_iou

NAN, INF = float("nan"), float("inf")


def oracle(priors, gt, labels, pos, neg, ignored=None, iof=-1.0, of_prior=True, **options):
    """One image, box by box, as the specification reads."""
    low, high = neg if isinstance(neg, tuple) else (0.0, neg)
    iou = pairwise_box_iou(gt, priors)
    size = gt[:, 2:] - gt[:, :2]
    iou[~((size > 0).all(1) & size.prod(1).isfinite())] = 0
    iou = torch.where(iou > 0, iou, 0.0)
    excluded = torch.zeros(len(priors), dtype=torch.bool)
    if ignored is not None and len(ignored) and iof > 0:
        pair = (priors, ignored) if of_prior else (ignored, priors)
        share = pairwise_box_iou(*pair, "iof")
        excluded = ((share if of_prior else share.T) > iof).any(1)
    iou[:, excluded] = 0
    inds, most = torch.full((len(priors),), -1), torch.zeros(len(priors))
    for a in range(len(priors)):
        best = 0
        for g in range(len(gt)):
            if iou[g, a] > most[a]:
                most[a], best = iou[g, a], g + 1
        if best and most[a] >= torch.tensor(pos):
            inds[a] = best
        elif not len(gt) or torch.tensor(low) <= most[a] < torch.tensor(high):
            inds[a] = 0
    for g in range(len(gt)) if options.get("match_low_quality", True) and len(priors) else ():
        highest = iou[g].max()
        if highest > 0 and highest >= torch.tensor(options.get("min_pos_iou", 0.0)):
            matches = (iou[g] == highest).nonzero().flatten()
            inds[matches if options.get("gt_max_assign_all", True) else matches[:1]] = g + 1
    inds[excluded], most[excluded] = -1, -1
    return inds, most, torch.cat([torch.tensor([-1]), labels])[inds.clamp(min=0)]


def check(priors, gts, crowds=None, neg=0.4, iof=-1.0, of_prior=True, **options):
    labels = [torch.arange(len(gt)) * 7 + 3 for gt in gts]
    got = max_iou_assign(
        priors, gts, labels, 0.5, neg, ignore_boxes=crowds, ignore_iof_thr=iof,
        ignore_wrt_candidates=of_prior, **options,
    )  # fmt: skip
    for i, gt in enumerate(gts):
        own, crowd = priors if priors.dim() == 2 else priors[i], crowds[i] if crowds else None
        want = oracle(own, gt, labels[i], 0.5, neg, crowd, iof, of_prior, **options)
        for a, b in zip(got, want, strict=True):
            assert torch.equal(a[i], b)
    return got[0]


OPTIONS = (
    {},
    {"match_low_quality": False},
    {"gt_max_assign_all": False},
    {"min_pos_iou": 0.3},
    {"neg": (0.1, 0.4)},
    {"iof": 0.5},
    {"iof": 0.2, "of_prior": False},
)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("make", [random_boxes, integer_boxes])
def test_random_images(path, make, options):
    g = torch.Generator().manual_seed(1)
    priors, _ = grid(96, 133, strides=(16, 32), scale=2, shapes=((1.0, 1.0), (0.7, 1.4)))
    gts = [make(g, n, 96, 133) for n in (7, 0, 1, 20)]
    crowds = [random_boxes(g, n, 96, 133) for n in (2, 2, 0, 1)] if "iof" in options else None
    inds = check(priors, gts, crowds, **options)
    assert (inds > 0).any() and (inds == 0).any() and (inds == -1).any()
    check(priors + torch.arange(4.0)[:, None, None], gts, crowds, **options)


def test_degenerate_input(path):
    priors, _ = grid(64, 64, strides=(16, 32), scale=2)
    rows = [[9, 9, 9, 30], [30, 30, 9, 9], [NAN] * 4, [0, 0, INF, 9], [900.0, 900, 950, 950]]
    bad = torch.tensor(rows, dtype=torch.float32)
    good = torch.tensor([[8.0, 8.0, 40.0, 40.0]]).repeat(2, 1)
    inds = check(priors, [torch.cat([bad, good, bad])])
    assert set(inds.unique().tolist()) <= {-1, 0, 6, 7} and (inds == 7).any()
    spoilt = priors.clone()
    spoilt[::3, 1] = NAN
    assert not (check(spoilt, [good])[0, ::3] > 0).any()
    check(priors[:1], [good])
    check(priors[:0], [good])
    check(priors, [bad[:0]], [good], iof=0.5)
    assert max_iou_assign(priors, [], [], 0.5, 0.4)[0].shape == (0, len(priors))


@pytest.mark.skipif(not COMPILED, reason="the extension is not built")
def test_threads_do_not_change_the_result():
    g = torch.Generator().manual_seed(2)
    priors, _ = grid(512, 512, strides=(4, 8, 16))
    gts = [integer_boxes(g, n, 512, 512) for n in (300, 40)]
    labels = [torch.arange(len(gt)) for gt in gts]
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            results.append(max_iou_assign(priors, gts, labels, 0.5, 0.4))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))


def test_wrong_arguments(path):
    priors, gt = torch.rand(5, 4), torch.rand(2, 4)
    label = torch.zeros(2, dtype=torch.int64)
    for given, message in (
        ((priors[:, :2], [gt], [label]), r"priors must have shape \(\*, \*, 4\)"),
        ((priors[None].repeat(3, 1, 1), [gt], [label]), "priors are of 3 images, gt_boxes of 1"),
        ((priors, [gt], []), "gt_labels are of 0 images, not 1"),
        ((priors, [gt], [label[1:]]), "gt_labels must have shape"),
        ((priors, [gt[0]], [label]), r"gt_boxes\[0\] must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            max_iou_assign(*given, 0.5, 0.4)
    with pytest.raises(ValueError, match="ignore_boxes are of 0 images"):
        max_iou_assign(priors, [gt], [label], 0.5, 0.4, ignore_boxes=[], ignore_iof_thr=0.5)


@pytest.mark.skipif(
    not COMPILED or not hasattr(torch.ops.negvision, "max_iou_assign"),
    reason="the extension is not built",
)
def test_opcheck():
    priors, gt, label = torch.rand(1, 5, 4), torch.rand(2, 4), torch.zeros(2, dtype=torch.int64)
    operator = torch.ops.negvision.max_iou_assign.default
    rest = (gt, [0], False, [0.5, 0.0, 0.4, 0.0, 0.5], True, True)
    torch.library.opcheck(operator, (priors, gt, [2], label, gt, [2], *rest[2:]))
    with pytest.raises(RuntimeError, match="num_ignored must have 1 counts that add up to 2"):
        operator(priors, gt, [2], label, *rest)
    with pytest.raises(RuntimeError, match="num_gts add up to 3, but there are 2 boxes"):
        operator(priors, gt, [3], label, None, *rest[1:])
    with pytest.raises(RuntimeError, match="priors must be float32"):
        operator(priors.double(), gt, [2], label, None, *rest[1:])
