"""Both classifiers: loss, predictions and scores against the formulas in float64."""

import math

import pytest
import torch
from oracles.ood_scores import score_of
from torch import nn

from negvision.classification.classifier import AbeTClassifier, OODClassifier
from negvision.classification.structures import ImageDataSample
from negvision.errors import DatasetError
from negvision.ood import SCORE_NAMES, OODThreshold
from negvision.ood.threshold import set_threshold

BACKBONE = {"type": "negvision.ResNetCIFAR", "depth": 20, "widths": [4, 6, 8]}
KINDS = {"abet": AbeTClassifier, "plain": OODClassifier}


def build(kind, seed=0, **options):
    torch.manual_seed(seed)
    return KINDS[kind](**{"backbone": BACKBONE, "num_classes": 5, "in_features": 8, **options})


def samples(*labels):
    return [ImageDataSample(label=torch.tensor(label)) for label in labels]


def images(count=6, side=12, seed=1):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def written_out(model, inputs):
    """Logits and temperatures by the formulas in float64, without the heads' code."""
    feature = model.backbone(inputs)[-1].detach().double().mean((2, 3))
    weights = {key: value.detach().double() for key, value in model.head.state_dict().items()}
    if isinstance(model, OODClassifier):
        return feature @ weights["weight"].T + weights["bias"], None
    rows = [
        [h @ w / ((h.norm() + 1e-4) * (w.norm() + 1e-4)) for w in weights["classifier.weight"]]
        for h in feature
    ]
    value = feature @ weights["temperature.linear.weight"][0] + weights["temperature.linear.bias"]
    mean, var = weights["temperature.norm.running_mean"], weights["temperature.norm.running_var"]
    if model.training:
        mean, var = value.mean(), value.var(unbiased=False)
    value = (value - mean) / (var + 1e-5).sqrt() * weights["temperature.norm.weight"]
    value = value + weights["temperature.norm.bias"]
    temperature = 1 / (1 + (-value).exp()) + 1e-12
    return torch.tensor(rows, dtype=torch.float64) / temperature[:, None], temperature


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_loss_is_cross_entropy(kind, training):
    model, inputs = build(kind).train(training), images()
    labels = [0, 4, 2, 2, 1, 3]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    losses = model(inputs, samples(*labels), mode="loss")
    model.load_state_dict(state)
    logits, _ = written_out(model, inputs)
    rows = [
        math.log(sum(math.exp(value) for value in row)) - row[label]
        for row, label in zip(logits.tolist(), labels, strict=True)
    ]
    assert losses["loss"].item() == pytest.approx(sum(rows) / 6, rel=1e-5)
    right = sum(int(row.argmax()) == label for row, label in zip(logits, labels, strict=True))
    assert losses["accuracy"].item() == pytest.approx(100 * right / 6)
    assert set(losses) == {"loss", "accuracy"} and losses["loss"].dtype == torch.float32
    total, logged = model.parse_losses(losses)
    assert total.item() == losses["loss"].item() and "accuracy" in logged


