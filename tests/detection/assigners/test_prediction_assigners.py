"""Assigners by predictions and by max-IoU against mmdet's, alone and in its detectors.

mmdet's run in float64, so that its own rounding makes no ties.
"""

import copy

import mmdet.models.task_modules.assigners as stock
import pytest
import torch
from helpers.prediction_cases import predictions
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from negvision.detection import assigners, prediction_assigners
from negvision.ops import tal_assign

OURS = {
    "TaskAlignedAssigner": prediction_assigners,
    "SimOTAAssigner": prediction_assigners,
    "DynamicSoftLabelAssigner": prediction_assigners,
    "MaxIoUAssigner": assigners,
}
ARGUMENTS = {
    "TaskAlignedAssigner": ({"topk": 13}, {"topk": 2}),
    "SimOTAAssigner": ({}, {"center_radius": 1.0, "candidate_topk": 4, "cls_weight": 0.5}),
    "DynamicSoftLabelAssigner": ({}, {"soft_center_radius": 1.0, "topk": 3, "iou_weight": 1.0}),
    "MaxIoUAssigner": (
        {"pos_iou_thr": 0.5, "neg_iou_thr": 0.4},
        {"pos_iou_thr": 0.5, "neg_iou_thr": (0.1, 0.5), "min_pos_iou": 0.2, "ignore_iof_thr": 0.5},
        {"pos_iou_thr": 0.6, "neg_iou_thr": 0.3, "gt_max_assign_all": False},
        {"pos_iou_thr": 0.5, "neg_iou_thr": 0.5, "match_low_quality": False},
    ),
}


@pytest.fixture(autouse=True)
def mmdet_scope():
    init_default_scope("mmdet")


def both(name, **arguments):
    return getattr(OURS[name], name)(**arguments), getattr(stock, name)(**arguments)


def instances(name, case, dtype):
    points, squares, boxes, logits, gt, labels = case
    scores = logits if name == "DynamicSoftLabelAssigner" else logits.sigmoid()
    priors = squares if name in ("TaskAlignedAssigner", "MaxIoUAssigner") else points
    predicted = {"priors": priors.to(dtype), "bboxes": boxes.to(dtype), "scores": scores.to(dtype)}
    return InstanceData(**predicted), InstanceData(bboxes=gt.to(dtype), labels=labels)


def in_float64(assigner):
    """mmdet's rules with a dynamic k store overlaps as float32, whatever they are."""
    if hasattr(assigner, "dynamic_k_matching"):
        matching = assigner.dynamic_k_matching

        def stored(*arguments):
            overlaps, indices = matching(*arguments)
            return overlaps.float(), indices

        assigner.dynamic_k_matching = stored
    return assigner


@pytest.mark.parametrize("chunk", range(4))
@pytest.mark.parametrize("name", OURS)
def test_two_thousand_images(name, chunk):
    positives = 0
    for seed in range(chunk, 2000, 4):
        case = predictions(
            seed, seed % 7, 48 + 16 * (seed % 3), strides=((8, 16), (16, 32))[seed % 2]
        )
        ours, theirs = both(name, **ARGUMENTS[name][seed // 4 % len(ARGUMENTS[name])])
        pred, gt = instances(name, case, torch.float32)
        crowd = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 20.5, 30.5]])) if len(gt) else None
        got = ours.assign(pred, gt, crowd)
        exact = None if crowd is None else InstanceData(bboxes=crowd.bboxes.double())
        want = in_float64(theirs).assign(*instances(name, case, torch.float64), exact)
        if name == "MaxIoUAssigner" and touches_nothing(theirs, case, exact):
            continue
        assert torch.equal(got.gt_inds, want.gt_inds), seed
        assert torch.equal(got.labels, want.labels), seed
        taken = got.gt_inds > 0 if name != "MaxIoUAssigner" else got.gt_inds > -2
        torch.testing.assert_close(
            got.max_overlaps[taken], want.max_overlaps[taken].float(), rtol=1e-5, atol=1e-6
        )
        if name == "TaskAlignedAssigner":
            torch.testing.assert_close(
                got.assign_metrics, want.assign_metrics.float(), rtol=1e-4, atol=1e-7
            )
        positives += int((got.gt_inds > 0).sum())
    assert positives > 1000


