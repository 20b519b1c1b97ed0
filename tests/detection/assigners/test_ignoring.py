"""Ignored boxes are neither objects nor background, in every head."""

from types import SimpleNamespace

import pytest
import torch
from helpers import two_stage_cases
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.samplers import BaseSampler
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from negvision.detection.assigners import IgnoringAssigner
from negvision.engine.config.options import ignore_regions
from negvision.ops import pairwise_box_iou

LEVELS = [(8, 64), (16, 16), (32, 4)]
KINDS = [
    {"type": "negvision.ATSSAssigner"},
    {"type": "negvision.ATSSAssigner", "ignore_iof_thr": 0.5},
    {"type": "mmdet.ATSSAssigner", "topk": 9},
    {"type": "negvision.MaxIoUAssigner", "pos_iou_thr": 0.3, "neg_iou_thr": 0.2, "min_pos_iou": 0},
    {"type": "mmdet.MaxIoUAssigner", "pos_iou_thr": 0.3, "neg_iou_thr": 0.2, "min_pos_iou": 0},
]


def priors():
    rows = []
    for stride, count in LEVELS:
        side = int(count**0.5)
        y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        centers = (torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride
        rows.append(torch.cat([centers - 2 * stride, centers + 2 * stride], 1))
    return torch.cat(rows)


def instances(boxes, labels):
    return InstanceData(bboxes=boxes, labels=labels)


def assigned(assigner, truth, ignored, named: bool = False) -> AssignResult:
    """Called as heads do: by position, with the numbers of priors for ATSS; or by name."""
    pred = InstanceData(priors=priors())
    levels = [count for _, count in LEVELS]
    for_atss = "MaxIoU" not in type(getattr(assigner, "inner", assigner)).__name__
    if named:
        options = {"num_level_priors": levels} if for_atss else {}
        return assigner.assign(pred, gt_instances=truth, gt_instances_ignore=ignored, **options)
    return assigner.assign(pred, *[levels] * for_atss, truth, ignored)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_priors_of_ignored_boxes_take_no_part(kind):
    """What each prior would be if the ignored boxes were labeled decides whether it takes part."""
    init_default_scope("mmdet")
    plain = TASK_UTILS.build(dict(kind))
    own = TASK_UTILS.build({"type": "negvision.IgnoringAssigner", "assigner": dict(kind)})
    generator = torch.Generator().manual_seed(0)
    for number in (0, 1, 4):
        corners = torch.rand(number + 3, 2, generator=generator) * 40
        sides = 8 + torch.rand(number + 3, 2, generator=generator) * 20
        boxes, labels = torch.cat([corners, corners + sides], 1), torch.arange(number + 3)
        truth = instances(boxes[:number], labels[:number])
        ignored = instances(boxes[number:], labels[number:] - 99)
        found = assigned(own, truth, ignored)
        assert torch.equal(found.gt_inds, assigned(own, truth, ignored, named=True).gt_inds)
        everything = assigned(plain, instances(boxes, labels), ignored)
        inside = (pairwise_box_iou(priors(), ignored.bboxes, "iof") > 0.5).any(1)
        taken = (everything.gt_inds > number) | (everything.gt_inds == 0) & inside
        wanted = torch.where(taken, -1, everything.gt_inds)
        assert taken.any() and torch.equal(found.gt_inds, wanted) and found.num_gts == number
        assert (found.labels[taken] == -1).all()
        if hasattr(own, "assign_batch"):
            batch = own.assign_batch(
                priors(), [count for _, count in LEVELS], [truth, truth], [ignored, ignored[:0]]
            )
            assert torch.equal(batch[0][0], wanted) and torch.equal(batch[2][0], found.labels)
            assert torch.equal(batch[0][1], assigned(plain, truth, None).gt_inds)
        for nothing in (None, ignored[:0]):
            one, other = (assigned(each, truth, nothing) for each in (own, plain))
            assert torch.equal(one.gt_inds, other.gt_inds)


def test_an_object_in_an_ignored_region_keeps_its_priors():
    own = IgnoringAssigner({"type": "negvision.ATSSAssigner"})
    one, region = (
        instances(torch.tensor([box]), torch.tensor([0]))
        for box in ([20.0, 20, 44, 44], [0.0, 0, 64, 64])
    )
    alone = assigned(own.inner, one, None).gt_inds > 0
    found = assigned(own, one, region).gt_inds
    assert alone.any() and (found[alone] == 1).all() and not (found == 0).all()


@pytest.mark.parametrize("kind", ["FasterRCNN", "CascadeRCNN", "MaskRCNN"])
def test_two_stage_heads_draw_no_background_on_ignored_boxes(kind, monkeypatch):
    init_default_scope("mmdet")

    def build(model):
        ignore_regions(model)
        return MODELS.build(model)

    monkeypatch.setattr(two_stage_cases, "MODELS", SimpleNamespace(build=build))
    drawn, sample = [], BaseSampler.sample

    def spied(*args, **kwargs):
        drawn.append(sample(*args, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(BaseSampler, "sample", spied)
    torch.manual_seed(0)
    model = two_stage_cases.detector({}, kind)
    data = two_stage_cases.batch(model, True, objects=(2, 0), masks=kind == "MaskRCNN")
    half = torch.tensor([[0.0, 0, 32, 64]])
    for one in data["data_samples"]:
        one.ignored_instances = instances(half, torch.zeros(1, dtype=torch.int64))
    losses = two_stage_cases.losses_of(model, data)
    assert all(torch.isfinite(value) for value in losses.values())
    negatives = torch.cat([one.neg_priors for one in drawn])
    inside = pairwise_box_iou(negatives, half, "iof")
    assert len(negatives) > 100 and (inside <= 0.5).all()
    assert len(drawn) == (2 if kind != "CascadeRCNN" else 4) * 2
