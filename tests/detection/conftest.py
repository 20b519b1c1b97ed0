"""A detector of a few thousand weights on the small digits set."""

from pathlib import Path

import pytest
from mmengine.config import Config

META = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
LOAD = [{"type": "negvision.LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}]
STRIDES = [8, 16, 32]
ANCHORS = {
    "type": "AnchorGenerator",
    "ratios": [1.0],
    "octave_base_scale": 4,
    "scales_per_octave": 1,
    "strides": STRIDES,
}
NORM = {"type": "GN", "num_groups": 2}


def data(root: Path, split: str, pipeline: list, **options) -> dict:
    return {
        "type": "negvision.DigitsDataset",
        "data_root": str(root),
        "digits": {"train": 24, "val": 12, "test": 12, "test_ood": 6},
        "ann_file": f"annotations/instances_{split}.json",
        "data_prefix": {"img": f"{split}/"},
        "pipeline": pipeline,
        **options,
    }


def head_config(kind: str, assigner: dict) -> dict:
    common = {"num_classes": 10, "in_channels": 8, "feat_channels": 8, "stacked_convs": 1}
    train = {"assigner": assigner, "allowed_border": -1, "pos_weight": -1, "debug": False}
    if kind.endswith("FCOSHead"):
        head = {"type": kind, **common, "strides": STRIDES, "norm_cfg": NORM}
        if kind == "FCOSHead":
            head["regress_ranges"] = ((-1, 48), (48, 96), (96, 1e8))
    elif kind.endswith("ATSSHead"):
        coder = {"type": "DeltaXYWHBBoxCoder"}
        box_loss = {"type": "GIoULoss", "loss_weight": 2.0}
        head = {
            "type": kind,
            **common,
            "norm_cfg": NORM,
            "anchor_generator": ANCHORS,
            "bbox_coder": coder,
            "loss_bbox": box_loss,
        }
    else:
        head = {"type": kind, **common, "anchor_generator": ANCHORS}
        train["sampler"] = {"type": "PseudoSampler"}
    return {"head": head, "train": train}


@pytest.fixture
def tiny_detector(digits: Path, tmp_path: Path):
    """Function from a head and an assigner to a config that trains on the digits set."""

    def make(
        head: str = "negvision.ATSSHead", assigner: dict | None = None, hooks: list | None = None
    ) -> Config:
        parts = head_config(head, assigner or {"type": "negvision.ATSSAssigner", "topk": 9})
        kind = {"FCOSHead": "FCOS", "ATSSFCOSHead": "FCOS"}.get(head.split(".")[-1], "RetinaNet")
        flip = {"type": "RandomFlip", "prob": 0.5}
        resize = {"type": "Resize", "scale": (160, 160), "keep_ratio": True}
        pack = {"type": "PackDetInputs", "meta_keys": META}
        return Config(
            {
                "default_scope": "mmdet",
                "train_dataloader": {
                    "batch_size": 4,
                    "num_workers": 0,
                    "sampler": {"type": "DefaultSampler", "shuffle": True},
                    "dataset": data(digits, "train", [*LOAD, resize, flip, pack]),
                },
                "val_dataloader": {
                    "batch_size": 4,
                    "num_workers": 0,
                    "sampler": {"type": "DefaultSampler", "shuffle": False},
                    "dataset": data(digits, "val", [*LOAD, resize, pack], test_mode=True),
                },
                "val_evaluator": {
                    "type": "negvision.CocoMetric",
                    "ann_file": str(digits / "annotations" / "instances_val.json"),
                    "classwise": False,
                },
                "model": {
                    "type": kind,
                    "data_preprocessor": {
                        "type": "DetDataPreprocessor",
                        "mean": [120.0] * 3,
                        "std": [60.0] * 3,
                        "bgr_to_rgb": True,
                        "pad_size_divisor": 32,
                    },
                    "backbone": {
                        "type": "ResNet",
                        "depth": 18,
                        "base_channels": 4,
                        "out_indices": (1, 2, 3),
                    },
                    "neck": {
                        "type": "FPN",
                        "in_channels": [8, 16, 32],
                        "out_channels": 8,
                        "num_outs": 3,
                    },
                    "bbox_head": parts["head"],
                    "train_cfg": parts["train"],
                    "test_cfg": {
                        "nms_pre": 100,
                        "score_thr": 0.0,
                        "nms": {"type": "nms", "iou_threshold": 0.5},
                        "max_per_img": 10,
                    },
                },
                "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 2, "val_interval": 1},
                "val_cfg": {"type": "ValLoop"},
                "optim_wrapper": {
                    "type": "OptimWrapper",
                    "optimizer": {"type": "SGD", "lr": 0.01},
                },
                "log_processor": {"type": "LogProcessor", "by_epoch": False},
                "default_hooks": {
                    "logger": {"type": "negvision.ProgressHook", "interval": 1},
                    "checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 9},
                },
                "custom_hooks": hooks or [],
                "randomness": {"seed": 0},
                "work_dir": str(tmp_path / "work"),
                "experiment_name": tmp_path.name,
                # Visualizers are global by name, so each run needs its own.
                "visualizer": {
                    "type": "DetLocalVisualizer",
                    "name": tmp_path.name,
                    "vis_backends": [{"type": "LocalVisBackend"}],
                },
            }
        )

    return make
