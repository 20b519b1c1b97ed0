"""Edge cases of the specification by name, and the errors of wrong calls."""

import pytest
import torch
from helpers.atss_cases import grid

from negvision.ops import atss_assign

pytestmark = pytest.mark.usefixtures("path")

NAN, INF = float("nan"), float("inf")


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


@pytest.mark.parametrize(
    ("shape", "counts", "gts"),
    [
        ((64, 4), [64], [boxes(), boxes()]),  # no boxes
        ((0, 4), [], [boxes([0, 0, 8, 8]), boxes()]),  # no priors
        ((0, 4), [0, 0], [boxes([0, 0, 8, 8])]),
        ((64, 4), [64], []),  # no images
        ((0, 64, 4), [64], []),
    ],
)
def test_empty_inputs_give_negatives_or_empty_results(shape, counts, gts):
    inds, overlaps, labels = atss_assign(torch.rand(shape), counts, gts)
    assert inds.shape == overlaps.shape == labels.shape == (len(gts), sum(counts))
    assert inds.dtype == torch.int64 and overlaps.dtype == torch.float32
    assert not inds.any() and not overlaps.any() and (labels == -1).all()


def test_one_candidate_has_no_deviation_and_is_not_positive():
    inds, *_ = atss_assign(boxes([0, 0, 8, 8]), [1], [boxes([0, 0, 8, 8])])
    assert inds.tolist() == [[0]]


def test_two_candidates_are_positive_only_with_equal_overlaps():
    gt = boxes([0, 0, 16, 8])
    equal = boxes([2, 0, 10, 8], [6, 0, 14, 8])
    unequal = boxes([2, 0, 10, 8], [6, 0, 14, 7.9])
    assert atss_assign(equal, [2], [gt])[0].tolist() == [[1, 1]]
    assert atss_assign(unequal, [2], [gt])[0].tolist() == [[0, 0]]


def test_level_with_fewer_anchors_than_k_and_level_with_none():
    priors, counts = grid(48, 48, strides=(8, 16, 32))  # 36, 9 and 4 priors
    gt = boxes([4, 4, 40, 40])
    inds, *_ = atss_assign(priors, [36, 0, 9, 0, 4], [gt])
    without_empty, *_ = atss_assign(priors, counts, [gt])
    assert inds.any() and torch.equal(inds, without_empty)


@pytest.mark.parametrize(
    "name,box",
    [
        ("zero width", [10, 10, 10, 30]),
        ("zero height", [10, 10, 30, 10]),
        ("a point", [10, 10, 10, 10]),
        ("reversed", [30, 30, 10, 10]),
        ("NaN", [NAN, 10, 30, 30]),
        ("all NaN", [NAN] * 4),
        ("infinite", [-INF, -INF, INF, INF]),
        ("half infinite", [0, 0, INF, 30]),
        ("far outside", [1e6, 1e6, 1e6 + 64, 1e6 + 64]),
        ("overflowing", [-3e38, -3e38, 3e38, 3e38]),
    ],
)
def test_degenerate_boxes_never_crash_and_never_match(name, box):
    priors, counts = grid(64, 64)
    proper = [8.0, 8.0, 40.0, 40.0]
    inds, overlaps, _ = atss_assign(priors, counts, [boxes(box, proper, box)])
    alone, *_ = atss_assign(priors, counts, [boxes(proper)])
    assert (inds != 1).all() and (inds != 3).all() and overlaps.isfinite().all()
    assert torch.equal(inds == 2, alone == 1) and alone.any()


def test_ignored_anchors_take_no_part_in_candidate_selection():
    # Level of four: mmdet lets the ignored one fill the top-k and turns it positive.
    priors = boxes([0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16], [8, 8, 16, 16])
    gt = boxes([0, 0, 8.5, 8.5])
    assert atss_assign(priors, [4], [gt])[0].tolist() == [[1, 0, 0, 0]]
    crowd = [boxes([0, 0, 8, 8])]
    inds, *_ = atss_assign(priors, [4], [gt], ignore_boxes=crowd, ignore_iof_thr=0.5)
    assert inds[0, 0] == -1


