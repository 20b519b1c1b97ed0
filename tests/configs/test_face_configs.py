"""The face configs build and fit their data's size; slim ones learn."""

from pathlib import Path

import pytest
import torch
from helpers.learning import assert_learns

from negvision.engine.config.reading import load_config
from negvision.face.structures import FaceDataSample
from negvision.registry import MODELS
from negvision.toy.face_glyphs import FaceGlyphsParameters

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(
    str(path.relative_to(CONFIGS))
    for path in [*CONFIGS.glob("**/unpg_*.py"), *(CONFIGS / "unpg").glob("*.py")]
)
SLIM = [
    "unpg/lfw112_arcface.py",
    "unpg/lfw112_arcface_lite0.py",
    "unpg/lfw112_cosface_unpg.py",
    "quickstart/unpg_glyphs.py",
]


def load(name):
    return load_config(CONFIGS / name)


def side_of(cfg):
    """The images are square, of the size that the pipeline resizes to, or as they come."""
    if cfg.val_dataloader.dataset.type == "negvision.GlyphPairDataset":
        return FaceGlyphsParameters().image_size
    scales = [t.scale for t in cfg.val_dataloader.dataset.pipeline if "scale" in t]
    return scales[0][0] if scales else 112


@pytest.mark.parametrize("name", NAMES)
def test_model_fits_the_images(name):
    cfg = load(name)
    with torch.device("meta"):
        model = MODELS.build(cfg.model).eval()
        features = model.backbone(torch.empty(2, 3, side_of(cfg), side_of(cfg)))
    features = features[-1] if isinstance(features, tuple) else features
    assert features.shape == (2, model.neck.in_channels, *model.neck.spatial_size)
    assert model.neck.embedding_size == model.head.embedding_size


@pytest.mark.parametrize("name", SLIM)
def test_slim_config_learns_and_predicts(name):
    """Some steps of gradient descent lower the loss of their own batch, and prediction runs."""
    cfg = load(name)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    side = side_of(cfg)
    data = {
        "inputs": [torch.randint(256, (3, side, side), dtype=torch.uint8) for _ in range(8)],
        "data_samples": [
            FaceDataSample(label=torch.tensor(i // 2), metainfo={"sample_idx": i}) for i in range(8)
        ],
    }
    assert_learns(model, data, lr=0.002)
    model.eval()
    with torch.no_grad():
        results = model(**model.data_preprocessor(data, False), mode="predict")
    assert [len(sample.embedding) for sample in results] == [cfg.model.head.embedding_size] * 8
