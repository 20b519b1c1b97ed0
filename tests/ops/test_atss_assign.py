"""The batched assignment against the slow oracle."""

import pytest
import torch
from helpers.atss_cases import (
    COMPILED,
    SIMILARITIES,
    grid,
    integer_boxes,
    oracle,
    random_boxes,
    similarity,
)

from negvision.ops import atss_assign

pytestmark = pytest.mark.usefixtures("path")


def check(priors, counts, gt, alike=("iou", None), **kwargs):
    """Assign one image; must be what the oracle says, to the bit."""
    named = {
        "valid": (kwargs["valid"][None] if "valid" in kwargs else None),
        "ignore_boxes": ([kwargs["ignored"]] if "ignored" in kwargs else None),
        "ignore_iof_thr": kwargs.get("iof_thr", -1.0),
        "similarity": alike[0],
        "similarity_scale": alike[1],
        "min_size": kwargs.get("min_size", 0.0),
    }
    if "predicted" in kwargs:
        boxes, logits, labels, alpha = kwargs["predicted"]
        named |= {
            "pred_boxes": boxes[None],
            "pred_scores": logits[None],
            "gt_labels": [labels],
            "alpha": alpha,
        }
    # A label of its own for each box, unless the predictions want them in a range.
    named.setdefault("gt_labels", [torch.arange(len(gt)) * 7 + 3])
    inds, overlaps, labels = atss_assign(priors, counts, [gt], kwargs.get("topk", 9), **named)
    want = oracle(priors, counts, gt, similar=similarity(*alike), **kwargs)
    assert torch.equal(inds[0], want[0])
    assert torch.equal(overlaps[0], want[1])
    padded = torch.cat([torch.tensor([-1]), named["gt_labels"][0]])
    assert torch.equal(labels[0], padded[inds[0].clamp(min=0)])
    return inds[0]


@pytest.mark.parametrize("make", [random_boxes, integer_boxes])
@pytest.mark.parametrize("seed", range(4))
def test_grids(seed, make):
    g = torch.Generator().manual_seed(seed)
    height, width = 96 + 40 * seed, 128
    priors, counts = grid(height, width, strides=(8, 16, 32, 64))
    positive = check(priors, counts, make(g, 12, height, width)) > 0
    assert positive.any()


@pytest.mark.parametrize("step", [0, 1, 3])
@pytest.mark.parametrize("topk", [1, 8, 9, 10, 16, 17, 50])
def test_box_centers_on_between_and_outside_small_grids(topk, step):
    """Where windows are chosen and clamped, and where distances tie or all but tie."""
    for height, width in ((32, 32), (32, 40), (40, 56)):
        priors, counts = grid(height, width, strides=(8,))
        x = torch.arange(-12.0, width + 14, 2)
        y = torch.arange(-12.0, height + 14, 2)
        center = torch.cartesian_prod(x, y) + step * 2.0**-18
        check(priors, counts, torch.cat([center - 20, center + 20], 1), topk=topk)


@pytest.mark.parametrize(
    "name,height,width,strides",
    [
        ("one row", 8, 300, (8, 16)),
        ("one column", 300, 8, (8, 16)),
        ("one prior a level", 8, 8, (8, 16, 32)),
        ("two rows", 16, 200, (8,)),
    ],
)
def test_narrow_grids(name, height, width, strides):
    g = torch.Generator().manual_seed(7)
    priors, counts = grid(height, width, strides)
    boxes = random_boxes(g, 10, height, width, largest=60)
    outside = boxes + torch.tensor([width, 0.0, width, 0.0])
    check(priors, counts, torch.cat([boxes, outside, boxes - 500]))


def test_strides_of_four_to_one():
    priors, counts = grid(64, 256, strides=(8,))
    priors = priors * torch.tensor([4.0, 1.0, 4.0, 1.0])
    g = torch.Generator().manual_seed(1)
    check(priors, counts, random_boxes(g, 20, 64, 1024))
    check(priors.flip(1), counts, random_boxes(g, 20, 1024, 64))  # reversed boxes: centers alone


def test_several_anchors_at_a_location():
    shapes = ((1.0, 1.0), (0.7071, 1.4142), (1.4142, 0.7071))
    priors, counts = grid(80, 96, strides=(8, 16, 32), shapes=shapes)
    g = torch.Generator().manual_seed(3)
    for topk in (4, 9, 27):
        check(priors, counts, random_boxes(g, 8, 80, 96), topk=topk)


