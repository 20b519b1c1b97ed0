"""Every config loads, names only what exists, and builds its model."""

import copy
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope

from negvision.engine.config import load_config
from negvision.engine.config_check import check_config

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.rglob("*.py")
    if "_base_" not in path.relative_to(CONFIGS).parts
)
FACES = [name for name in NAMES if "unpg" in name]
DETECTORS = [name for name in NAMES if name not in FACES]
SLIM = [name for name in DETECTORS if "bccd" in name or "coco128" in name or "digits" in name]


def build(model):
    """The model of a config; on torch's meta device where the real one would take seconds."""
    model = copy.deepcopy(model)  # building takes keys out of it
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(model)


def test_the_configs_are_found():
    assert {"atss_r50.py", "atss/atss_x101_64x4d_dcn.py", "quickstart/atss_digits.py"} <= set(NAMES)
    assert len(SLIM) >= 5
    assert {"unpg_r50.py", "unpg/ms1mv2_r100_magface_unpg.py"} <= set(FACES)


@pytest.mark.parametrize("name", NAMES)
def test_config_is_sound(name):
    cfg = load_config(CONFIGS / name)
    check_config(cfg)
    for key in ("train_dataloader", "val_dataloader", "test_dataloader", "optim_wrapper"):
        assert key in cfg, f"{name} has no {key}"


@pytest.mark.parametrize("name", DETECTORS)
def test_detector_builds(name):
    cfg = load_config(CONFIGS / name)
    with torch.device("meta"):
        model = build(cfg.model)
    # The channels fit from the backbone to the head, and each level has its anchors or points.
    with torch.device("meta"):
        outs = model.bbox_head(model.neck(model.backbone(torch.empty(1, 3, 128, 128))))
    strides = [pair[0] for pair in model.bbox_head.prior_generator.strides]
    assert [128 // level.shape[-1] for level in outs[0]] == strides


@pytest.mark.parametrize("name", NAMES)
def test_leaf_is_a_short_diff(name):
    """A leaf that repeats its base hides what it changes."""
    lines = (CONFIGS / name).read_text().splitlines()
    code = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    assert len(code) <= 45
    assert lines[0].startswith("#"), "the first line says what the config is"


@pytest.mark.parametrize("name", NAMES)
def test_data_is_found_through_the_environment(name, monkeypatch, tmp_path):
    monkeypatch.setenv("NEGVISION_DATA", str(tmp_path))
    cfg = load_config(CONFIGS / name)
    for split in ("train", "val", "test"):
        root = cfg[f"{split}_dataloader"].dataset.data_root
        assert root.startswith(f"{tmp_path}/"), root
    if "ann_file" in cfg.val_evaluator:
        assert cfg.val_evaluator.ann_file.startswith(cfg.val_dataloader.dataset.data_root)
    monkeypatch.delenv("NEGVISION_DATA")
    assert load_config(CONFIGS / name).train_dataloader.dataset.data_root.startswith("data/")


@pytest.mark.parametrize("name", SLIM)
def test_slim_config_learns_and_predicts(name):
    """One step of gradient descent lowers the loss of its own batch, and prediction runs."""
    from mmdet.testing import demo_mm_inputs

    cfg = load_config(CONFIGS / name)
    torch.manual_seed(0)
    model = build(cfg.model)
    model.init_weights()
    classes = cfg.model.bbox_head.num_classes
    batch = demo_mm_inputs(
        batch_size=2, image_shapes=(3, 96, 96), num_items=[3, 0], num_classes=classes
    )
    data = model.data_preprocessor(batch, True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    losses = []
    for _ in range(2):
        total, _ = model.parse_losses(model(**data, mode="loss"))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
    assert losses[1] < losses[0]
    model.eval()
    with torch.no_grad():
        results = model(**model.data_preprocessor(batch, False), mode="predict")
    assert len(results) == 2
