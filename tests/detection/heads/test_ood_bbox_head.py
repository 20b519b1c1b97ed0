"""OODBBoxHead gives mmdet's boxes, each with the logits of its RoI."""

import pytest
import torch
from helpers.two_stage_cases import CLASSES, META, TEST, box_head, features, predict, rois
from mmengine.config import ConfigDict
from oracles.ood_scores import score_of

from negvision.ood import OODThreshold, set_threshold


def outputs(head, count, seed=1):
    """Classifier and regressor outputs far from uniform."""
    torch.manual_seed(seed)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        return head(features(count))


def decoded_one_by_one(head, boxes, deltas):
    """Box of RoI r and class c, by one call of the coder each."""
    coder, width = head.bbox_coder, 4
    decoded = {}
    for r, roi in enumerate(boxes):
        for c in range(CLASSES):
            start = 0 if head.reg_class_agnostic else c * width
            delta = deltas[r : r + 1, start : start + width]
            decoded[r, c] = coder.decode(roi[None, 1:], delta, max_shape=META["img_shape"])[0]
    return decoded


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("nms", ["nms", "soft_nms"])
def test_boxes_equal_mmdet(agnostic, nms):
    stock = box_head("mmdet.Shared2FCBBoxHead", reg_class_agnostic=agnostic)
    own = box_head("negvision.OODBBoxHead", reg_class_agnostic=agnostic)
    boxes, (scores, deltas) = rois(40), outputs(stock, 40)
    own.load_state_dict(stock.state_dict())
    config = ConfigDict(score_thr=0.05, nms={"type": nms, "iou_threshold": 0.5}, max_per_img=30)
    want = predict(stock, boxes, scores, deltas, config, rescale=True)
    got = predict(own, boxes, scores, deltas, config, rescale=True)
    assert len(want) == 30
    for name in ("bboxes", "scores", "labels"):
        assert torch.equal(want[name], got[name]), name


@pytest.mark.parametrize("agnostic", [False, True])
def test_logits_belong_to_the_roi_of_the_box(agnostic):
    head = box_head("negvision.OODBBoxHead", reg_class_agnostic=agnostic)
    boxes, (scores, deltas) = rois(20), outputs(head, 20)
    found = predict(head, boxes, scores, deltas)
    decoded = decoded_one_by_one(head, boxes, deltas)
    probabilities = scores.softmax(-1)
    assert len(found) == 30 and found.logits.shape == (30, CLASSES + 1)
    for box, label, score, logits in zip(
        found.bboxes, found.labels, found.scores, found.logits, strict=True
    ):
        sources = [
            r
            for r in range(20)
            if torch.equal(decoded[r, int(label)], box) and probabilities[r, label] == score
        ]
        assert len(sources) == 1
        assert torch.equal(logits, scores[sources[0]])
    # Some RoIs give more than one box, and boxes are not in the order of the RoIs.
    assert len(found.logits.unique(dim=0)) < 30


@pytest.mark.parametrize("score", ["msp", "max_logit", "entropy", "energy", "abet"])
def test_score_uses_the_foreground(score):
    head = box_head("negvision.OODBBoxHead", score=score).double()
    boxes = rois(20).double()
    scores, deltas = torch.randn(20, CLASSES + 1).double() * 3, torch.randn(20, 4 * CLASSES)
    found = predict(head, boxes, scores, deltas.double())
    expected = [score_of(score, z.tolist()) for z in found.logits[:, :CLASSES]]
    assert found.ood_score.tolist() == pytest.approx(expected, rel=1e-12, abs=1e-14)
    assert found.ood_score_name == score and "temperature" not in found


def test_unknown_is_marked_with_a_threshold():
    head = box_head("negvision.OODBBoxHead")
    boxes, (scores, deltas) = rois(20), outputs(head, 20)
    plain = predict(head, boxes, scores, deltas)
    assert "is_ood" not in plain
    middle = plain.ood_score.median().item()
    assert set_threshold(head, OODThreshold(middle, "msp", 0.5, 30)) == 1
    found = predict(head, boxes, scores, deltas)
    # A score equal to the threshold is known.
    assert torch.equal(found.is_ood, plain.ood_score > middle)
    assert 0 < found.is_ood.sum() < 30


@pytest.mark.parametrize("threshold", [None, -0.5])
def test_no_rois_and_no_boxes(threshold):
    head = box_head("negvision.OODBBoxHead")
    head.ood_threshold = threshold
    scores, deltas = outputs(head, 6)
    strict = ConfigDict({**TEST, "score_thr": 1.0})
    cases = [
        (rois(6)[:0], scores[:0], deltas[:0], TEST),
        (rois(6), scores, deltas, strict),
    ]
    for boxes, output, regressed, config in cases:
        found = predict(head, boxes, output, regressed, config)
        assert found.bboxes.shape == (0, 4) and found.logits.shape == (0, CLASSES + 1)
        assert found.ood_score.shape == (0,) and found.ood_score_name == "msp"
        assert ("is_ood" in found) == (threshold is not None)