@pytest.mark.parametrize("noise", [1e-6, 1e-3, 0.5, 20.0])
def test_priors_off_the_grid(noise):
    g = torch.Generator().manual_seed(4)
    priors, counts = grid(96, 96, strides=(8, 16))
    shift = torch.randn(len(priors), 2, generator=g) * noise
    check(priors + torch.cat([shift, shift], 1), counts, random_boxes(g, 10, 96, 96))


def test_shuffled_and_column_major_priors():
    g = torch.Generator().manual_seed(5)
    priors, counts = grid(64, 96, strides=(8,))
    boxes = random_boxes(g, 10, 64, 96)
    check(priors[torch.randperm(len(priors), generator=g)], counts, boxes)
    check(priors.view(8, 12, 4).transpose(0, 1).reshape(-1, 4), counts, boxes)
    check(priors.flip(0), counts, boxes)


def test_priors_that_are_not_finite():
    g = torch.Generator().manual_seed(6)
    priors, counts = grid(64, 96, strides=(8, 16))
    boxes = random_boxes(g, 6, 64, 96)
    for value in (float("nan"), float("inf")):
        spoilt = priors.clone()
        spoilt[::7] = value
        check(spoilt, counts, boxes)
        check(torch.full_like(priors, value), counts, boxes)


def test_boxes_outside_the_grid():
    g = torch.Generator().manual_seed(13)
    priors, counts = grid(96, 128, strides=(8, 16))
    boxes = random_boxes(g, 8, 96, 128)
    for x, y in ((200, 0), (-300, 10), (0, 900), (5000, -5000), (40, -2000)):
        check(priors, counts, boxes + torch.tensor([x, y, x, y], dtype=torch.float32))
    large = torch.tensor([[-900.0, -30, 140, 120], [-40, -800, 150, 700], [0, 0, 4000, 96]])
    check(priors, counts, large)


def test_rows_and_columns_at_uneven_distances():
    g = torch.Generator().manual_seed(14)
    x, y = (torch.rand(n, generator=g).mul(9).add(0.5).cumsum(0) for n in (17, 11))
    center = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).reshape(-1, 2)
    priors = torch.cat([center - 12, center + 12], 1)
    check(priors, [len(priors)], random_boxes(g, 12, 60, 90))
    # One prior a row, with x at random: a column, but no grid to search by windows.
    center = torch.stack([torch.rand(200, generator=g) * 300, torch.arange(200.0)], 1)
    priors = torch.cat([center - 20, center + 20], 1)
    check(priors, [200], random_boxes(g, 12, 200, 300))


def test_predictions_and_crowds_that_are_not_finite():
    g = torch.Generator().manual_seed(15)
    priors, counts = grid(64, 96, strides=(8, 16))
    gt = random_boxes(g, 6, 64, 96)
    for value in (float("nan"), float("inf")):
        boxes = priors.clone()
        boxes[::3, 0] = value
        boxes[1::3, 3] = value
        found = atss_assign(
            priors, counts, [gt], pred_boxes=boxes[None], alpha=0.5,
            pred_scores=torch.zeros(1, len(priors), 1), gt_labels=[torch.zeros(6).long()],
        )  # fmt: skip
        assert (found[1] <= 1).all()
        crowd = torch.tensor([[value, 0, 50, 50], [0, 0, 50, value]])
        spoilt = priors.clone()
        spoilt[::4, 0] = float("nan")
        inds, *_ = atss_assign(spoilt, counts, [gt], ignore_boxes=[crowd], ignore_iof_thr=0.5)
        assert (inds[0, ::4] == 0).all()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_valid_mask(share):
    g = torch.Generator().manual_seed(8)
    priors, counts = grid(96, 128, strides=(8, 16, 32))
    valid = torch.rand(len(priors), generator=g) < share
    inds = check(priors, counts, random_boxes(g, 8, 96, 128), valid=valid)
    assert ((inds == -1) == ~valid).all()


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.999])
def test_crowds(threshold):
    g = torch.Generator().manual_seed(9)
    priors, counts = grid(96, 128, strides=(8, 16, 32), scale=3)
    ignored = random_boxes(g, 4, 96, 128, largest=120)
    gt = random_boxes(g, 8, 96, 128)
    check(priors, counts, gt, ignored=ignored, iof_thr=threshold)
    valid = torch.rand(len(priors), generator=g) < 0.7
    check(priors, counts, gt, ignored=ignored, iof_thr=threshold, valid=valid)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8, 1.0])
def test_prediction_aware_overlap(alpha):
    g = torch.Generator().manual_seed(10)
    priors, counts = grid(64, 96, strides=(8, 16))
    gt = random_boxes(g, 6, 64, 96)
    predicted = (
        priors + torch.randn(priors.shape, generator=g) * 4,
        torch.randn(len(priors), 5, generator=g) * 4,
        torch.randint(5, (6,), generator=g),
        alpha,
    )
    check(priors, counts, gt, predicted=predicted)


