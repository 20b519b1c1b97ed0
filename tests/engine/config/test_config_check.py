import functools
from pathlib import Path

import mmdet
import pytest
from mmengine.config import Config

from negvision.engine.config import check
from negvision.engine.config.check import accepted_keywords, check_config, check_packages
from negvision.errors import ConfigError

STOCK = Path(mmdet.__file__).parent / ".mim" / "configs"


@functools.cache
def _retinanet_text() -> str:
    return Config.fromfile(STOCK / "retinanet" / "retinanet_r50_fpn_1x_coco.py").pretty_text


def retinanet() -> Config:
    return Config.fromstring(_retinanet_text(), ".py")


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("model.bbox_head.type", "RetinaHaed", "nearest: 'RetinaHead'"),
        ("train_dataloder", {}, "'train_dataloder' is not read by anything; nearest"),
        ("val_evalutor", {}, "'val_evalutor' is not read by anything; nearest"),
        ("model.backbone.type", "resnet", "nearest: 'ResNet'"),
        ("model.backbone.norm_cfg.type", "BatchNrm", "is not registered"),
        ("model.backbone.detph", 50, "ResNet takes no argument 'detph'; nearest: 'depth'"),
        ("model.bbox_head.num_clases", 3, "nearest: 'num_classes'"),
        ("model.bbox_head.anchor_generator.stride", [8], "nearest: 'strides'"),
        ("model.train_cfg.assigner.pos_iou_treshold", 0.5, "nearest: 'pos_iou_thr'"),
        ("model.test_cfg.nms.type", "nmss", "'nmss' is not registered"),
        ("model.typo_cfg", 1, "RetinaNet takes no argument 'typo_cfg'; nearest"),
        ("train_dataloader.batch_sise", 2, "nearest: 'batch_size'"),
        ("train_dataloader.dataset.ann_fil", "x", "nearest: 'ann_file'"),
        ("train_dataloader.dataset.pipeline.1.with_box", True, "nearest: 'with_bbox'"),
        ("train_dataloader.sampler.type", "DefaultSampeler", "nearest: 'DefaultSampler'"),
        ("val_evaluator.ann_fille", "x", "nearest: 'ann_file'"),
        ("optim_wrapper.optimizer.type", "SDG", "is not registered"),
        ("optim_wrapper.optimizer.momentun", 0.9, "nearest: 'momentum'"),
        ("optim_wrapper.clip_gard", {"max_norm": 1}, "nearest: 'clip_grad'"),
        ("param_scheduler.0.start_facto", 0.1, "nearest: 'start_factor'"),
        ("default_hooks.logger.intervall", 5, "nearest: 'interval'"),
        ("default_hooks.chekpoint", {"type": "CheckpointHook"}, "nearest: 'checkpoint'"),
        ("train_cfg.max_epoch", 12, "nearest: 'max_epochs'"),
        ("visualizer.vis_backends.0.type", "LocalVisBackends", "nearest: 'LocalVisBackend'"),
        ("optim_wrapper.clip_grad", {"max_nrom": 1}, "nearest: 'max_norm'"),
        ("optim_wrapper.paramwise_cfg", {"norm_decay_mul": 0}, "nearest: 'norm_decay_mult'"),
        ("env_cfg.cudnn_benchmar", True, "nearest: 'cudnn_benchmark'"),
        ("env_cfg.mp_cfg.opencv_threads", 1, "nearest: 'opencv_num_threads'"),
        ("randomness", {"sed": 1}, "nearest: 'seed'"),
        ("train_dataloader.dataset.filter_cfg.filter_empty_gts", True, "nearest: 'filter_empty_gt"),
        ("train_dataloader.dataset.data_prefix.imgs", "a/", "nearest: 'img'"),
        ("model.test_cfg.score_thrs", 0.3, "nearest: 'score_thr'"),
        ("model.test_cfg.rpn", {"nms_pree": 9}, "nearest: 'nms_pre'"),
        ("train_cfg.max_epochs", "two", "is the text 'two'; it must be a number"),
        ("model.bbox_head.num_classes", "three", "is the text 'three'"),
        ("default_hooks.checkpoint.interval", "1k", "is the text '1k'"),
        ("auto_scale_lr.base_batchsize", 4, "nearest: 'base_batch_size'"),
        ("model.backbone.init_cfg.type", "Pretrainde", "nearest: 'Pretrained'"),
        ("default_scope", "mmdett", "default_scope = 'mmdett' cannot be used"),
        ("model.neck.type", "mmpretrian.FPN", "package 'mmpretrian' is not installed"),
        ("model.neck.type", "negvision.Nothing", "is not registered"),
    ],
)
def test_typo_reports_its_path_and_the_nearest_name(path, value, expected):
    cfg = retinanet()
    cfg.merge_from_dict({path: value})
    with pytest.raises(ConfigError) as caught:
        check_config(cfg)
    assert path in str(caught.value)
    assert expected in str(caught.value)


