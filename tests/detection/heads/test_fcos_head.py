"""FCOS with ATSS: its assignment squares, and mmdet's loss on the same positives."""

import pytest
import torch
from helpers.head_cases import CLASSES, SHAPES, STRIDES, batch, dense_head, features, total

from negvision.detection.heads import ATSSFCOSHead
from negvision.ops import atss_assign


def atss_targets(model: ATSSFCOSHead, points, gts):
    """Labels and distances in mmdet's format, by the operator."""
    squares = model.assignment_priors(SHAPES, "cpu")
    counts = [len(level) for level in squares]
    inds, *_ = atss_assign(torch.cat(squares), counts, [gt.bboxes for gt in gts])
    flat = torch.cat(points)
    labels, distances = [], []
    for row, gt in zip(inds, gts, strict=True):
        padded = torch.cat([gt.labels.new_full((1,), CLASSES), gt.labels])
        boxes = torch.cat([gt.bboxes.new_zeros(1, 4), gt.bboxes])[row]
        labels.append(padded[row].split(counts))
        distances.append(torch.cat([flat - boxes[:, :2], boxes[:, 2:] - flat], 1).split(counts))
    levels = range(len(counts))
    units = STRIDES if model.norm_on_bbox else (1, 1, 1)
    return (
        [torch.cat([image[i] for image in labels]) for i in levels],
        [torch.cat([image[i] for image in distances]) / units[i] for i in levels],
    )


@pytest.mark.parametrize("norm_on_bbox", [False, True])
def test_loss_is_mmdets_on_atss_positives(monkeypatch, norm_on_bbox):
    own = dense_head("negvision.ATSSFCOSHead", 0.1, norm_on_bbox=norm_on_bbox)
    stock = dense_head("mmdet.FCOSHead", norm_on_bbox=norm_on_bbox)
    stock.load_state_dict(own.state_dict())
    monkeypatch.setattr(stock, "get_targets", lambda points, gts: atss_targets(own, points, gts))
    gts, metas = batch(0, counts=(5, 0, 11))
    results = []
    for model in (stock, own):
        losses = total(model.loss_by_feat(*model(features(1)), gts, metas))
        grads = torch.autograd.grad(sum(losses.values()), list(model.parameters()))
        results.append((losses, grads))
    (want, want_grads), (got, got_grads) = results
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=2e-5, atol=1e-6, msg=name)
    for g, w in zip(got_grads, want_grads, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-3, atol=2e-6)


@pytest.mark.gpu
def test_loss_does_not_wait_for_the_device():
    own = dense_head(
        "negvision.ATSSFCOSHead", loss_bbox={"type": "negvision.BoxIoULoss"}, norm_on_bbox=True
    ).cuda()
    gts, metas = batch(6)
    gts = [gt.to("cuda") for gt in gts]
    outputs = own([level.cuda() for level in features(1)])
    own.loss_by_feat(*outputs, gts, metas)
    torch.cuda.set_sync_debug_mode("error")
    try:
        own.loss_by_feat(*outputs, gts, metas)
    finally:
        torch.cuda.set_sync_debug_mode("default")