def touches_nothing(theirs, case, crowd) -> bool:
    """Whether some box overlaps no prior: mmdet gives it all others."""
    iou = theirs.iou_calculator(case[4], case[1])
    if theirs.ignore_iof_thr > 0 and crowd is not None:
        share = theirs.iou_calculator(case[1], crowd.bboxes.float(), mode="iof")
        iou[:, (share > theirs.ignore_iof_thr).any(1)] = 0
    return bool((iou.amax(1) <= 0).any()) if len(iou) else False


@pytest.mark.parametrize("name", OURS)
def test_no_boxes_one_prior_and_the_same_box_twice(name):
    ours, theirs = both(name, **ARGUMENTS[name][0])
    points, squares, boxes, logits, gt, labels = predictions(1, 3)
    inside = torch.tensor([[0.0, 0.0, 20.0, 20.0]])
    for case in (
        (points, squares, boxes, logits, gt[:0], labels[:0]),
        (points[:0], squares[:0], boxes[:0], logits[:0], gt, labels),
        (points[:1], squares[:1], inside, logits[:1], inside, labels[:1]),
        (points, squares, boxes, logits, gt.repeat(2, 1), labels.repeat(2)),
    ):
        pred, truth = instances(name, case, torch.float32)
        got, want = ours.assign(pred, truth), theirs.assign(pred, truth)
        assert torch.equal(got.gt_inds, want.gt_inds) and torch.equal(got.labels, want.labels)


def test_centers_of_masks():
    ours, theirs = both("DynamicSoftLabelAssigner")
    for seed in range(20):
        case = predictions(seed, 4)
        pred, gt = instances("DynamicSoftLabelAssigner", case, torch.float32)
        gt.masks = torch.rand(4, 64, 64, generator=torch.Generator().manual_seed(seed)) < 0.1
        gt.masks[:, :, :20] = True
        got, want = ours.assign(pred, gt), theirs.assign(pred, gt)
        assert torch.equal(got.gt_inds, want.gt_inds) and got.gt_inds.any()


def test_what_only_mmdet_computes_is_left_to_it():
    arguments = {"pos_iou_thr": 0.5, "neg_iou_thr": 0.4, "perm_repeat_gt_cfg": {"iou_thr": 0.7}}
    ours, theirs = both("MaxIoUAssigner", **arguments)
    for calculator in ({"type": "BboxOverlaps2D", "dtype": "fp16"}, None):
        if calculator:
            del arguments["perm_repeat_gt_cfg"]
            ours, theirs = both("MaxIoUAssigner", **arguments, iou_calculator=calculator)
        pred, gt = instances("MaxIoUAssigner", predictions(2), torch.float32)
        assert torch.equal(ours.assign(pred, gt).gt_inds, theirs.assign(pred, gt).gt_inds)
    for name in list(OURS)[:3]:
        with pytest.raises(ValueError, match=f"Keep mmdet's {name}"):
            both(name, **ARGUMENTS[name][0], iou_calculator={"type": "BboxOverlaps2D_GLIP"})
    with pytest.raises(ValueError, match="topk must be at least 1"):
        prediction_assigners.TaskAlignedAssigner(topk=0)


BACKBONE = {
    "type": "ResNet",
    "depth": 18,
    "base_channels": 16,
    "out_indices": (1, 2, 3),
    "norm_cfg": {"type": "BN"},
    "norm_eval": False,
}
NECK = {"type": "FPN", "in_channels": [32, 64, 128], "out_channels": 16, "num_outs": 3}


