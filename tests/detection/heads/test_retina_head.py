"""RetinaNet's head with ATSS: loss from written-out targets, padding, and crowds."""

import torch
from helpers.head_cases import CLASSES, batch, dense_head, features, total
from mmdet.models.task_modules.assigners import ATSSAssigner as MMDetATSSAssigner
from mmengine.structures import InstanceData

L1 = {"type": "L1Loss", "loss_weight": 1.0}


def test_loss_is_focal_and_l1_on_the_positives_of_mmdets_assigner():
    model = dense_head("negvision.ATSSRetinaHead", 0.2, loss_bbox=L1)
    gts, metas = batch(0, counts=(5, 0, 11))
    scores, deltas = model(features(1))
    losses = total(model.loss_by_feat(scores, deltas, gts, metas))

    priors = model.prior_generator.grid_priors([s.shape[-2:] for s in scores], device="cpu")
    counts = [len(level) for level in priors]
    priors = torch.cat(priors)
    flat = [
        torch.cat([x[i].permute(1, 2, 0).reshape(-1, n) for x in maps])
        for maps, n in ((scores, CLASSES), (deltas, 4))
        for i in range(3)
    ]
    cls = l1 = avg = 0
    for i, gt in enumerate(gts):
        result = MMDetATSSAssigner(9).assign(InstanceData(priors=priors), counts, gt)
        positive = result.gt_inds > 0
        labels = torch.where(positive, result.labels, CLASSES)
        cls = cls + model.loss_cls(flat[i], labels, avg_factor=1)
        boxes = gt.bboxes[result.gt_inds[positive] - 1]
        if positive.any():
            wanted = model.bbox_coder.encode(priors[positive], boxes)
            l1 = l1 + (flat[3 + i][positive] - wanted).abs().sum()
        avg += max(int(positive.sum()), 1)
    torch.testing.assert_close(losses["loss_cls"], cls / avg, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses["loss_bbox"], l1 / avg, rtol=1e-5, atol=1e-6)


def test_decoded_regression_and_padding():
    loss = {"type": "negvision.BoxIoULoss", "mode": "giou"}
    model = dense_head("negvision.ATSSRetinaHead", 0.2, reg_decoded_bbox=True, loss_bbox=loss)
    gts, metas = batch(2, counts=(6, 4, 3))
    metas[0] = {"img_shape": (60, 60), "pad_shape": (64, 64)}
    outputs = model(features(3))
    losses = total(model.loss_by_feat(*outputs, gts, metas))
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    unpadded = total(model.loss_by_feat(*outputs, gts, [metas[1]] * 3))
    assert losses["loss_cls"] != unpadded["loss_cls"]
