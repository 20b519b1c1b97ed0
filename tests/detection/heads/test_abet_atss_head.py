"""ATSS with a temperature: its definition, and the boxes and fields of its detections."""

import math

import pytest
import torch
from helpers.head_cases import (
    ANCHORS,
    CLASSES,
    SIZE,
    TEST,
    batch,
    dense_head,
    features,
    total,
)
from mmdet.models.dense_heads import ATSSHead as MMDetATSSHead
from mmengine.config import ConfigDict

from negvision.detection.heads import ATSSHead

METAS = [{"img_shape": SIZE, "scale_factor": (2.0, 2.0)}]


def head(std=None, **options):
    loss = {"type": "negvision.BoxIoULoss", "loss_weight": 2.0}
    test = ConfigDict(TEST)
    return dense_head("negvision.AbeTATSSHead", std, loss_bbox=loss, test_cfg=test, **options)


def tower(model, level):
    for layer in model.cls_convs:
        level = layer(level)
    return level


@pytest.mark.parametrize("training", [False, True])
def test_outputs_equal_the_definition_in_float64(training):
    model = head(std=0.4).double().train(training)
    levels = [level.double() for level in features(1)]
    cls_scores, bbox_preds, centernesses, temperatures = model(levels)
    # Location by location, over all levels at once.
    h = [tower(model, level).permute(0, 2, 3, 1) for level in levels]
    rows = torch.cat([level.reshape(-1, 8) for level in h])
    w = model.abet.classifier.weight
    cosine = rows @ w.T / ((rows.norm(dim=1, keepdim=True) + 1e-4) * (w.norm(dim=1) + 1e-4))
    norm = model.abet.temperature.norm
    value = rows @ model.abet.temperature.linear.weight.view(8)
    mean = value.mean() if training else norm.running_mean
    variance = value.var(unbiased=False) if training else norm.running_var
    normed = (value - mean) / (variance + norm.eps) ** 0.5
    temperature = torch.sigmoid(normed * norm.weight + norm.bias) + 1e-12
    z = cosine / temperature[:, None] + model.abet.bias
    got = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, CLASSES) for level in cls_scores])
    torch.testing.assert_close(got, z, rtol=1e-12, atol=1e-12)
    got = torch.cat([level.permute(0, 2, 3, 1).reshape(-1) for level in temperatures])
    torch.testing.assert_close(got, temperature, rtol=1e-12, atol=0)
    stock = MMDetATSSHead.forward(model, levels)
    for ours, theirs in zip((bbox_preds, centernesses), stock[1:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_focal_loss_starts_from_its_prior():
    model = head()
    model.init_weights()
    for level in model([torch.zeros(2, 8, 5, 7)] * 3)[0]:
        torch.testing.assert_close(level.sigmoid(), torch.full((2, CLASSES, 5, 7), 0.01))
    assert model.abet.bias.shape == ()


def test_initialization_of_mmdet_does_not_change_abet():
    model = head(feat_channels=256, num_classes=200)
    model.init_weights()
    abet = model.abet
    assert abet.temperature.norm.weight.item() == 1 and abet.temperature.norm.bias.item() == 0
    assert abet.classifier.weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.03)
    assert abet.temperature.linear.weight.std().item() == pytest.approx(1 / 16 / 3**0.5, rel=0.2)
    assert abet.bias.item() == pytest.approx(-math.log(99))
    assert model.cls_convs[0].conv.weight.std().item() == pytest.approx(0.01, rel=0.05)


def test_losses_equal_atss_on_the_same_logits():
    model = head()
    gts, metas = batch(0)
    outputs = model(features(1))
    got = total(model.loss_by_feat(*outputs, gts, metas))
    want = total(ATSSHead.loss_by_feat(model, *outputs[:3], gts, metas))
    assert got.keys() == want.keys()
    for name in want:
        assert torch.equal(got[name], want[name])
    sum(got.values()).backward()
    assert model.abet.temperature.linear.weight.grad.abs().sum() > 0
    assert model.abet.bias.grad.abs() > 0


def test_boxes_equal_mmdet_with_the_fields_of_their_location():
    model = head(std=0.4).eval()
    with torch.no_grad():
        outputs = model(features(2, 1))
        (found,) = model.predict_by_feat(*outputs, batch_img_metas=METAS, rescale=True)
        # mmdet's predictions depend on its anchors and classes alone.
        (want,) = dense_head("mmdet.ATSSHead").predict_by_feat(
            *outputs[:3], batch_img_metas=METAS, cfg=ConfigDict(TEST), rescale=True
        )
    assert len(want) == 50
    for name in ("bboxes", "scores", "labels"):
        assert torch.equal(found[name], want[name]), name
    # Every location's box, score and logits.
    boxes, z, t, confidence = (
        torch.cat(parts) for parts in zip(*locations(model, outputs), strict=True)
    )
    for row in range(50):
        label = found.labels[row]
        same = (boxes == found.bboxes[row]).all(1) & (confidence[:, label] == found.scores[row])
        (source,) = same.nonzero()[:, 0].tolist()
        assert torch.equal(found.logits[row], z[source])
        assert found.temperature[row] == t[source]
    torch.testing.assert_close(found.ood_score, -found.logits.logsumexp(1))
    assert found.ood_score_name == "abet"


def locations(model, outputs):
    sizes = [tuple(level.shape[-2:]) for level in outputs[0]]
    priors = model.prior_generator.grid_priors(sizes, device="cpu")
    for prior, z, delta, centerness, t in zip(priors, *outputs, strict=True):
        z, delta, centerness, t = (
            part[0].permute(1, 2, 0).reshape(-1, part.shape[1])
            for part in (z, delta, centerness, t)
        )
        boxes = model.bbox_coder.decode(prior, delta, max_shape=SIZE) * 0.5
        yield boxes, z, t[:, 0], z.sigmoid() * centerness.sigmoid()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_are_finite_under_autocast(dtype):
    model = head(std=0.4).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        model.abet.temperature.norm.bias.fill_(-100.0)  # the lowest possible T
        outputs = model(features(2, 1))
        (found,) = model.predict_by_feat(*outputs, batch_img_metas=METAS)
    assert outputs[0][0].dtype == torch.float32 and outputs[3][0].max() < 1e-11
    assert len(found) > 0 and found.ood_score.isfinite().all()


def test_no_boxes():
    model = head().eval()
    model.ood_threshold = 0.0
    config = ConfigDict({**TEST, "score_thr": 1.0})
    (found,) = model.predict_by_feat(*model(features(2, 1)), batch_img_metas=METAS, cfg=config)
    assert found.bboxes.shape == (0, 4) and found.logits.shape == (0, CLASSES)
    assert found.temperature.shape == found.ood_score.shape == found.is_ood.shape == (0,)


def test_more_than_one_anchor_is_an_error():
    with pytest.raises(ValueError, match="has 3 anchors per location"):
        head(anchor_generator={**ANCHORS, "ratios": [0.5, 1.0, 2.0]})


def test_a_softmax_is_an_error():
    with pytest.raises(ValueError, match="use_sigmoid is False"):
        head(loss_cls={"type": "CrossEntropyLoss", "use_sigmoid": False})
