"""MobileFaceNet: shapes, parameter count, residual connections."""

import pytest
import torch

from negvision.face.backbones import FaceEmbeddingNeck, MobileFaceNet


def test_a_million_parameters_as_in_the_paper():
    modules = MobileFaceNet(), FaceEmbeddingNeck(512, 7, 128, kind="gdc")
    total = sum(p.numel() for module in modules for p in module.parameters())
    assert 0.99e6 < total < 1.01e6


@pytest.mark.parametrize(("size", "side"), [(112, 7), (48, 3), (33, 3)])
def test_side_is_a_sixteenth_rounded_up(size, side):
    backbone = MobileFaceNet(widen_factor=0.25).eval()
    assert backbone.out_channels == 128
    assert backbone(torch.zeros(2, 3, size, size)).shape == (2, 128, side, side)


def test_sides_of_the_stages_are_those_of_the_table():
    backbone, sides = MobileFaceNet(widen_factor=0.125).eval(), []
    for block in (backbone.stem, *backbone.blocks):
        block.register_forward_hook(lambda _m, _i, out: sides.append(out.shape[-1]))
    backbone(torch.zeros(1, 3, 112, 112))
    assert sides == [56] + [28] * 5 + [14] * 7 + [7] * 3


def test_residual_where_the_shape_stays():
    assert [block.residual for block in MobileFaceNet(widen_factor=0.125).blocks] == [
        *[False, True, True, True, True],
        *[False] + [True] * 6,
        *[False, True, True],
    ]


def test_bad_arguments():
    with pytest.raises(ValueError, match="widen_factor is 0"):
        MobileFaceNet(widen_factor=0)
