"""Every config loads, names only what exists, and builds its model."""

import copy
from pathlib import Path

import pytest
import torch
from helpers.learning import assert_learns
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from negvision.engine.config.check import check_config
from negvision.engine.config.reading import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.rglob("*.py")
    if "_base_" not in path.relative_to(CONFIGS).parts
)
FACES = [name for name in NAMES if "unpg" in name]
# Beside these, test_segmentation_configs.py.
SEGMENTORS = [
    name
    for name in NAMES
    if any(
        word in name for word in ("deeplabv3plus", "fcn_", "pspnet", "upernet", "camvid", "pixels")
    )
]
CLASSIFIERS = [name for name in NAMES if "cifar10" in name or "images" in name]
DETECTORS = [name for name in NAMES if name not in FACES + SEGMENTORS + CLASSIFIERS]
SLIM = [name for name in DETECTORS if "bccd" in name or "coco128" in name or "digits" in name]


def build(model):
    """The model of a config; on torch's meta device where the real one would take seconds."""
    model = copy.deepcopy(model)  # building takes keys out of it
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(model)


def datasets_of(cfg, split):
    """The data set of a split, or those that it concatenates."""
    dataset = cfg[f"{split}_dataloader"].dataset
    return dataset.get("datasets", [dataset])


def test_the_configs_are_found():
    assert {"atss_r50.py", "atss/atss_x101_64x4d_dcn.py", "quickstart/atss_digits.py"} <= set(NAMES)
    assert len(SLIM) >= 5
    assert {"unpg_r50.py", "unpg/ms1mv2_r100_magface_unpg.py"} <= set(FACES)
    assert {"abet/cifar10_abet.py", "quickstart/abet_images.py"} <= set(CLASSIFIERS)


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
        levels = model.neck(model.backbone(torch.empty(1, 3, 128, 128)))
    head = model.rpn_head if hasattr(model, "roi_head") else model.bbox_head
    outs = head(levels)
    strides = [pair[0] for pair in head.prior_generator.strides]
    assert [128 // level.shape[-1] for level in outs[0]] == strides
    if hasattr(model, "roi_head"):
        check_box_heads(model.roi_head, levels, strides)


def check_box_heads(roi_head, levels, strides):
    """Each box head takes the features that its extractor cuts out of the levels of the neck."""
    extractors, heads = roi_head.bbox_roi_extractor, roi_head.bbox_head
    if not isinstance(heads, torch.nn.ModuleList):
        extractors, heads = [extractors], [heads]
    for extractor, head in zip(extractors, heads, strict=True):
        assert extractor.featmap_strides == strides[: extractor.num_inputs]
        assert extractor.out_channels == levels[0].shape[1]
        shape = (2, extractor.out_channels, *head.roi_feat_size)
        scores, deltas = head(torch.empty(shape, device="meta"))
        assert scores.shape[1] >= head.num_classes + 1
        assert deltas.shape == (2, 4 * (1 if head.reg_class_agnostic else head.num_classes))


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
        for dataset in datasets_of(cfg, split):
            assert dataset.data_root.startswith(f"{tmp_path}/"), dataset.data_root
    if "ann_file" in cfg.val_evaluator:
        assert cfg.val_evaluator.ann_file.startswith(datasets_of(cfg, "val")[0].data_root)
    monkeypatch.delenv("NEGVISION_DATA")
    (dataset,) = datasets_of(load_config(CONFIGS / name), "train")
    assert dataset.data_root.startswith("data/")


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
    assert_learns(model, batch, lr=0.001)
    model.eval()
    with torch.no_grad():
        results = model(**model.data_preprocessor(batch, False), mode="predict")
    assert len(results) == 2


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier_learns_and_predicts(name):
    """One step of gradient descent lowers the loss of its own batch, and prediction runs."""
    from negvision.classification.structures import ImageDataSample

    cfg = load_config(CONFIGS / name)
    torch.manual_seed(0)
    model = build(cfg.model)
    model.init_weights()
    classes = cfg.model.num_classes
    batch = {
        "inputs": [torch.randint(256, (3, 32, 32), dtype=torch.uint8) for _ in range(classes)],
        "data_samples": [ImageDataSample(label=torch.tensor(label)) for label in range(classes)],
    }
    assert_learns(model, batch, lr=0.001)
    model.eval()
    with torch.no_grad():
        results = model(**model.data_preprocessor(batch, False), mode="predict")
    assert [len(sample.logits) for sample in results] == [classes] * classes
    assert all(sample.ood_score.isfinite() for sample in results)


BASES = sorted((CONFIGS / "_base_/datasets").glob("*.py"))
SLOWER = {
    "negvision.PackDetInputs": set(),
    "negvision.PackSegInputs": {"RandomCrop", "RandomFlip", "PhotoMetricDistortion"},
}


def pipelines(node):
    """All lists of steps in a config."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from [value] if key.endswith("pipeline") else pipelines(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from pipelines(value)


@pytest.mark.parametrize("path", BASES, ids=lambda path: path.stem)
def test_steps_are_the_quicker_ones(path):
    """The datasets of _base_ use negvision's transforms wherever these are faster."""
    found = list(pipelines(Config.fromfile(path).to_dict()))
    assert found or path.stem == "small_detection"
    for steps in ([step["type"] for step in pipeline] for pipeline in found):
        assert steps[0] == "negvision.LoadImageFromFile"
        assert steps[-1].startswith("negvision.Pack"), steps
        assert not SLOWER.get(steps[-1], {"RandomFlip"}) & set(steps), steps
