"""ResNetCIFAR against the parameter counts of the paper and a written-out block."""

import pytest
import torch
from torch.nn import functional as F

from negvision.classification.resnet_cifar import CIFARBlock, ResNetCIFAR


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_parameters_are_those_of_the_paper(depth, millions):
    """He et al., table 6; the classifier of 10 classes is counted there."""
    with torch.device("meta"):
        backbone = ResNetCIFAR(depth)
    total = sum(parameter.numel() for parameter in backbone.parameters()) + 64 * 10 + 10
    assert round(total / 1e6, 2 if millions < 1 else 1) == millions
    convolutions = [m for m in backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == depth - 1


def shortcut_by_pixels(x, stride, channels):
    """Option A, written out: every second pixel, and zeros for new channels."""
    batch, old, height, width = x.shape
    out = x.new_zeros(batch, channels, -(-height // stride), -(-width // stride))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            out[:, :old, i, j] = x[:, :, i * stride, j * stride]
    return out


@pytest.mark.parametrize("size", [(6, 6), (7, 5), (1, 1), (1, 4)])
@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (8, 2), (4, 2), (6, 1)])
@pytest.mark.parametrize("training", [True, False])
def test_block_equals_the_definition(size, channels, stride, training):
    torch.manual_seed(0)
    block = CIFARBlock(4, channels, stride).double().train(training)
    x = torch.randn(3, 4, *size, dtype=torch.float64)
    before = x.clone()

    def normalized(values, norm):
        if training:
            mean, var = values.mean((0, 2, 3)), values.var((0, 2, 3), unbiased=False)
        else:
            mean, var = norm.running_mean, norm.running_var
        shape = (1, -1, 1, 1)
        scaled = (values - mean.view(shape)) / (var.view(shape) + norm.eps).sqrt()
        return scaled * norm.weight.view(shape) + norm.bias.view(shape)

    inner = F.conv2d(x, block.conv1.weight, stride=stride, padding=1)
    inner = normalized(inner, block.bn1).clamp(min=0)
    inner = normalized(F.conv2d(inner, block.conv2.weight, padding=1), block.bn2)
    expected = (inner + shortcut_by_pixels(x, stride, channels)).clamp(min=0)
    torch.testing.assert_close(block(x), expected)
    # Nothing was changed in place.
    assert torch.equal(x, before)


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (33, 31), (5, 9), (1, 1)])
def test_shapes(size):
    backbone = ResNetCIFAR(20).eval()
    (level,) = backbone(torch.zeros(2, 3, *size))
    assert level.shape == (2, 64, -(-size[0] // 4), -(-size[1] // 4))


def test_convolutions_are_kaiming_normal():
    torch.manual_seed(0)
    backbone = ResNetCIFAR(20)
    weight = backbone.layer3[1].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone.init_weights()
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize("depth", [18, 50, 0, 20.5, "20"])
def test_depth_is_checked(depth):
    with pytest.raises(ValueError, match=rf"depth is {depth!r}; it must be one of 20, 32, 44"):
        ResNetCIFAR(depth)


@pytest.mark.parametrize("widths", [(16, 32), (16, 8, 64), (0, 1, 2), (16, 32, 64, 128)])
def test_widths_are_checked(widths):
    with pytest.raises(ValueError, match="it must be three ascending channel counts"):
        ResNetCIFAR(widths=widths)
