"""AbeT on RoIs: its formulas, its integration into mmdet, and its initialization."""

import math

import pytest
import torch
from helpers.two_stage_cases import (
    CLASSES,
    batch,
    box_head,
    detector,
    features,
    losses_of,
    predict,
    rois,
)
from torch.nn import functional as F

ABET = "negvision.AbeTBBoxHead"


def feature_of(head, x):
    x = x.flatten(1)
    for layer in head.shared_fcs:
        x = F.relu(layer(x))
    return x


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("score", ["abet", "energy", "msp"])
def test_output_and_score_equal_the_formulas_in_float64(training, score):
    torch.manual_seed(0)
    head = box_head(ABET, score=score).double().train(training)
    with torch.no_grad():
        head.fc_cls.temperature.norm.bias.fill_(-1.0)
        head.fc_cls.temperature.norm.running_mean.fill_(0.3)
    x = features(20).double()
    output, deltas = head(x)
    h = feature_of(head, x)
    w = head.fc_cls.classifier.weight
    cosine = h @ w.T / ((h.norm(dim=1, keepdim=True) + 1e-4) * (w.norm(dim=1) + 1e-4))
    linear, norm = head.fc_cls.temperature.linear, head.fc_cls.temperature.norm
    value = h @ linear.weight[0] + linear.bias
    mean = value.mean() if training else 0.3
    variance = value.var(unbiased=False) if training else 1.0
    temperature = torch.sigmoid((value - mean) / (variance + norm.eps) ** 0.5 - 1) + 1e-12
    torch.testing.assert_close(output[:, -1], temperature, rtol=1e-12, atol=0)
    logits = cosine / temperature[:, None]
    torch.testing.assert_close(output[:, :-1], logits, rtol=1e-12, atol=1e-12)
    assert torch.equal(output[:, :-1].argmax(1), cosine.argmax(1))

    found = predict(head, rois(20).double(), output.detach(), deltas.detach())
    rows = [int((output[:, :-1] == z).all(1).nonzero()) for z in found.logits]
    assert len(set(rows)) > 5
    assert torch.equal(found.temperature, output[rows, -1])
    z = logits[rows, :CLASSES]
    expected = {
        "abet": -z.exp().sum(1).log(),
        "energy": -temperature[rows] * z.exp().sum(1).log(),
        "msp": -z.softmax(1).amax(1),
    }[score]
    torch.testing.assert_close(found.ood_score, expected.detach(), rtol=1e-12, atol=1e-12)


def test_loss_is_plain_cross_entropy_of_the_logits():
    torch.manual_seed(0)
    head = box_head(ABET, loss_cls={"type": "CrossEntropyLoss", "loss_weight": 2.0})
    output, deltas = head(features(12))
    labels = torch.arange(12) % (CLASSES + 1)
    weights = (torch.arange(12) > 2).float()
    losses = head.loss(
        output, deltas, rois(12), labels, weights, torch.zeros(12, 4), torch.zeros(12, 4)
    )
    want = F.cross_entropy(output[3:, :-1], labels[3:]) * 2
    torch.testing.assert_close(losses["loss_cls"], want)
    correct = (output[:, :-1].argmax(1) == labels).float().mean() * 100
    torch.testing.assert_close(losses["acc"], correct.view(1))
    losses["loss_cls"].backward()
    # T is trained only through the logits.
    assert head.fc_cls.temperature.linear.weight.grad.abs().sum() > 0
    activation = head.loss_cls.get_activation(output)
    torch.testing.assert_close(activation, output[:, :-1].softmax(1))


@pytest.mark.parametrize(
    "init_cfg", [None, {"type": "Normal", "std": 0.01, "override": {"name": "fc_cls"}}]
)
def test_initialization_of_mmdet_does_not_change_abet(init_cfg):
    torch.manual_seed(0)
    head = box_head(ABET, fc_out_channels=256, num_classes=80, init_cfg=init_cfg)
    head.init_weights()
    abet = head.fc_cls
    assert abet.temperature.norm.weight.item() == 1
    assert abet.temperature.norm.bias.item() == pytest.approx(math.log(0.05 / 0.95))
    assert abet.classifier.weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.03)
    assert abet.temperature.linear.weight.std().item() == pytest.approx(1 / 16 / 3**0.5, rel=0.2)
    if init_cfg is None:
        assert head.fc_reg.weight.std().item() == pytest.approx(0.001, rel=0.05)
    # So temperatures are spread rather than stuck at one value.
    assert head(features(64))[0][:, -1].logit().std() > 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_are_finite_under_autocast(dtype):
    torch.manual_seed(0)
    head = box_head(ABET).eval()
    with torch.no_grad():
        # The lowest possible T.
        head.fc_cls.temperature.norm.bias.fill_(-100.0)
    with torch.autocast("cpu", dtype=dtype):
        output, deltas = head(features(20))
        found = predict(head, rois(20), output.detach(), deltas.detach())
    assert output.dtype == torch.float32 and found.temperature.max() < 1e-11
    assert len(found) > 5 and found.ood_score.dtype == torch.float32
    for name in ("ood_score", "logits", "scores", "bboxes"):
        assert found[name].isfinite().all(), name


