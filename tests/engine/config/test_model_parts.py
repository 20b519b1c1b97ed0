"""Names of modules in a config, and what they stand for."""

import pytest
from torch import nn

from negvision.engine.config.model_parts import model_parts
from negvision.errors import ConfigError


def block():
    return nn.TransformerEncoderLayer(4, 1, 4)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.conv1 = nn.Conv2d(3, 4, 1)
        self.backbone.stem = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True))
        self.backbone.layer1 = nn.Sequential(block(), block())
        self.backbone.stages = nn.ModuleList([nn.Sequential(block()), block()])
        self.neck = nn.Module()
        self.neck.convs = nn.ModuleList([nn.Conv2d(1, 1, 1)])


MODEL = Model()
BACKBONE = MODEL.backbone
STAGES = [*BACKBONE.layer1, BACKBONE.stages[0][0], BACKBONE.stages[1]]


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["backbone"], [BACKBONE.stem, *STAGES]),
        (["backbone.layer1"], list(BACKBONE.layer1)),
        (["backbone.layer1", "backbone.layer1.0"], list(BACKBONE.layer1)),
        (["backbone.stages"], STAGES[2:]),
        # A row of layers is one part: recomputing an in-place layer alone overwrites its input.
        (["backbone.stem"], [BACKBONE.stem]),
        (["neck"], [MODEL.neck]),
        (["backbone.layer1.0.linear1"], [BACKBONE.layer1[0].linear1]),
        # Parts inside another part are dropped.
        (["backbone.layer1.0.linear1", "backbone.layer1"], list(BACKBONE.layer1)),
        ([], []),
    ],
)
def test_parts(names, parts):
    found = model_parts(MODEL, names, "shard")
    assert len(found) == len(parts) and set(found) == set(parts)


def test_unknown_names():
    with pytest.raises(ConfigError, match=r"shard names 'backbone\.layr1', but Model has no such "):
        model_parts(MODEL, ["backbone.layr1"], "shard")
    with pytest.raises(ConfigError, match="it has backbone, neck"):
        model_parts(MODEL, ["xyz"], "shard")
