"""ATSSHead against mmdet's: with the same weights, the same loss and gradients."""

import pytest
import torch
from helpers.head_cases import ASSIGNER, SIZE, TEST, batch, dense_head, features, total
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from negvision.ops import extension_info

BOX_LOSS = {"type": "negvision.BoxIoULoss", "loss_weight": 2.0}


def pair(theirs: dict | None = None, ours: dict | None = None):
    """mmdet's head and ours with the same weights."""
    stock = dense_head("mmdet.ATSSHead", 0.2, **(theirs or {}))
    own = dense_head("negvision.ATSSHead", **(ours or {}))
    own.load_state_dict(stock.state_dict())
    return stock, own


def loss_and_grads(model, gts, metas, ignored=None, seed=1):
    losses = total(model.loss_by_feat(*model(features(seed, len(gts))), gts, metas, ignored))
    grads = torch.autograd.grad(sum(losses.values()), list(model.parameters()), allow_unused=True)
    return losses, grads


def assert_same(stock, own, *args, **kwargs):
    want, want_grads = loss_and_grads(stock, *args, **kwargs)
    got, got_grads = loss_and_grads(own, *args, **kwargs)
    assert want.keys() == got.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=2e-5, atol=1e-6, msg=name)
    for g, w in zip(got_grads, want_grads, strict=True):
        torch.testing.assert_close(
            g if g is not None else torch.zeros(()),
            w if w is not None else torch.zeros(()),
            rtol=1e-3,
            atol=2e-6,
        )


@pytest.mark.parametrize("loss", ["GIoULoss", "negvision.BoxIoULoss"])
@pytest.mark.parametrize("seed", range(3))
def test_losses_and_gradients_equal_mmdet(seed, loss):
    stock, own = pair(
        {"train": {"assigner": {"type": "ATSSAssigner", "topk": 9}}},
        {"loss_bbox": {"type": loss, "loss_weight": 2.0}},
    )
    assert_same(stock, own, *batch(seed))


@pytest.mark.parametrize(
    ("options", "counts"),
    [({}, (0, 0)), ({"allowed_border": 0}, (4, 0, 9)), ({"pos_weight": 2.5}, (4, 0, 9))],
)
def test_empty_images_and_options(options, counts):
    stock, own = pair({"train": options}, {"train": options})
    assert_same(stock, own, *batch(4, counts))