def test_ignore_threshold_is_exclusive_and_of_the_anchor_area():
    priors = boxes([0, 0, 8, 8], [0, 0, 80, 80])
    crowd = [boxes([0, 0, 4, 8])]  # half of the first, 0.5 % of the second

    def states(threshold):
        return atss_assign(
            priors, [2], [boxes()], ignore_boxes=crowd, ignore_iof_thr=threshold
        )[0].tolist()  # fmt: skip

    assert states(0.5) == [[0, 0]]
    assert states(0.499) == [[-1, 0]]
    assert states(0.004) == [[-1, -1]]
    assert states(0.0) == states(-1.0) == [[0, 0]]


def test_ties_in_distance_are_taken_in_the_order_of_indices():
    # Nine places, and the box center at equal distance from several priors beyond the eighth.
    priors, counts = grid(80, 80, strides=(8,), scale=2)
    gt = boxes([24, 24, 56, 56])  # center (40, 40) on a prior: 1 + 4 + 4 are nearest, then 4 tie
    inds, *_ = atss_assign(priors, counts, [gt], topk=10)
    tied = [i for i, p in enumerate(priors.tolist())
            if (p[0] + p[2] - 80) ** 2 + (p[1] + p[3] - 80) ** 2 == 4 * 16**2]  # fmt: skip
    ten = sorted(
        range(len(priors)),
        key=lambda i: (
            (priors[i, 0] + priors[i, 2] - 80) ** 2 + (priors[i, 1] + priors[i, 3] - 80) ** 2,
            i,
        ),
    )[:10]
    assert len(tied) == 4 and set(tied) & set(ten) == {min(tied)}
    chosen = torch.zeros(1, len(priors), dtype=torch.bool)
    chosen[0, ten] = True
    limited, *_ = atss_assign(priors, counts, [gt], topk=10, valid=chosen)
    assert torch.equal(inds > 0, limited > 0)


def test_bit_equal_overlaps_pass_their_own_threshold():
    # Nine priors all inside the box: nine equal IoUs. In float32 their mean plus deviation can
    # come out above them; sizes are tried until that happens.
    rounded_above = 0
    for size in range(20, 120):
        low = torch.tensor([[x, y] for x in (1.0, 2.0, 3.0) for y in (1.0, 2.0, 3.0)])
        priors = torch.cat([low, low + 7], 1)
        gt = boxes([0, 0, 0.37 * size + 11, 0.53 * size + 11])
        inds, overlaps, _ = atss_assign(priors, [9], [gt])
        assert (inds == 1).all()
        naive = overlaps[0].mean() + overlaps[0].std()
        rounded_above += int(naive > overlaps[0, 0])
    assert rounded_above > 0


def test_equal_overlaps_of_two_boxes_go_to_the_lower_index():
    priors, counts = grid(64, 64, strides=(8,), scale=4)
    gt = boxes([10, 9, 41, 52])
    other = boxes([2, 2, 30, 31])
    inds, *_ = atss_assign(priors, counts, [torch.cat([other, gt, gt, gt])])
    assert set(inds.unique().tolist()) == {0, 1, 2}


def test_claims_go_to_the_highest_overlap():
    priors = boxes([0, 0, 16, 16], [16, 0, 32, 16], [0, 16, 16, 32], [16, 16, 32, 32])
    loose, tight = boxes([0, 0, 18, 18]), boxes([0, 0, 16.5, 16])
    for first, second, winner in ((loose, tight, 2), (tight, loose, 1)):
        inds, overlaps, _ = atss_assign(priors, [4], [torch.cat([first, second])])
        assert inds.tolist() == [[winner, 0, 0, 0]]
        assert overlaps[0, 0].item() == pytest.approx(256 / 264)


