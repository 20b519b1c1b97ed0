"""The NWD loss against its definition, and its gradients where the distance is 0 or large."""

import pytest
import torch

from negvision.detection.losses import BoxIoULoss, NWDLoss


def test_the_loss_falls_toward_the_target_from_boxes_that_do_not_overlap():
    target = torch.tensor([[20.0, 20.0, 26.0, 28.0]]).double()
    pred = torch.tensor([[2.0, 40.0, 12.0, 44.0]]).double().requires_grad_()
    loss = NWDLoss(scale=10.0, loss_weight=2.0)(pred, target)
    # Centers (7, 42) and (23, 24), sides 10 x 4 and 6 x 8.
    distance = (16**2 + 18**2 + (4**2 + 4**2) / 4) ** 0.5
    assert loss.item() == pytest.approx(2 * (1 - torch.tensor(-distance / 10).exp().item()), 1e-6)
    (slope,) = torch.autograd.grad(loss, pred)
    assert torch.autograd.gradcheck(NWDLoss(), (pred, target))
    assert NWDLoss(10.0, 2.0)(pred - slope, target) < loss
    assert BoxIoULoss("iou")(pred, target) == 1


def test_equal_boxes_no_boxes_weights_and_half_precision():
    loss, boxes = NWDLoss(), torch.tensor([[0.0, 0, 4, 4], [9.0, 9, 9, 9], [5.0, 5, 1, 1]])
    pred = boxes.clone().requires_grad_()
    same = loss(pred, boxes)
    same.backward()
    assert same == 0 and not pred.grad.any()
    assert loss(boxes[:0], boxes[:0]) == 0
    weight = torch.tensor([1.0, 0.0, 0.0])
    apart = loss(boxes + 5, boxes, weight, avg_factor=1)
    assert apart == loss(boxes[:1] + 5, boxes[:1], weight[:1, None].expand(-1, 4))
    assert loss(boxes.half() + 5, boxes.half()).dtype == torch.float32


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf")])
def test_scale_must_be_above_zero(scale):
    with pytest.raises(ValueError, match="scale must be above 0 pixels"):
        NWDLoss(scale)
