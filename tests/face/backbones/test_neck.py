"""The embedding neck in its three kinds."""

import pytest
import torch

from negvision.errors import ConfigError
from negvision.face.backbones import FaceEmbeddingNeck

KINDS = ("fc", "gdc", "gap")


def neck(kind: str, **kwargs) -> FaceEmbeddingNeck:
    torch.manual_seed(0)
    return FaceEmbeddingNeck(6, spatial_size=3, embedding_size=5, kind=kind, **kwargs)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_its_definition(kind):
    module = neck(kind).double().eval()
    maps = torch.randn(4, 6, 3, 3, dtype=torch.float64)
    module.features.running_mean.uniform_(-1, 1)
    module.features.running_var.uniform_(1, 2)
    torch.nn.init.uniform_(module.features.bias)
    if kind == "fc":
        inputs = maps.reshape(4, 54)
    elif kind == "gap":
        inputs = maps.sum((2, 3)) / 9
    else:
        torch.nn.init.normal_(module.gdc[0].weight)
        module.gdc[1].running_mean.uniform_(-1, 1)
        weight = module.gdc[0].weight[:, 0]
        inputs = (maps * weight).sum((2, 3)) - module.gdc[1].running_mean
        inputs = inputs / (1 + 1e-5) ** 0.5
    linear = inputs @ module.fc.weight.T + module.fc.bias
    expected = (linear - module.features.running_mean) / (
        module.features.running_var + 1e-5
    ).sqrt() + module.features.bias
    torch.testing.assert_close(module(maps), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_dimensions_have_equal_variance_in_training(kind):
    module = neck(kind).train()
    out = module(torch.randn(64, 6, 3, 3) * torch.linspace(0.1, 9, 6)[:, None, None])
    torch.testing.assert_close(out.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(0, unbiased=False), torch.ones(5), atol=1e-2, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_gdc_starts_as_the_mean_and_scale_stays_one(kind):
    module = neck(kind)
    assert not module.features.weight.requires_grad
    assert (module.features.weight == 1).all()
    if kind == "gdc":
        maps = torch.randn(4, 6, 3, 3)
        torch.testing.assert_close(module.gdc[0](maps).flatten(1), maps.mean((2, 3)))


def test_takes_the_last_of_several_maps():
    module = neck("gap").eval()
    maps = torch.randn(2, 6, 5, 5)
    assert torch.equal(module((torch.randn(2, 3, 9, 9), maps)), module(maps))


@pytest.mark.parametrize("kind", KINDS)
def test_linear_layer_is_float32_under_autocast(kind):
    module = neck(kind).eval()
    maps = torch.randn(2, 6, 3, 3).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(maps)
    assert out.dtype == torch.float32
    if kind == "fc":
        assert torch.equal(out, module(maps.float()))


@pytest.mark.parametrize("kind", ["fc", "gdc"])
@pytest.mark.parametrize("size", [(2, 3), (4, 4)])
def test_map_of_another_size_says_what_to_set(kind, size):
    wanted = 4 if size == (4, 4) else r"\(2, 3\)"
    with pytest.raises(ConfigError, match=f"is {size[0]} x {size[1]}, .*3 x 3.*={wanted} for"):
        neck(kind)(torch.zeros(2, 6, *size))


def test_other_channels_say_what_to_set():
    with pytest.raises(ConfigError, match=r"has 7 channels, .* set in_channels=7"):
        neck("gap")(torch.zeros(2, 7, 3, 3))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"kind": "mean"}, "kind is 'mean'; it must be one of fc, gdc, gap"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"in_channels": 0}, "1 or more, got 0, "),
        ({"spatial_size": (7, 0)}, r"1 or more, got 8, \(7, 0\)"),
        ({"embedding_size": 0}, "1 or more, .* and 0"),
    ],
)
def test_bad_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        FaceEmbeddingNeck(**{"in_channels": 8, **arguments})