def test_helper_variables_and_keys_that_builders_read_are_accepted():
    cfg = retinanet()
    cfg.merge_from_dict(
        {
            "num_classes": 80,
            "train_pipeline_stage2": [],
            "oi_train_pipeline": [],
            "_data_root": "data/",
            "default_hooks.logger.priority": "LOW",
            "optim_wrapper.paramwise_cfg": {"norm_decay_mult": 0.0},
            "param_scheduler.0.convert_to_iter_based": False,
            "custom_hooks": [
                {"type": "negvision.ProgressHook", "interval": 3, "interval_exp_name": 9}
            ],
        }
    )
    cfg.model.backbone.init_cfg = {
        "type": "Kaiming",
        "layer": "Conv2d",
        "override": {"type": "Normal", "name": "fc", "std": 0.1},
    }
    check_config(cfg)


def test_keys_that_builders_read_are_accepted_of_components_of_negvision():
    cfg = retinanet()
    cfg.optim_wrapper = {
        "type": "negvision.BF16OptimWrapper",
        "optimizer": {"type": "SGD", "lr": 0.01},
        "paramwise_cfg": {"norm_decay_mult": 0.0},
    }
    by_path = "negvision.face.pair_score_hook.PairScoreHook"
    cfg.custom_hooks = [
        {"type": kind, "priority": "LOW"} for kind in ("negvision.PairScoreHook", by_path)
    ]
    check_config(cfg)
    cfg.custom_hooks = [{"type": "negvision.PairScoreHook", "priorities": "LOW"}]
    with pytest.raises(ConfigError, match="no argument 'priorities'; nearest: 'priority'"):
        check_config(cfg)


# A sample of every kind of detector; all 800 of them take 80 seconds.
SAMPLE = (
    "atss/atss_r50_fpn_1x_coco.py",
    "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py",
    "cornernet/cornernet_hourglass104_10xb5-crop511-210e-mstest_coco.py",
    "dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py",
    "detr/detr_r50_8xb2-150e_coco.py",
    "dino/dino-4scale_r50_8xb2-12e_coco.py",
    "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    "guided_anchoring/ga-retinanet_r50-caffe_fpn_1x_coco.py",
    "htc/htc_r50_fpn_1x_coco.py",
    "mask2former/mask2former_r50_8xb2-lsj-50e_coco.py",
    "rtmdet/rtmdet_s_8xb32-300e_coco.py",
    "yolox/yolox_s_8xb8-300e_coco.py",
)


@pytest.mark.parametrize("name", SAMPLE)
def test_stock_configs_raise_no_false_alarm(name):
    check_config(Config.fromfile(STOCK / name))


class Base:
    def __init__(self, depth):
        self.depth = depth


class PassesOn(Base):
    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width


class Keeps(Base):
    def __init__(self, width, **kwargs):
        super().__init__(1)
        self.options = kwargs


class Takes(Base):
    def __init__(self, **kwargs):
        self.secret = kwargs.pop("secret")
        super().__init__(**kwargs)


def test_accepted_keywords_follow_kwargs_only_where_they_are_passed_on():
    assert accepted_keywords(PassesOn) == ({"width", "depth"}, True)
    assert not accepted_keywords(Keeps)[1]
    assert not accepted_keywords(Takes)[1]


@pytest.mark.parametrize("kind", ["Mosaic", "MixUp", "CopyPaste", "mmseg.RandomMosaic"])
def test_transforms_that_join_images_need_their_wrapper(kind):
    cfg = retinanet()
    dataset = cfg.train_dataloader.dataset
    dataset.pipeline.insert(2, {"type": kind})
    name = kind.rpartition(".")[2]
    place = rf"train_dataloader\.dataset\.pipeline\.2: {name} joins several images"
    with pytest.raises(ConfigError, match=place + ".*type='MultiImageMixDataset'"):
        check_config(cfg)
    cfg.train_dataloader.dataset = {
        "type": "RepeatDataset",
        "times": 2,
        "dataset": {"type": "MultiImageMixDataset", "dataset": dataset, "pipeline": []},
    }
    dataset.pipeline[2] = {"type": "CachedMixUp"}
    check_config(cfg)


def test_missing_packages_of_what_is_built(monkeypatch):
    cfg = retinanet()
    cfg.train_dataloader.dataset.pipeline.append({"type": "Albu", "transforms": []})
    monkeypatch.setattr(check, "find_spec", lambda name: None if name == "albumentations" else name)
    with pytest.raises(ConfigError, match=r"pipeline\.5: Albu needs .* pip install albumentations"):
        check_packages(cfg, ("train", "val"))
    check_packages(cfg, ("test",))
    cfg.visualizer.vis_backends.append({"type": "MLflowVisBackend"})
    monkeypatch.setattr(check, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"visualizer\.vis_backends\.1: MLflowVisBackend needs"):
        check_packages(cfg, ("test",))
