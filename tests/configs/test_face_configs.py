"""The face configs build, fit their data's size, and hold the recipe of the paper."""

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
SLIM = ["unpg/lfw112_arcface.py", "unpg/lfw112_cosface_unpg.py", "quickstart/unpg_glyphs.py"]


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
    assert features.shape == (2, model.neck.in_channels, *model.neck.spatial_size)
    assert model.neck.embedding_size == model.head.embedding_size


@pytest.mark.parametrize("data", ["ms1mv2_r100", "casia_r50", "kface_r34"])
@pytest.mark.parametrize("margin", ["arcface", "cosface", "magface"])
def test_with_and_without_unpg_differ_only_in_the_metric_pairs(data, margin):
    plain, unpg = load(f"unpg/{data}_{margin}.py"), load(f"unpg/{data}_{margin}_unpg.py")
    assert not plain.model.head.metric_pairs and unpg.model.head.metric_pairs
    unpg.model.head.metric_pairs = False
    assert unpg._cfg_dict == plain._cfg_dict


def test_recipe_of_the_paper():
    cfg = load("unpg/ms1mv2_r100_arcface_unpg.py")
    sgd = cfg.optim_wrapper.optimizer
    assert (sgd.type, sgd.lr, sgd.momentum, sgd.weight_decay) == ("SGD", 0.1, 0.9, 5e-4)
    assert cfg.optim_wrapper.type == "AmpOptimWrapper"
    assert cfg.auto_scale_lr.base_batch_size == 512 == 8 * cfg.train_dataloader.batch_size
    assert cfg.train_cfg.max_epochs == 20
    warmup, cosine = cfg.param_scheduler
    assert (warmup.type, warmup.end) == ("LinearLR", 3)
    assert (cosine.type, cosine.begin, cosine.end) == ("CosineAnnealingLR", 3, 20)
    head = cfg.model.head
    assert (head.scale, head.whisker, head.num_classes) == (64.0, 1.5, 85742)
    assert head.margin == {"type": "negvision.ArcFaceMargin", "m": 0.5}
    assert cfg.model.backbone.depth == 100
    assert load("unpg/kface_r34_arcface.py").model.head.whisker == 1.0
    assert load("unpg/kface_r34_arcface.py").model.backbone.depth == 34
    assert load("unpg_r50.py").model.backbone.depth == 50
    cosface = load("unpg/casia_r50_cosface.py").model.head.margin
    assert cosface == {"type": "negvision.CosFaceMargin", "m": 0.5}


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
