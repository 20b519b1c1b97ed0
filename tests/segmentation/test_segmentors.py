"""Segmentors with an OOD map: mmseg's heads train, predict, and score by the formulas."""

import copy

import pytest
import torch
from mmengine.config import ConfigDict
from torch.nn import functional as F

from negvision.errors import ConfigError
from negvision.ood import SCORE_NAMES, OODThreshold, ood_score, set_threshold
from negvision.segmentation.segmentors import AbeTConvSeg

HEADS = ("fcn", "psp", "deeplab", "uper")


def predict(model, batch):
    model.eval()
    data = model.data_preprocessor(copy.deepcopy(batch), False)
    with torch.no_grad():
        return model(**data, mode="predict")


def logits_of(model, batch):
    """Logits and T of the network itself, at the size of its features."""
    model.eval()
    data = model.data_preprocessor(copy.deepcopy(batch), False)
    features = {}
    handle = model.decode_head.conv_seg.register_forward_pre_hook(
        lambda module, args: features.update(h=args[0])
    )
    with torch.no_grad():
        model(**data, mode="predict")
    handle.remove()
    conv_seg = model.decode_head.conv_seg
    h, weight = features["h"].double(), conv_seg.classifier.weight.double()
    norms = (h.norm(dim=1, keepdim=True) + 1e-4) * (weight.norm(dim=1) + 1e-4)[None, :, None, None]
    cosines = torch.einsum("kd,ndhw->nkhw", weight, h) / norms
    norm, linear = conv_seg.temperature.norm, conv_seg.temperature.linear.weight.double()
    value = torch.einsum("d,ndhw->nhw", linear[0, :, 0, 0], h)
    value = (value - norm.running_mean) / (norm.running_var.double() + norm.eps).sqrt()
    temperature = torch.sigmoid(value * norm.weight + norm.bias) + 1e-12
    return cosines / temperature[:, None], temperature


@pytest.mark.parametrize("head", HEADS)
def test_head_trains_a_step_and_predicts(build, batch, head):
    model = build(head)
    assert isinstance(model.decode_head.conv_seg, AbeTConvSeg)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    losses = []
    for _ in range(4):
        total, parts = model.parse_losses(model(**data, mode="loss"))
        assert "decode.loss_ce" in parts
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < losses[0]
    linear = model.decode_head.conv_seg.temperature.linear.weight
    assert linear.grad.abs().sum() > 0
    for sample in predict(model, batch):
        # At the size of the original image, not that of the input.
        assert sample.seg_logits.data.shape == (4, 60, 80)
        assert sample.ood_map.data.shape == sample.temperature.data.shape == (1, 60, 80)
        assert sample.ood_map.data.dtype == sample.temperature.data.dtype == torch.float32
        assert sample.ood_map.score == "abet" and "ood_mask" not in sample
        assert sample.temperature.data.min() > 0 and sample.temperature.data.max() <= 1
        logits, labels = sample.seg_logits.data, sample.pred_sem_seg.data
        assert torch.equal(labels, logits.argmax(0, keepdim=True))


@pytest.mark.parametrize("align_corners", [False, True])
def test_score_equals_the_formula_on_upsampled_logits(build, batch, align_corners):
    model = build("deeplab", {"align_corners": align_corners})
    batch["inputs"] = [image.float() for image in batch["inputs"]]
    model(**model.data_preprocessor(copy.deepcopy(batch), True), mode="loss")
    logits, temperature = logits_of(model, batch)

    def enlarged(values):
        options = {"mode": "bilinear", "align_corners": align_corners}
        return F.interpolate(F.interpolate(values, (48, 64), **options), (60, 80), **options)

    logits, temperature = enlarged(logits), enlarged(temperature[:, None])[:, 0]
    for name in SCORE_NAMES:
        model.score = name
        for index, sample in enumerate(predict(model, batch)):
            expected = ood_score(name, logits[index], temperature[index], dim=0)
            torch.testing.assert_close(
                sample.ood_map.data[0].double(), expected, rtol=2e-5, atol=2e-5
            )
            torch.testing.assert_close(
                sample.temperature.data[0].double(), temperature[index], rtol=1e-5, atol=1e-6
            )
            # By hand, for the one that the method is named after.
            if name == "abet":
                torch.testing.assert_close(expected, -logits[index].exp().sum(0).log())


def test_loss_is_plain_cross_entropy_of_g_over_t(build, batch):
    model = build("fcn", {"dropout_ratio": 0.0}).eval()
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    logits, _ = logits_of(model, batch)
    logits = F.interpolate(logits, (48, 64), mode="bilinear", align_corners=False)
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data["data_samples"]])
    expected = F.cross_entropy(logits, labels, ignore_index=255)
    # In evaluation too, where predictions carry T as one more channel.
    loss = model(**data, mode="loss")["decode.loss_ce"]
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)


def test_windows_average_logits_and_temperature_alike(build, batch):
    model = build("fcn")
    model.test_cfg = ConfigDict(mode="slide", crop_size=(48, 48), stride=(16, 16))
    for sample in batch["data_samples"]:
        sample.set_metainfo({"ori_shape": (48, 64)})
    samples = predict(model, batch)
    data = model.data_preprocessor(copy.deepcopy(batch), False)
    total, times = torch.zeros(2, 5, 48, 64), torch.zeros(1, 1, 48, 64)
    with torch.no_grad(), model.decode_head.conv_seg.temperature_appended():
        for left in (0, 16):
            part = model.decode_head(model.extract_feat(data["inputs"][..., left : left + 48]))
            total[..., left : left + 48] += F.interpolate(part, (48, 48), mode="bilinear")
            times[..., left : left + 48] += 1
    mean = total / times
    for index, sample in enumerate(samples):
        torch.testing.assert_close(sample.seg_logits.data, mean[index, :4])
        torch.testing.assert_close(sample.temperature.data[0], mean[index, 4])
        expected = ood_score("abet", mean[index, :4], dim=0)
        torch.testing.assert_close(sample.ood_map.data[0], expected)