@pytest.mark.parametrize("kind", ["ATSSHead", "ATSSRetinaHead", "ATSSFCOSHead", "AbeTATSSHead"])
def test_batch_without_boxes_trains(kind):
    model = dense_head(f"negvision.{kind}")
    gts, metas = batch(4, counts=(0, 0))
    losses = total(model.loss_by_feat(*model(features(5, 2)), gts, metas))
    sum(losses.values()).backward()
    assert losses.pop("loss_cls") > 0 and not any(losses.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_boxes_smaller_than_a_stride_are_learned_with_a_least_size():
    """Without one they have no positive, so only the classification loss is above 0."""
    for min_size, learned in ((0.0, False), (9.0, True)):
        assigner = {**ASSIGNER, "similarity": "nwd", "min_size": min_size}
        model = dense_head(
            "negvision.ATSSHead",
            train={"assigner": assigner},
            loss_bbox={"type": "negvision.NWDLoss"},
        )
        gts, metas = batch(4, counts=(1, 1))
        for gt in gts:
            gt.bboxes = torch.tensor([[19.0, 19.0, 22.0, 22.0]])  # centers lie at multiples of 8
        losses = total(model.loss_by_feat(*model(features(5, 2)), gts, metas))
        sum(losses.values()).backward()
        assert (losses["loss_bbox"] > 0) == (losses["loss_centerness"] > 0) == learned
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    with pytest.raises(ValueError, match="min_size of the assigner is above 0, but FCOS"):
        dense_head("negvision.ATSSFCOSHead", train={"assigner": assigner})


def test_padding_takes_no_part():
    stock, own = pair()
    gts, metas = batch(3, counts=(5, 5, 5))
    metas[0] = {"img_shape": (60, 60), "pad_shape": (64, 64)}
    metas[2] = {"img_shape": (90, 128), "pad_shape": (96, 128)}
    assert_same(stock, own, gts, metas)


def test_an_assigner_without_batches_is_called_for_each_image():
    stock, own = pair(ours={"train": {"assigner": {"type": "mmdet.ATSSAssigner", "topk": 9}}})
    gts, metas = batch(6)
    metas[2] = {"img_shape": (60, 60), "pad_shape": (64, 64)}
    assert_same(stock, own, gts, metas)


def test_max_iou_assigner_in_the_same_head():
    assigner = {
        "type": "negvision.MaxIoUAssigner",
        "pos_iou_thr": 0.5,
        "neg_iou_thr": 0.4,
        "min_pos_iou": 0,
        "ignore_iof_thr": -1,
        "center_in_box": True,
    }
    stock, own = pair({"train": {"assigner": assigner}}, {"train": {"assigner": assigner}})
    assert_same(stock, own, *batch(7))


def test_ignored_anchors_weigh_nothing():
    _, own = pair(ours={"train": {"assigner": {**ASSIGNER, "ignore_iof_thr": 0.5}}})
    gts, metas = batch(8, counts=(1,))
    everywhere = [InstanceData(bboxes=torch.tensor([[-1e3, -1e3, 1e3, 1e3]]))]
    losses, _ = loss_and_grads(own, gts, metas, everywhere)
    assert all(value == 0 for value in losses.values())
    nowhere = [InstanceData(bboxes=torch.zeros(0, 4))]
    losses, _ = loss_and_grads(own, gts, metas, nowhere)
    assert all(value > 0 for value in losses.values())


@pytest.mark.parametrize("value", [1e4, 1e30, float("inf"), float("nan")])
def test_predictions_of_negatives_do_not_affect_the_box_loss(value):
    _, own = pair(ours={"loss_bbox": BOX_LOSS})
    gts, metas = batch(9, counts=(2,))
    scores, deltas, centerness = own(features(1, 1))
    deltas = [level.detach().requires_grad_() for level in deltas]
    want = total(own.loss_by_feat(scores, deltas, centerness, gts, metas))["loss_bbox"]
    (grad, *_) = torch.autograd.grad(want, deltas, allow_unused=True)
    untouched = (grad == 0).all(1, keepdim=True).expand_as(grad)
    assert untouched.any() and not untouched.all()
    spoilt = [deltas[0].detach().masked_fill(untouched, value).requires_grad_(), *deltas[1:]]
    got = total(own.loss_by_feat(scores, spoilt, centerness, gts, metas))["loss_bbox"]
    torch.testing.assert_close(got, want)
    (got_grad,) = torch.autograd.grad(got, spoilt[0])
    torch.testing.assert_close(got_grad[~untouched], grad[~untouched])


def test_predictions_equal_mmdet():
    stock, own = pair()
    metas = [{"img_shape": SIZE, "scale_factor": (1.0, 1.0)}]
    with torch.no_grad():
        want, got = (
            model.predict_by_feat(
                *model(features(2, 1)), batch_img_metas=metas, cfg=ConfigDict(TEST)
            )[0]
            for model in (stock, own)
        )
    assert len(want) == 50
    assert torch.equal(want.bboxes, got.bboxes) and torch.equal(want.scores, got.scores)


def test_encoded_targets_are_an_error():
    with pytest.raises(ValueError, match="reg_decoded_bbox is False"):
        dense_head("negvision.ATSSHead", reg_decoded_bbox=False)


@pytest.mark.skipif(not extension_info()["loaded"], reason="the fallback reads no meta tensors")
def test_loss_reads_no_value_on_the_host():
    # Meta tensors have no values, so reading one raises.
    _, own = pair(ours={"loss_bbox": BOX_LOSS})
    gts, metas = batch(10)
    metas[0] = {"img_shape": (60, 60), "pad_shape": (64, 64)}
    gts = [gt.to("meta") for gt in gts]
    outputs = own.to("meta")([level.to("meta") for level in features(1)])
    losses = total(own.loss_by_feat(*outputs, gts, metas))
    assert all(value.is_meta and value.shape == () for value in losses.values())
    stock = dense_head("mmdet.ATSSHead").to("meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        stock.loss_by_feat(*outputs, gts, metas)


@pytest.mark.gpu
@pytest.mark.parametrize("pos_weight", [-1, 2.0])
def test_loss_does_not_wait_for_the_device(pos_weight):
    _, own = pair(ours={"loss_bbox": BOX_LOSS, "train": {"pos_weight": pos_weight}})
    own = own.cuda()
    gts, metas = batch(10)
    metas[0] = {"img_shape": (60, 60), "pad_shape": (64, 64)}
    gts = [gt.to("cuda") for gt in gts]
    outputs = own([level.cuda() for level in features(1)])
    own.loss_by_feat(*outputs, gts, metas)  # compiles and allocates
    torch.cuda.set_sync_debug_mode("error")
    try:
        own.loss_by_feat(*outputs, gts, metas)
    finally:
        torch.cuda.set_sync_debug_mode("default")
