"""Each config of segmentation builds a network that fits its data, and slim ones learn."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from helpers.learning import assert_learns
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from negvision.engine.config.reading import load_config
from negvision.engine.quiet import silence_idle_warnings
from negvision.segmentation.segmentors import AbeTConvSeg, AbeTEncoderDecoder, OODEncoderDecoder

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = [
    "abet/camvid_abet.py",
    "abet/camvid_deeplabv3plus.py",
    "abet/camvid_deeplabv3plus_lite0.py",
    "abet/fcn_abet_r50.py",
    "abet/pspnet_abet_r50.py",
    "abet/upernet_abet_r50.py",
    "abet_deeplabv3plus_r50.py",
    "quickstart/abet_pixels.py",
]
SLIM = [name for name in NAMES if "r50" not in name]


def build(model):
    with DefaultScope.overwrite_default_scope("mmseg"), warnings.catch_warnings():
        warnings.simplefilter("error")  # what a user would see on the console
        silence_idle_warnings()
        return MODELS.build(copy.deepcopy(model))


@pytest.mark.parametrize("name", NAMES)
def test_segmentor_builds(name):
    cfg = load_config(CONFIGS / name)
    with torch.device("meta"):
        model = build(cfg.model).eval()
    head, classes = model.decode_head, cfg.model.decode_head.num_classes
    is_abet = isinstance(head.conv_seg, AbeTConvSeg)
    assert is_abet == isinstance(model, AbeTEncoderDecoder) == ("abet" in Path(name).stem)
    assert isinstance(model, OODEncoderDecoder) and head.out_channels == classes
    # The channels fit from the backbone to the classifier; autocast knows no meta device.
    weight = head.conv_seg.classifier.weight if is_abet else head.conv_seg.weight
    assert weight.shape[:2] == (classes, head.channels)
    head.conv_seg = torch.nn.Identity()
    with torch.device("meta"):
        features = model(torch.empty(1, 3, 128, 160), mode="tensor")
    assert features.shape[:2] == (1, head.channels)
    # Digits name their classes themselves: the background and eight of ten.
    chosen = cfg.train_dataloader.dataset.get("metainfo", {}).get("classes", range(9))
    assert len(chosen) == classes


@pytest.mark.parametrize("name", SLIM)
def test_slim_config_learns_and_predicts(name):
    """Steps of gradient descent lower the loss of their own batch, and prediction runs."""
    cfg = load_config(CONFIGS / name)
    # Weights that another run leaves are not here.
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = build(cfg.model)
    model.init_weights()
    classes = cfg.model.decode_head.num_classes
    samples = []
    for _ in range(2):
        labels = torch.randint(0, classes, (1, 6, 8)).repeat_interleave(16, 1)
        sample = SegDataSample(gt_sem_seg=PixelData(data=labels.repeat_interleave(16, 2)))
        sample.set_metainfo({"img_shape": (96, 128), "ori_shape": (100, 130)})
        samples.append(sample)
    batch = {"inputs": [torch.randint(0, 256, (3, 96, 128)).byte()] * 2, "data_samples": samples}
    assert_learns(model, batch, lr=0.01)
    model.eval()
    with torch.no_grad():
        results = model(**model.data_preprocessor(batch, False), mode="predict")
    assert [result.ood_map.data.shape for result in results] == [(1, 100, 130)] * 2


def test_the_quick_start_of_pixels_begins_where_that_of_boxes_ends():
    boxes = load_config(CONFIGS / "quickstart/abet_boxes.py")
    pixels = load_config(CONFIGS / "quickstart/abet_pixels.py")
    wanted = pixels.model.backbone.init_cfg
    assert wanted.checkpoint == f"work_dirs/abet_boxes/iter_{boxes.train_cfg.max_iters}.pth"
    shapes = []
    for scope, cfg in (("mmdet", boxes), ("mmseg", pixels)):
        with DefaultScope.overwrite_default_scope(scope), torch.device("meta"):
            backbone = MODELS.build({**cfg.model.backbone, "init_cfg": None})
        shapes.append({name: value.shape for name, value in backbone.state_dict().items()})
    assert shapes[0] == shapes[1] and shapes[0]