@pytest.mark.parametrize("direction", ["horizontal", "vertical"])
def test_flips_and_padding_are_undone(build, batch, direction):
    model = build("fcn")
    plain = predict(model, batch)
    dims = (-1,) if direction == "horizontal" else (-2,)
    flipped = copy.deepcopy(batch)
    # The network sees the same picture; what is undone is only what the meta information says.
    for sample in flipped["data_samples"]:
        sample.set_metainfo({"flip": True, "flip_direction": direction})
    for one, other in zip(plain, predict(model, flipped), strict=True):
        for field in ("ood_map", "temperature", "seg_logits"):
            torch.testing.assert_close(one.get(field).data.flip(dims), other.get(field).data)
    model.data_preprocessor.test_cfg = {"size_divisor": 32}
    for sample in batch["data_samples"]:
        sample.set_metainfo({"ori_shape": (48, 64)})
    for sample in predict(model, batch):
        assert sample.img_padding_size == (0, 0, 0, 16)
        assert sample.ood_map.data.shape == sample.temperature.data.shape == (1, 48, 64)
        expected = ood_score("abet", sample.seg_logits.data, dim=0)
        torch.testing.assert_close(sample.ood_map.data[0], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["AbeT", "OOD"])
def test_scores_are_finite_under_autocast(build, batch, kind, dtype):
    model = build("fcn", type=f"negvision.{kind}EncoderDecoder")
    with torch.autocast("cpu", dtype):
        losses = model(**model.data_preprocessor(copy.deepcopy(batch), True), mode="loss")
        samples = predict(model, batch)
    assert losses["decode.loss_ce"].isfinite()
    for sample in samples:
        for field in ("ood_map", "temperature")[: 1 + (kind == "AbeT")]:
            assert sample.get(field).data.dtype == torch.float32
            assert sample.get(field).data.isfinite().all()


def test_initial_weights(build):
    conv_seg = build("fcn").decode_head.conv_seg
    assert torch.equal(conv_seg.temperature.norm.weight, torch.ones(1))
    # Kaiming's for 16 inputs; mmseg's own is 0.01.
    assert conv_seg.classifier.weight.std().item() == pytest.approx((2 / 16) ** 0.5, rel=0.3)


def test_state_dict_keys(build):
    abet = build("fcn").state_dict()
    plain = build("fcn", type="EncoderDecoder").state_dict()
    conv_seg = "decode_head.conv_seg."
    own = {key.removeprefix(conv_seg): tuple(v.shape) for key, v in abet.items() if conv_seg in key}
    assert own == {
        "classifier.weight": (4, 16),
        "temperature.linear.weight": (1, 16, 1, 1),
        "temperature.norm.weight": (1,),
        "temperature.norm.bias": (1,),
        "temperature.norm.running_mean": (1,),
        "temperature.norm.running_var": (1,),
        "temperature.norm.num_batches_tracked": (),
    }
    rest = {key for key in abet if conv_seg not in key}
    assert rest == {key for key in plain if conv_seg not in key}


def test_threshold_gives_a_mask(build, batch):
    model = build("fcn")
    values = torch.cat([sample.ood_map.data.flatten() for sample in predict(model, batch)])
    threshold = OODThreshold(float(values.median()), "abet", 0.95, len(values))
    assert set_threshold(model, threshold) == 1
    for sample in predict(model, batch):
        assert sample.ood_mask.data.dtype == torch.bool
        assert torch.equal(sample.ood_mask.data, sample.ood_map.data > threshold.value)
        assert 0 < sample.ood_mask.data.float().mean() < 1


def test_auxiliary_heads_stay_plain(build, batch):
    auxiliary = {
        "type": "FCNHead",
        "in_channels": 16,
        "in_index": 1,
        "channels": 8,
        "num_classes": 4,
        "norm_cfg": {"type": "BN"},
    }
    model = build("fcn", auxiliary_head=auxiliary)
    assert isinstance(model.auxiliary_head.conv_seg, torch.nn.Conv2d)
    losses = model(**model.data_preprocessor(copy.deepcopy(batch), True), mode="loss")
    assert {"decode.loss_ce", "aux.loss_ce"} <= set(losses)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_options": {"num_classes": 2, "out_channels": 1}}, "FCNHead has out_channels=1"),
        ({"decode_head": [{"type": "FCNHead"}, {"type": "OCRHead"}]}, "cascade of 2 heads"),
        (
            {
                "decode_head": {
                    "type": "SegmenterMaskTransformerHead",
                    "in_channels": 32,
                    "channels": 16,
                    "num_classes": 4,
                    "num_layers": 1,
                    "num_heads": 2,
                    "embed_dims": 16,
                }
            },
            r"SegmenterMaskTransformerHead does not end in a 1x1 convolution conv_seg \(found: "
            "none",
        ),
    ],
)
@pytest.mark.parametrize("type_", ["negvision.AbeTEncoderDecoder", "negvision.OODEncoderDecoder"])
def test_unsupported_heads(build, options, message, type_):
    with pytest.raises(ConfigError, match=message):
        build(type=type_, **options)