@pytest.mark.parametrize("min_size", [0.0, 8.5, 30.0])
@pytest.mark.parametrize("alike", SIMILARITIES)
def test_similarities_and_least_sizes(alike, min_size):
    g = torch.Generator().manual_seed(16)
    priors, counts = grid(96, 128, strides=(8, 16, 32))
    given = {"alike": alike, "min_size": min_size}
    check(priors, counts, random_boxes(g, 8, 96, 128), **given)
    check(priors, counts, integer_boxes(g, 8, 96, 128), **given)
    small = random_boxes(g, 20, 96, 128, largest=6)
    inds = check(priors, counts, small, **given)
    assert (inds > 0).any()
    predicted = (
        priors + torch.randn(priors.shape, generator=g) * 9,  # the sides of some are reversed
        torch.randn(len(priors), 5, generator=g),
        torch.randint(5, (20,), generator=g),
        0.7,
    )
    check(priors, counts, small, predicted=predicted, **given)
    spoilt = priors.clone()
    spoilt[::5, 0], spoilt[1::5] = float("nan"), float("inf")
    bad = torch.tensor([[9.0, 9, 9, 30], [30, 30, 9, 9], [float("nan")] * 4, [0, 0, 1e-30, 1e-30]])
    check(spoilt, counts, torch.cat([small, bad]), **given)


def test_every_small_box_gets_a_positive_if_the_least_size_is_the_finest_stride():
    g = torch.Generator().manual_seed(17)
    priors, counts = grid(256, 256)
    cells = torch.cartesian_prod(torch.arange(7), torch.arange(7)) * 32  # too far to compete
    middle = cells + torch.rand(49, 2, generator=g) * 16 + 8
    gt = torch.cat([middle - 2, middle + 2], 1)
    for alike in (("iou", None), *SIMILARITIES):
        kept = check(priors, counts, gt, alike=alike, min_size=8.1)
        assert len(kept.unique()) == 50
        assert len(check(priors, counts, gt, alike=alike).unique()) < 25


def test_batch_equals_its_images():
    g = torch.Generator().manual_seed(11)
    priors, counts = grid(96, 128, strides=(8, 16, 32))
    gts = [random_boxes(g, n, 96, 128) for n in (3, 0, 17, 1)]
    crowds = [random_boxes(g, n, 96, 128) for n in (0, 2, 1, 0)]
    valid = torch.rand(4, len(priors), generator=g) < 0.9
    labels = [torch.randint(3, (len(gt),), generator=g) for gt in gts]
    named = {
        "pred_boxes": priors + torch.randn(4, *priors.shape, generator=g) * 4,
        "pred_scores": torch.randn(4, len(priors), 3, generator=g),
    }
    whole = atss_assign(
        priors, counts, gts, 9, valid=valid, ignore_boxes=crowds, ignore_iof_thr=0.5,
        gt_labels=labels, alpha=0.8, **named
    )  # fmt: skip
    own = priors.expand(4, -1, -1).clone()
    separate = atss_assign(
        own, counts, gts, 9, valid=valid, ignore_boxes=crowds, ignore_iof_thr=0.5,
        gt_labels=labels, alpha=0.8, **named
    )  # fmt: skip
    assert torch.equal(whole[0], separate[0]) and torch.equal(whole[1], separate[1])
    for i in range(4):
        one = atss_assign(
            priors, counts, gts[i : i + 1], 9, valid=valid[i : i + 1],
            ignore_boxes=crowds[i : i + 1], ignore_iof_thr=0.5, gt_labels=labels[i : i + 1],
            alpha=0.8, **{name: value[i : i + 1] for name, value in named.items()}
        )  # fmt: skip
        assert torch.equal(whole[0][i], one[0][0]) and torch.equal(whole[1][i], one[1][0])
    # Priors of each image of their own.
    moved = own + torch.arange(4.0)[:, None, None]
    got = atss_assign(moved, counts, gts)
    for i in range(4):
        one = atss_assign(moved[i], counts, gts[i : i + 1])
        assert torch.equal(got[0][i], one[0][0])


@pytest.mark.skipif(not COMPILED, reason="the extension is not built")
def test_large_batches_are_the_same_on_any_number_of_threads():
    g = torch.Generator().manual_seed(12)
    priors, counts = grid(256, 320)
    gts = [integer_boxes(g, n, 256, 320) for n in (300, 0, 500, 64)]
    threads = torch.get_num_threads()
    try:
        results = []
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            results += [atss_assign(priors, counts, gts) for _ in range(3)]
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))