@pytest.mark.parametrize("kind", ["FasterRCNN", "CascadeRCNN", "MaskRCNN"])
@pytest.mark.parametrize("agnostic", [False, True])
def test_detectors_train_and_predict(kind, agnostic):
    torch.manual_seed(0)
    model = detector({"type": ABET, "reg_class_agnostic": agnostic}, kind)
    data = batch(model, True, masks=kind == "MaskRCNN")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.train()
    losses = losses_of(model, data)
    stages = ["s0.", "s1.", "s2."] if kind == "CascadeRCNN" else [""]
    assert {f"{stage}loss_cls" for stage in stages} <= losses.keys()
    total = sum(losses.values())
    total.backward()
    optimizer.step()
    heads = model.roi_head.bbox_head if kind == "CascadeRCNN" else [model.roi_head.bbox_head]
    for head in heads:
        assert head.fc_cls.temperature.linear.weight.grad.abs().sum() > 0
        assert head.fc_cls.temperature.norm.num_batches_tracked == 1
    model.eval()
    with torch.no_grad():
        for sample in model(**batch(model, False), mode="predict"):
            found = sample.pred_instances
            assert len(found) > 0 and found.logits.shape == (len(found), CLASSES + 1)
            want = -found.logits[:, :CLASSES].logsumexp(1)
            torch.testing.assert_close(found.ood_score, want)
            assert ((found.temperature > 0) & (found.temperature <= 1)).all()
            assert found.ood_score_name == "abet"
            assert ("masks" in found) == (kind == "MaskRCNN")


def test_a_cascade_scores_the_mean_of_its_stages(monkeypatch):
    torch.manual_seed(0)
    model = detector({"type": ABET, "reg_class_agnostic": True}, "CascadeRCNN").eval()
    outputs = []
    for head in model.roi_head.bbox_head:
        head.register_forward_hook(lambda module, args, output: outputs.append(output[0]))
    with torch.no_grad():
        (sample,) = model(**batch(model, False, objects=(2,)), mode="predict")
    found = sample.pred_instances
    mean = sum(outputs) / 3
    assert len(outputs) == 3 and not torch.equal(outputs[0], outputs[1])
    for logits, temperature in zip(found.logits, found.temperature, strict=True):
        (row,) = (mean[:, :-1] == logits).all(1).nonzero()[0]
        assert mean[row, -1] == temperature
    # Refined by the class of each stage's softmax, not by the column of temperatures.
    assert found.labels.max() < CLASSES


@pytest.mark.parametrize("count", [0, 1])
def test_no_roi_and_one_roi_train(count):
    torch.manual_seed(0)
    head = box_head(ABET).train()
    output, deltas = head(features(count))
    assert output.shape == (count, CLASSES + 2) and output.isfinite().all()
    labels = torch.zeros(count, dtype=torch.long)
    losses = head.loss(
        output,
        deltas,
        rois(count),
        labels,
        torch.ones(count),
        torch.zeros(count, 4),
        torch.ones(count, 4),
    )
    sum(value for name, value in losses.items() if "loss" in name).backward()
    for parameter in head.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


def test_no_proposals(monkeypatch):
    model = detector({"type": ABET}).eval()
    model.test_cfg.rpn.min_bbox_size = 10_000
    model.rpn_head.test_cfg.min_bbox_size = 10_000
    with torch.no_grad():
        samples = model(**batch(model, False), mode="predict")
    assert [len(sample.pred_instances) for sample in samples] == [0, 0]


@pytest.mark.parametrize("shaping", [None, {"type": "dice"}, {"type": "react"}, {"type": "ash"}])
def test_checkpoints_restore_the_scores(tmp_path, shaping):
    head = {"type": ABET, "shaping": shaping}
    torch.manual_seed(0)
    model = detector(head).train()
    data = batch(model, True)
    losses_of(model, data)  # updates the statistics of T
    if shaping and shaping["type"] != "ash":
        model.roi_head.bbox_head.fc_cls.shaping.fitted.fill_(True)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    torch.manual_seed(1)
    other = detector(head).eval()
    other.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True))
    model.eval()
    inputs = batch(model, False)
    with torch.no_grad():
        a, b = (m(**inputs, mode="predict")[0].pred_instances for m in (model, other))
    assert len(a) > 0
    for name in ("bboxes", "logits", "temperature", "ood_score"):
        assert torch.equal(a[name], b[name]), name
