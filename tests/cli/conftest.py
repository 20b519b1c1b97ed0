"""A COCO set of eight small images and a detector small enough to train on it in seconds."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

CONFIG = """
default_scope = "mmdet"
data_root = "{root}/"
image_meta = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=(64, 64), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=image_meta),
]
squares = dict(
    type="CocoDataset",
    data_root=data_root,
    ann_file="annotations/all.json",
    data_prefix=dict(img="images/"),
    metainfo=dict(classes=("square", "bar")),
    pipeline=pipeline,
)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=squares,
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(squares, test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoMetric", ann_file=data_root + "annotations/all.json")
test_evaluator = val_evaluator
model = dict(
    type="RetinaNet",
    data_preprocessor=dict(type="DetDataPreprocessor", mean=[0, 0, 0], std=[255, 255, 255]),
    backbone=dict(type="ResNet", depth=18, base_channels=8, out_indices=(1, 2, 3)),
    neck=dict(type="FPN", in_channels=[16, 32, 64], out_channels=16, num_outs=3),
    bbox_head=dict(
        type="RetinaHead",
        num_classes=2,
        in_channels=16,
        feat_channels=16,
        stacked_convs=1,
        anchor_generator=dict(
            type="AnchorGenerator", scales=[4], ratios=[1.0], strides=[8, 16, 32]
        ),
    ),
    train_cfg=dict(
        assigner=dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
        sampler=dict(type="PseudoSampler"),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=100, score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=10
    ),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=1, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01))
param_scheduler = [dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=4)]
auto_scale_lr = dict(enable=False, base_batch_size=4)
default_hooks = dict(
    logger=dict(type="negvision.ProgressHook", interval=2),
    visualization=dict(type="negvision.DrawDetectionsHook", score_thr=0.0),
)
vis_backends = [dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")]
visualizer = dict(type="DetLocalVisualizer", vis_backends=vis_backends, name="{name}")
env_cfg = dict(dist_cfg=dict(backend="nccl"))
"""


def write_coco_set(root: Path) -> None:
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(8):
        picture = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8)
        left, top = (int(v) for v in rng.integers(2, 24, 2))
        for label, (width, height) in enumerate([(24, 24), (30, 14)]):
            x, y = left + 4 * label, top + 10 * label
            picture[y : y + height, x : x + width, label] = 255
            ids = {"id": len(annotations) + 1, "image_id": index, "category_id": (7, 3)[label]}
            box = {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}
            annotations.append({**ids, **box})
        cv2.imwrite(str(root / "images" / f"{index}.png"), picture)
        images.append({"id": index, "file_name": f"{index}.png", "width": 64, "height": 64})
    categories = [{"id": 7, "name": "square"}, {"id": 3, "name": "bar"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "all.json").write_text(json.dumps(content))


@pytest.fixture(scope="session")
def coco_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coco")
    write_coco_set(root / "set")
    return root / "set"


@pytest.fixture
def tiny_config(coco_root: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.py"
    # A visualizer is found by its name ever after: each run of a process needs its own.
    path.write_text(CONFIG.replace("{root}", str(coco_root)).replace("{name}", tmp_path.name))
    return path