@pytest.mark.parametrize("side", range(4))
def test_center_must_lie_more_than_a_hundredth_of_a_pixel_inside(side):
    # Equal priors round the origin, so their overlaps are equal and the center alone decides.
    priors = boxes([-8, -8, 8, 8], [-8, -8, 8, 8])
    edge = torch.tensor(0.01)
    sign = -1 if side < 2 else 1
    for margin, inside in (
        (edge, False),
        (edge.nextafter(torch.tensor(0.0)), False),
        (edge.nextafter(torch.tensor(1.0)), True),
        (torch.tensor(0.0), False),
    ):
        gt = boxes([-9, -9, 9, 9])
        gt[0, side] = sign * margin
        inds, *_ = atss_assign(priors, [2], [gt])
        assert inds.tolist() == [[int(inside)] * 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_computed_in_float32(dtype):
    priors, counts = grid(128, 128, strides=(8, 16))
    gt = boxes([13, 9, 71, 50], [40, 40, 120, 104])
    inds, overlaps, _ = atss_assign(priors.to(dtype), counts, [gt.to(dtype)])
    want_inds, want_overlaps, _ = atss_assign(
        priors.to(dtype).float(), counts, [gt.to(dtype).float()]
    )
    assert torch.equal(inds, want_inds) and torch.equal(overlaps, want_overlaps)
    assert inds.any() and overlaps.dtype == torch.float32


def test_unknown_labels_match_nothing():
    priors, counts = grid(64, 64)
    gt = boxes([8, 8, 40, 40])
    for label in (-1, 3, 10**9):
        inds, *_ = atss_assign(
            priors, counts, [gt], pred_boxes=priors[None], alpha=0.5,
            pred_scores=torch.zeros(1, len(priors), 3), gt_labels=[torch.tensor([label])],
        )  # fmt: skip
        assert not inds.any()


def test_inputs_that_are_not_contiguous():
    priors, counts = grid(64, 64)
    gt = boxes([8, 8, 40, 40], [3, 9, 30, 60])
    want = atss_assign(priors, counts, [gt])
    got = atss_assign(priors.t().contiguous().t(), counts, [gt.repeat(1, 2)[:, :4]])
    assert torch.equal(want[0], got[0])


P, C = grid(64, 64, strides=(8,))


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"priors": P[:, :3]}, r"priors must have shape \(\*, \*, 4\), got \(1, 64, 3\)"),
        ({"priors": P.expand(3, -1, -1)}, "priors are of 3 images, gt_boxes of 1"),
        ({"num_level_priors": [60]}, r"\[60\] add up to 60, but there are 64 priors"),
        ({"gt_boxes": [torch.zeros(4)]}, r"gt_boxes\[0\] must have shape \(n, 4\), got \(4,\)"),
        ({"valid": torch.ones(1, 64, device="meta").bool()}, "valid is on meta, the priors on cpu"),
        (
            {"pred_boxes": P[None].to("meta"), "pred_scores": P[None],
             "gt_labels": [torch.zeros(1)]},
            "pred_boxes is on meta",
        ),
        ({"gt_boxes": [torch.zeros(1, 4, device="meta")]}, "are on meta, the priors on cpu"),
        ({"topk": 0}, "topk must be at least 1, got 0"),
        ({"valid": torch.ones(64).bool()}, r"valid must have shape \(1, 64\), got \(64,\)"),
        (
            {"ignore_boxes": [], "ignore_iof_thr": 0.5},
            "ignore_boxes are of 0 images, not 1",
        ),
        ({"pred_boxes": P[None]}, "pred_boxes need pred_scores and gt_labels"),
        (
            {"pred_boxes": P[None], "pred_scores": P[None], "gt_labels": [torch.zeros(1)],
             "alpha": 2},
            r"alpha must lie in \[0, 1\], got 2",
        ),
        (
            {"pred_boxes": P[None], "pred_scores": P[None], "gt_labels": [torch.zeros(2)]},
            r"gt_labels must have shape \(1\), got \(2,\)",
        ),
        ({"gt_labels": []}, "gt_labels are of 0 images, not 1"),
    ],
)  # fmt: skip
def test_errors_name_what_was_expected(arguments, message):
    call = {"priors": P, "num_level_priors": C, "gt_boxes": [boxes([0, 0, 9, 9])], **arguments}
    with pytest.raises(ValueError, match=message):
        atss_assign(**call)
