"""Backbones: shapes, parameter counts, names, and recomputed activations."""

import copy
from functools import partial

import pytest
import torch

from negvision.face.backbones import FaceEmbeddingNeck, IResNet, MobileFaceNet

SLIM = (4, 8, 12, 16)


@pytest.mark.parametrize(("depth", "published"), [(50, 43.59), (100, 65.15)])
def test_published_parameter_counts(depth, published):
    with torch.device("meta"):
        modules = IResNet(depth), FaceEmbeddingNeck(512)
    total = sum(p.numel() for module in modules for p in module.parameters())
    assert total // 10**4 / 100 == published  # in millions, truncated


@pytest.mark.parametrize("size", [112, 64, 48, 40, 17, 1])
@pytest.mark.parametrize("backbone", [IResNet(18, widths=SLIM), MobileFaceNet(widen_factor=0.25)])
def test_side_is_a_sixteenth_rounded_up(backbone, size):
    side = -(-size // 16)
    found = backbone.eval()(torch.zeros(2, 3, size, size)).shape
    assert found == (2, backbone.out_channels, side, side)


@pytest.mark.parametrize(
    "build", [partial(IResNet, 18, widths=SLIM), partial(MobileFaceNet, 3, 0.25)]
)
def test_frozen_stages_have_no_gradients_and_keep_their_statistics(build):
    def trained(backbone):
        backbone.train()(torch.randn(4, 3, 32, 32)).sum().backward()
        return {name for name, value in backbone.named_parameters() if value.grad is not None}

    everything, kept = trained(build()), None
    for frozen in range(build().stages):
        backbone = build(frozen_stages=frozen)
        before = copy.deepcopy(backbone.state_dict())
        moved = trained(backbone)
        assert moved < everything if kept is None else moved < kept
        kept = moved
        changed = {n for n, v in backbone.state_dict().items() if not torch.equal(v, before[n])}
        parts = {name.rpartition(".")[0] for name in changed}
        assert parts and parts <= {name.rpartition(".")[0] for name in moved}
    whole = build(frozen_stages=frozen + 1).train()
    assert not any(value.requires_grad for value in whole.parameters())
    before = copy.deepcopy(whole.state_dict())
    whole(torch.randn(4, 3, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())
    with pytest.raises(ValueError, match="frozen_stages is 9; it must be from -1 to"):
        build(frozen_stages=9)


def test_a_million_parameters_as_in_the_paper():
    modules = MobileFaceNet(), FaceEmbeddingNeck(512, 7, 128, kind="gdc")
    total = sum(p.numel() for module in modules for p in module.parameters())
    assert 0.99e6 < total < 1.01e6


def test_sides_of_the_stages_are_those_of_the_table():
    backbone, sides = MobileFaceNet(widen_factor=0.125).eval(), []
    for block in (backbone.stem, *backbone.blocks):
        block.register_forward_hook(lambda _m, _i, out: sides.append(out.shape[-1]))
    backbone(torch.zeros(1, 3, 112, 112))
    assert sides == [56] + [28] * 5 + [14] * 7 + [7] * 3


def test_names_are_those_of_published_weights():
    published = {
        "conv1.weight", "bn1.weight", "bn1.running_var", "prelu.weight",
        "layer1.0.bn1.weight", "layer1.0.conv1.weight", "layer1.0.bn2.bias",
        "layer1.0.prelu.weight", "layer1.0.conv2.weight", "layer1.0.bn3.running_mean",
        "layer1.0.downsample.0.weight", "layer1.0.downsample.1.weight", "layer4.1.conv2.weight",
        "bn2.num_batches_tracked",
    }  # fmt: skip
    state = IResNet(18, widths=SLIM).state_dict()
    assert published <= set(state)
    # Per block 3 BN of 5, 2 convolutions, PReLU; per shortcut 6; stem 7; final BN 5.
    assert len(state) == 8 * 18 + 4 * 6 + 7 + 5
    neck = FaceEmbeddingNeck(16).state_dict()
    assert {name.split(".")[0] for name in neck} == {"fc", "features"}


def test_one_checkpoint_fills_backbone_and_neck(tmp_path):
    trained = [IResNet(18, widths=SLIM), FaceEmbeddingNeck(16, 2, 8)]
    path = str(tmp_path / "backbone.pth")
    torch.save({k: v for module in trained for k, v in module.state_dict().items()}, path)
    init_cfg = {"type": "Pretrained", "checkpoint": path}
    fresh = [
        IResNet(18, widths=SLIM, init_cfg=init_cfg),
        FaceEmbeddingNeck(16, 2, 8, init_cfg=init_cfg),
    ]
    for one, other in zip(trained, fresh, strict=True):
        other.init_weights()
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


def test_initialization():
    torch.manual_seed(0)
    backbone = IResNet(18, widths=(16, 32, 64, 64))
    assert backbone.layer3[0].conv2.weight.std().item() == pytest.approx(0.1, rel=0.02)
    assert backbone.layer3[0].downsample[0].weight.std().item() == pytest.approx(0.1, rel=0.1)
    assert (backbone.prelu.weight == 0.25).all()
    backbone.init_weights()  # as the runner calls it: nothing else is drawn over it
    assert backbone.conv1.weight.std().item() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("frozen_bn", [False, True])
def test_recomputing_changes_nothing(frozen_bn):
    torch.manual_seed(0)
    kept = IResNet(18, widths=SLIM).double()
    recomputed = copy.deepcopy(kept)
    recomputed.with_cp = True
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    for model in (kept, recomputed):
        model.train(not frozen_bn)
        model(images).square().mean().backward()
    for (name, one), other in zip(kept.named_parameters(), recomputed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
    for (name, one), other in zip(kept.named_buffers(), recomputed.buffers(), strict=True):
        assert torch.equal(one, other), name
    assert kept.bn1.num_batches_tracked == (not frozen_bn)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"depth": 101}, "depth is 101; it must be one of 18, 34, 50, 100, 200"),
        ({"widths": (64, 128, 256)}, r"widths is \(64, 128, 256\)"),
        ({"widths": (64, 128, 256, 0)}, "four positive"),
    ],
)
def test_bad_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        IResNet(**arguments)
    with pytest.raises(ValueError, match="widen_factor is 0"):
        MobileFaceNet(widen_factor=0)