@pytest.mark.parametrize("score", SCORE_NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_predictions_follow_the_formulas(kind, score):
    model, inputs = build(kind, score=score).eval(), images(3)
    given = samples(0, -1, 4)
    with torch.no_grad():
        found = model(inputs, given, mode="predict")
    logits, temperature = written_out(model, inputs)
    assert [id(sample) for sample in found] == [id(sample) for sample in given]
    for row, sample in enumerate(found):
        assert sample.label.item() == (0, -1, 4)[row]
        torch.testing.assert_close(sample.logits, logits[row].float())
        probabilities = logits[row].softmax(0)
        assert sample.pred_label.item() == probabilities.argmax()
        assert sample.pred_label.dtype == torch.int64 and sample.pred_label.dim() == 0
        assert sample.pred_score.item() == pytest.approx(probabilities.max().item(), rel=1e-5)
        t = 1.0 if temperature is None else temperature[row].item()
        expected = score_of(score, logits[row].tolist(), t)
        assert sample.ood_score.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert sample.ood_score.dtype == torch.float32
        assert sample.metainfo["ood_score_name"] == score
        assert ("temperature" in sample) == (kind == "abet")
        if kind == "abet":
            assert sample.temperature.item() == pytest.approx(t, rel=1e-5)
        assert "pred_is_ood" not in sample
        assert all(value.device.type == "cpu" for value in sample.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_stays_finite_and_in_float32(kind, dtype):
    model = build(kind)
    with torch.autocast("cpu", dtype):
        losses = model(images(), samples(0, 1, 2, 3, 4, 0), mode="loss")
    assert losses["loss"].dtype == torch.float32 and losses["loss"].isfinite()
    losses["loss"].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    if kind == "abet":
        # A temperature of 1e-12: logits up to 1e12 exceed float16 by far.
        model.head.temperature.norm.bias.data.fill_(-1e4)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        for sample in model(images(), samples(*[0] * 6), mode="predict"):
            for name in ("logits", "pred_score", "ood_score"):
                assert sample.get(name).dtype == torch.float32
                assert sample.get(name).isfinite().all(), name
            if kind == "abet":
                assert sample.temperature.item() == pytest.approx(1e-12)
                assert sample.ood_score.abs() > 1e6


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_is_marked_with_a_threshold(kind):
    model = build(kind).eval()
    scores = [s.ood_score.item() for s in model(images(), samples(*[0] * 6), mode="predict")]
    ordered = sorted(scores)
    assert set_threshold(model, OODThreshold(ordered[3], model.score, 0.5, 6)) == 1
    found = model(images(), samples(*[0] * 6), mode="predict")
    # A score equal to the threshold is known.
    assert [bool(s.pred_is_ood) for s in found] == [score > ordered[3] for score in scores]
    assert sum(bool(s.pred_is_ood) for s in found) == 2
    assert found[0].pred_is_ood.dtype == torch.bool


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("labels", "count", "shown"), [([0, -1, 5], 2, "-1, 5"), ([9, 9, 9], 3, 9)]
)
def test_labels_outside_the_classes(kind, labels, count, shown):
    message = (
        rf"{count} of 3 images of a training batch have a label outside the 5 classes \(0 to 4\): "
        rf"\[{shown}\]\. num_classes of the model must match the data"
    )
    with pytest.raises(DatasetError, match=message):
        build(kind)(images(3), samples(*labels), mode="loss")


class Flat(nn.Module):
    """A backbone that returns a vector."""

    def forward(self, x):
        return x.mean((2, 3)).repeat(1, 2)


class Levels(nn.Module):
    """A backbone that returns a list of levels."""

    def forward(self, x):
        return [x, torch.cat([x, x], 1)[..., ::2, ::2]]


@pytest.mark.parametrize("kind", KINDS)
def test_backbones_with_a_vector_or_several_levels(kind):
    x = images(2, side=8)
    options = {"in_features": 6, "num_classes": 3}
    flat = build(kind, backbone={"type": Flat}, **options).eval()
    assert flat(x).logits.shape == (2, 3)
    levels = build(kind, backbone={"type": Levels}, **options).eval()
    torch.testing.assert_close(levels(x).logits, flat(x[..., ::2, ::2]).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_one_image_and_no_image(kind):
    model = build(kind)
    one = model(images(1), samples(2), mode="loss")["loss"]
    assert one.isfinite()
    one.backward()
    model.eval()
    assert model(images(0), [], mode="predict") == []


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_restores_the_outputs(kind, tmp_path):
    first, second = build(kind), build(kind, seed=1)
    for _ in range(2):
        first(images(), samples(*[0] * 6), mode="loss")  # moves the running statistics
    torch.save(first.state_dict(), tmp_path / "weights.pth")
    assert not torch.equal(first.eval()(images()).logits, second.eval()(images()).logits)
    second.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
    assert torch.equal(first(images()).logits, second(images()).logits)


@pytest.mark.parametrize("logits", ["cosine", "inner"])
def test_init_weights_keeps_the_heads(logits):
    model = build("abet", num_classes=200, logits=logits)
    model.init_weights()
    norm, weight = model.head.temperature.norm, model.head.classifier.weight
    assert norm.weight.item() == 1 and norm.bias.item() == 0
    # Kaiming's standard deviation by fan-in with the gain of ReLU.
    assert weight.std().item() == pytest.approx((2 / 8) ** 0.5, rel=0.1)
    assert model.head.temperature.linear.weight.abs().max() > 0.02
    # Temperatures of a batch differ at initialization.
    assert model(images()).temperature.std() > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_normalized_by_imagenet_by_default(kind):
    model = build(kind)
    picture = torch.zeros(3, 4, 4, dtype=torch.uint8)
    picture[0] = 255  # blue comes first
    data = model.data_preprocessor({"inputs": [picture], "data_samples": samples(0)})
    expected = [(0 - 123.675) / 58.395, (0 - 116.28) / 57.12, (255 - 103.53) / 57.375]
    assert data["inputs"][0, :, 0, 0].tolist() == pytest.approx(expected)
    own = build(kind, data_preprocessor={"type": "BaseDataPreprocessor"})
    assert type(own.data_preprocessor).__name__ == "BaseDataPreprocessor"
