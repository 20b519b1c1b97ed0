"""``gt_inds`` against mmdet's ATSSAssigner.

2,000 random images without ties: distances, overlaps, thresholds and box borders differ by more
than rounding, which is checked in float64. On integer boxes, which have many ties, the result is
that of a tie-break by index.
"""

import pytest
import torch
from mmdet.models.task_modules.assigners import ATSSAssigner as MMDetATSSAssigner
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmengine.structures import InstanceData

from negvision.detection.assigners import ATSSAssigner

CASES, CHUNKS = 2000, 8


def random_priors(g):
    """Anchors of a random pyramid by mmdet's generator."""
    strides = [(4, 8, 16), (8, 16, 32, 64), (8, 16, 32, 64, 128)][torch.randint(3, (), generator=g)]
    height, width = (torch.randint(32, 320, (2,), generator=g)).tolist()
    generator = AnchorGenerator(
        strides=list(strides),
        ratios=[1.0],
        octave_base_scale=[4, 8][torch.randint(2, (), generator=g)],
        scales_per_octave=1,
        center_offset=[0.0, 0.5][torch.randint(2, (), generator=g)],
    )
    levels = generator.grid_priors(
        [(-(-height // s), -(-width // s)) for s in strides], device="cpu"
    )
    return torch.cat(levels), [len(level) for level in levels], height, width


def random_boxes(g, count, height, width):
    centers = torch.rand(count, 2, generator=g) * torch.tensor([width, height])
    half = (torch.rand(count, 2, generator=g) ** 2 * max(height, width) + 3) / 2
    return torch.cat([centers - half, centers + half], 1)


def quantities(priors, counts, boxes):
    """In float64, (A, G): distances of centers, IoUs, and depth of centers in boxes."""
    p, b = priors.double(), boxes.double()
    center = (p[:, :2] + p[:, 2:]) / 2
    distance = torch.cdist(
        center, (b[:, :2] + b[:, 2:]) / 2, compute_mode="donot_use_mm_for_euclid_dist"
    )
    low = torch.maximum(p[:, None, :2], b[None, :, :2])
    high = torch.minimum(p[:, None, 2:], b[None, :, 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    area = (p[:, 2:] - p[:, :2]).prod(1)[:, None] + (b[:, 2:] - b[:, :2]).prod(1)
    iou = inter / (area - inter)
    depth = torch.cat([center[:, None] - b[None, :, :2], b[None, :, 2:] - center[:, None]], -1)
    return distance, iou, depth.amin(-1)


def tie_free(priors, counts, boxes, topk, distances_may_tie=False, overlap=None) -> torch.Tensor:
    """Which boxes have no ties, also among the boxes that are kept."""
    distance, iou, depth = quantities(priors, counts, boxes)
    iou = iou if overlap is None else overlap
    free = torch.ones(len(boxes), dtype=torch.bool)
    chosen = []
    for level in distance.split(counts):
        ordered = level.sort(dim=0).values
        k = min(topk, len(level))
        if k < len(level) and not distances_may_tie:
            free &= ordered[k] - ordered[k - 1] > 1e-4 * (1 + ordered[k])
        place = level.sort(dim=0, stable=True).indices.argsort(dim=0)
        chosen.append(place < k)
    candidate = torch.cat(chosen)
    count = candidate.sum(0)
    mean = (iou * candidate).sum(0) / count
    deviation = (((iou - mean) ** 2 * candidate).sum(0) / (count - 1)).sqrt()
    free &= ((iou - mean - deviation).abs() > 1e-5).logical_or(~candidate).all(0)
    free &= ((depth - 0.01).abs() > 1e-3).logical_or(~candidate).all(0)
    claimed = torch.where(candidate & (iou >= mean + deviation) & (depth > 0.01), iou, torch.nan)
    for g in range(len(boxes)):
        others = claimed[:, :g][:, free[:g]]
        free[g] &= not ((others - claimed[:, g : g + 1]).abs() < 1e-5).any()
    return free


def instances(priors, boxes):
    return (
        InstanceData(priors=priors),
        InstanceData(bboxes=boxes, labels=torch.arange(len(boxes)) % 7),
    )


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_two_thousand_images_without_ties(chunk):
    positives = 0
    for case in range(chunk, CASES, CHUNKS):
        g = torch.Generator().manual_seed(case)
        priors, counts, height, width = random_priors(g)
        topk = [9, 9, 9, 1, 4, 15][torch.randint(6, (), generator=g)]
        count = int(torch.randint(1, 40, (), generator=g))
        boxes = random_boxes(g, count, height, width)
        boxes = boxes[tie_free(priors, counts, boxes, topk)]
        pred, gt = instances(priors, boxes)
        want = MMDetATSSAssigner(topk).assign(pred, counts, gt)
        got = ATSSAssigner(topk).assign(pred, counts, gt)
        assert torch.equal(got.gt_inds, want.gt_inds), case
        assert torch.equal(got.labels, want.labels), case
        positive = got.gt_inds > 0
        torch.testing.assert_close(
            got.max_overlaps[positive], want.max_overlaps[positive], rtol=1e-6, atol=1e-7
        )
        assert not got.max_overlaps[~positive].any()
        positives += int(positive.sum())
    assert positives > 10_000


@pytest.mark.parametrize("alpha", [0.3, 0.8])
def test_prediction_aware_overlaps(alpha):
    positives = 0
    for case in range(60):
        g = torch.Generator().manual_seed(case)
        priors, counts, height, width = random_priors(g)
        boxes = random_boxes(g, 12, height, width)
        labels = torch.arange(12) % 7
        predicted = priors + torch.randn(priors.shape, generator=g) * 3
        scores = torch.randn(len(priors), 7, generator=g) * 2
        iou = quantities(predicted, counts, boxes)[1]
        overlap = scores.double().sigmoid()[:, labels] ** (1 - alpha) * iou**alpha
        free = tie_free(priors, counts, boxes, 9, overlap=overlap)
        pred, _ = instances(priors, boxes)
        pred.bboxes, pred.scores = predicted, scores
        gt = InstanceData(bboxes=boxes[free], labels=labels[free])
        want = MMDetATSSAssigner(9, alpha=alpha).assign(pred, counts, gt)
        got = ATSSAssigner(9, alpha=alpha).assign(pred, counts, gt)
        assert torch.equal(got.gt_inds, want.gt_inds), case
        positives += int((got.gt_inds > 0).sum())
    assert positives > 1000


def test_ties_of_integer_boxes_are_broken_by_index(monkeypatch):
    # The tie-break is by prior index: mmdet with a stable sort instead of topk.
    def stable_topk(values, k, dim, largest):
        assert not largest
        ordered = values.sort(dim=dim, stable=True)
        return ordered.values.narrow(dim, 0, k), ordered.indices.narrow(dim, 0, k)

    monkeypatch.setattr(torch.Tensor, "topk", stable_topk)
    tied = positives = 0
    for case in range(200):
        g = torch.Generator().manual_seed(case)
        priors, counts, height, width = random_priors(g)
        boxes = random_boxes(g, 12, height, width).round()
        boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)]
        boxes = boxes[tie_free(priors, counts, boxes, 9, distances_may_tie=True)]
        pred, gt = instances(priors, boxes)
        want = MMDetATSSAssigner(9).assign(pred, counts, gt)
        runs = [ATSSAssigner().assign(pred, counts, gt) for _ in range(3)]
        assert all(torch.equal(got.gt_inds, want.gt_inds) for got in runs), case
        positives += int((want.gt_inds > 0).sum())
        for level in quantities(priors, counts, boxes)[0].split(counts):
            ordered = level.sort(dim=0).values
            tied += int((ordered[8:9] == ordered[9:10]).sum())
    assert tied > 500 and positives > 2000


def test_images_with_only_crowds():
    priors = torch.tensor([[0.0, 0, 8, 8], [40, 40, 48, 48]])
    pred, gt = instances(priors, torch.zeros(0, 4))
    crowd = InstanceData(bboxes=torch.tensor([[0.0, 0, 16, 16]]))
    assert not MMDetATSSAssigner(9, ignore_iof_thr=0.5).assign(pred, [2], gt, crowd).gt_inds.any()
    ours = ATSSAssigner(9, ignore_iof_thr=0.5).assign(pred, [2], gt, crowd)
    assert ours.gt_inds.tolist() == [-1, 0]


def test_ignored_anchors_are_never_positive():
    # The third level has four priors. All are ignored, but mmdet still uses them.
    levels = AnchorGenerator([8, 16, 32], [1.0], octave_base_scale=2, scales_per_octave=1)
    levels = levels.grid_priors([(8, 8), (4, 4), (2, 2)], device="cpu")
    priors, counts = torch.cat(levels), [64, 16, 4]
    pred, gt = instances(priors, torch.tensor([[1.0, 2.0, 63.0, 61.0]]))
    crowd = InstanceData(bboxes=torch.tensor([[-200.0, -200.0, 300.0, 300.0]]))
    theirs = MMDetATSSAssigner(9, ignore_iof_thr=0.5).assign(pred, counts, gt, crowd)
    ours = ATSSAssigner(9, ignore_iof_thr=0.5).assign(pred, counts, gt, crowd)
    assert (theirs.gt_inds > 0).any()
    assert (ours.gt_inds == -1).all()