def shrunk(name: str) -> dict:
    """A config of mmdet on a tiny network."""
    model = Config.fromfile(f"{stock.__path__[0]}/../../../.mim/configs/{name}.py").model
    model.backbone, model.neck = copy.deepcopy(BACKBONE), copy.deepcopy(NECK)
    model.data_preprocessor = {"type": "DetDataPreprocessor"}
    head = model.get("rpn_head", model.get("bbox_head"))
    head.in_channels = head.feat_channels = 16
    generator = head.get("prior_generator", head.get("anchor_generator"))
    if generator:
        generator.strides = [8, 16, 32]
    if "roi_head" in model:
        extractor = model.roi_head.bbox_roi_extractor
        extractor.out_channels, extractor.featmap_strides = 16, [8, 16, 32]
        model.roi_head.bbox_head.update(in_channels=16, fc_out_channels=16)
    if name.startswith("tood"):
        head.num_dcn, model.train_cfg.initial_epoch = 0, 0
        head.norm_cfg = {"type": "GN", "num_groups": 4, "requires_grad": True}
    if name.startswith("rtmdet"):
        head.norm_cfg = {"type": "BN"}
    return model


def renamed(cfg):
    """Every assigner by the package's name."""
    for value in cfg.values() if isinstance(cfg, dict) else cfg:
        if isinstance(value, dict):
            if value.get("type") in OURS:
                value["type"] = f"negvision.{value['type']}"
            renamed(value)
    return cfg


@pytest.mark.parametrize(
    "name",
    [
        "tood/tood_r50_fpn_1x_coco",
        "yolox/yolox_s_8xb8-300e_coco",
        "rtmdet/rtmdet_s_8xb32-300e_coco",
        "retinanet/retinanet_r50_fpn_1x_coco",
        "faster_rcnn/faster-rcnn_r50_fpn_1x_coco",
    ],
)
def test_changing_types_swaps_them_into_mmdets_detectors(name):
    MessageHub.get_current_instance().update_info("epoch", 1)  # TOODHead reads it
    images = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    samples = []
    for boxes in ([[10.3, 9.1, 41.7, 44.9], [60.2, 20.5, 110.8, 90.1]], [[5.6, 30.2, 60.9, 70.4]]):
        sample = DetDataSample(
            metainfo={
                "img_shape": (96, 128),
                "pad_shape": (96, 128),
                "batch_input_shape": (96, 128),
            }
        )
        bboxes = torch.tensor(boxes)
        sample.gt_instances = InstanceData(bboxes=bboxes, labels=torch.arange(len(bboxes)))
        samples.append(sample)
    losses, kinds = [], []
    for change in (lambda cfg: cfg, renamed):
        torch.manual_seed(1)
        model = MODELS.build(change(shrunk(name)))
        kinds.append({type(x) for m in model.modules() for x in vars(m).values()})
        torch.manual_seed(2)  # samplers draw
        got = model.loss(images, copy.deepcopy(samples))
        losses.append({k: sum(v) if isinstance(v, list) else v for k, v in got.items()})
    assert any("negvision" in kind.__module__ for kind in kinds[1] - kinds[0])
    assert losses[0].keys() == losses[1].keys()
    for key, want in losses[0].items():
        torch.testing.assert_close(losses[1][key], want, rtol=1e-5, atol=1e-7, msg=key)


def test_similarity_of_the_component_is_that_of_the_operator():
    pred, gt = instances("TaskAlignedAssigner", predictions(3), torch.float32)
    assigner = prediction_assigners.TaskAlignedAssigner(
        topk=5, similarity="nwd", similarity_scale=20
    )
    result = assigner.assign(pred, gt, alpha=0.5, beta=2)
    want = tal_assign(
        pred.priors, pred.bboxes[None], pred.scores[None], [gt.bboxes], [gt.labels], 5,
        alpha=0.5, beta=2, similarity="nwd", similarity_scale=20,
    )  # fmt: skip
    got = result.gt_inds, result.max_overlaps, result.labels, result.assign_metrics
    assert all(torch.equal(g, w[0]) for g, w in zip(got, want, strict=True)) and got[0].any()
    with pytest.raises(ValueError, match="similarity_scale is 20; simd takes two scales"):
        prediction_assigners.TaskAlignedAssigner(5, similarity="simd", similarity_scale=20)
