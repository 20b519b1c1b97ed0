"""Training of small models of all tasks through negvision's runner, on one rank or several."""

from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dist import get_dist_info, get_rank
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.structures import InstanceData, PixelData
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Dataset, Sampler

from negvision.classification.structures import ImageDataSample
from negvision.engine.config.options import check_training_options
from negvision.engine.runner import Runner
from negvision.errors import ConfigError
from negvision.face.structures import FaceDataSample

BATCH, STEPS, SIZE = 8, 3, 32
NORM = {"type": "BN", "requires_grad": True}
RESNET = {"type": "ResNet", "depth": 18, "base_channels": 4}

DETECTOR = {
    "type": "mmdet.RetinaNet",
    "data_preprocessor": {
        "type": "mmdet.DetDataPreprocessor", "mean": [0.0] * 3, "std": [255.0] * 3,
    },
    # A frozen stem, and normalization that is not.
    "backbone": {**RESNET, "out_indices": (1, 2, 3), "frozen_stages": 0, "norm_eval": False},
    "neck": {"type": "FPN", "in_channels": [8, 16, 32], "out_channels": 8, "num_outs": 3},
    "bbox_head": {
        "type": "negvision.ATSSHead", "num_classes": 2, "in_channels": 8, "feat_channels": 8,
        "stacked_convs": 1, "norm_cfg": {"type": "GN", "num_groups": 2},
        "anchor_generator": {
            "type": "AnchorGenerator", "scales": [4], "ratios": [1.0], "strides": [8, 16, 32],
        },
        "loss_cls": {"type": "FocalLoss", "use_sigmoid": True},
        "loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0},
        "loss_centerness": {"type": "CrossEntropyLoss", "use_sigmoid": True},
    },
    "train_cfg": {"assigner": {"type": "negvision.ATSSAssigner", "topk": 9}, "pos_weight": -1},
    "test_cfg": {
        "nms_pre": 20, "score_thr": 0.0, "nms": {"type": "nms", "iou_threshold": 0.5},
        "max_per_img": 5,
    },
}  # fmt: skip
FACES = {
    "type": "negvision.FaceRecognizer",
    "backbone": {"type": "negvision.IResNet", "depth": 18, "widths": (16, 16, 16, 16)},
    "neck": {
        "type": "negvision.FaceEmbeddingNeck", "in_channels": 16, "spatial_size": 2,
        "embedding_size": 6,
    },
    "head": {"type": "negvision.UNPGLoss", "num_classes": 7, "embedding_size": 6, "scale": 8.0},
}  # fmt: skip
SEGMENTOR = {
    "type": "negvision.AbeTEncoderDecoder",
    "data_preprocessor": {
        "type": "mmseg.SegDataPreProcessor", "mean": [120.0] * 3, "std": [60.0] * 3,
        "size": (SIZE, SIZE),
    },
    "backbone": {
        "type": "mmseg.ResNetV1c", "depth": 18, "num_stages": 2, "stem_channels": 4,
        "base_channels": 4, "strides": (1, 2), "dilations": (1, 1), "out_indices": (0, 1),
        "norm_cfg": NORM,
    },
    "decode_head": {
        "type": "mmseg.FCNHead", "in_channels": 8, "in_index": 1, "channels": 8, "num_convs": 1,
        "num_classes": 3, "norm_cfg": NORM, "dropout_ratio": 0.1,
    },
    "train_cfg": {},
    "test_cfg": {"mode": "whole"},
}  # fmt: skip
CLASSIFIER = {
    "type": "negvision.AbeTClassifier",
    "backbone": {"type": "negvision.ResNetCIFAR", "depth": 20, "widths": (4, 4, 8)},
    "num_classes": 5,
    "in_features": 8,
}
TASKS = {
    "detection": ("mmdet", DETECTOR),
    "faces": ("mmengine", FACES),
    "segmentation": ("mmseg", SEGMENTOR),
    "classification": ("mmengine", CLASSIFIER),
}


def _detection_sample(label, generator):
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes

    corner = torch.randint(0, 8, (2,), generator=generator).float()
    boxes = HorizontalBoxes(torch.cat([corner, corner + 18])[None])
    objects = InstanceData(bboxes=boxes, labels=torch.tensor([label % 2]))
    meta = {"img_shape": (SIZE, SIZE), "ori_shape": (SIZE, SIZE), "scale_factor": (1.0, 1.0)}
    sample = DetDataSample(gt_instances=objects, metainfo={"img_id": label, **meta})
    sample.ignored_instances = InstanceData(bboxes=HorizontalBoxes(torch.zeros(0, 4)))
    return sample


def _segmentation_sample(label, generator):
    from mmseg.structures import SegDataSample

    classes = torch.randint(3, (1, SIZE, SIZE), generator=generator)
    meta = {"img_shape": (SIZE, SIZE), "ori_shape": (SIZE, SIZE)}
    return SegDataSample(gt_sem_seg=PixelData(data=classes), metainfo=meta)


def _labelled(kind, classes):
    def make(label, generator):
        sample = kind()
        sample.set_data({"label": torch.tensor(label % classes)})
        return sample

    return make


SAMPLES = {
    "detection": _detection_sample,
    "faces": _labelled(FaceDataSample, 7),
    "segmentation": _segmentation_sample,
    "classification": _labelled(ImageDataSample, 5),
}


CLASSES = {"detection": "ab", "faces": "", "segmentation": "abc", "classification": "abcde"}


class Samples(Dataset):
    def __init__(self, task):
        self.task = task
        classes = tuple(CLASSES[task])
        self.metainfo = {"classes": classes, "palette": [[0, 0, 0]] * len(classes)}

    def __len__(self):
        return BATCH * STEPS

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, SIZE, SIZE), generator=generator).byte()
        return {"inputs": image, "data_samples": SAMPLES[self.task](index * 3 % 7, generator)}


class Batches(Sampler):
    """The same global batches in the same order, whatever the world size."""

    sampler = None  # mmengine's hook would set its seed

    def __init__(self, parts=1):
        self.parts = parts

    def __iter__(self):
        rank, world_size = get_dist_info()
        own = BATCH // world_size // self.parts
        for step in range(STEPS):
            for part in range(self.parts):
                first = BATCH * step + (rank * self.parts + part) * own
                yield list(range(first, first + own))

    def __len__(self):
        return STEPS * self.parts


class Count(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [1] * len(data_samples)
        for sample in data_samples:
            if "pred_instances" in sample:  # mmdet's metrics take float32 alone
                assert sample["pred_instances"]["bboxes"].dtype == torch.float32

    def compute_metrics(self, results):
        return {"count": len(results)}


def whole(values):
    values = values.detach()
    return (values.full_tensor() if isinstance(values, DTensor) else values).clone()


class Held(Hook):
    """The full state after each iteration, and the losses."""

    priority = "VERY_LOW"

    def __init__(self):
        self.losses, self.states = [], []

    def before_train(self, runner):
        self.states.append(self.snapshot(runner))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(float(outputs["loss"].detach()))
        self.states.append(self.snapshot(runner))

    @staticmethod
    def snapshot(runner):
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        # Buffers are each rank's own, and those of the first are saved.
        names = model.state_dict() if get_rank() == 0 else dict(model.named_parameters())
        return {name: whole(values) for name, values in model.state_dict().items() if name in names}


def build_runner(
    task, work_dir, steps=3, parts=1, options=None, config=None, size=None, **model_options
):
    """``options`` are of ``optim_wrapper``; ``config`` of the config's top level."""
    batches = {"batch_size": size} if size else {"batch_sampler": Batches(parts)}
    scope, model = TASKS[task]
    held = Held()
    loaders = [
        Runner.build_dataloader(DataLoader(Samples(task), **batches, collate_fn=_collated), seed=3)
        for _ in range(2)
    ]
    arguments = {
        "model": ConfigDict({**model, **model_options}),
        "work_dir": str(work_dir),
        "train_dataloader": loaders[0],
        "val_dataloader": loaders[1],
        "val_evaluator": {"type": Count, "prefix": "samples"},
        "train_cfg": {"by_epoch": False, "max_iters": steps * parts, "val_interval": 2 * parts},
        "val_cfg": {},
        "optim_wrapper": {
            "type": "OptimWrapper",
            "optimizer": {"type": "SGD", "lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3},
            "clip_grad": {"max_norm": 1.0},
            **(options or {}),
        },
        "param_scheduler": {"type": "LinearLR", "start_factor": 0.5, "end": 9, "by_epoch": False},
        "default_hooks": {
            "checkpoint": {"type": "CheckpointHook", "interval": 2 * parts, "by_epoch": False},
        },
        "custom_hooks": [],
        "launcher": "pytorch" if torch.distributed.is_initialized() else "none",
        "randomness": {"seed": 3},
        "default_scope": scope,
        "log_level": "WARNING",
        "experiment_name": f"{Path(work_dir).parent.name}_{Path(work_dir).name}",
        **(config or {}),
    }
    arguments["custom_hooks"] = [*arguments["custom_hooks"], held]
    check_training_options(arguments)
    top_level = {
        key: arguments.pop(key)
        for key in ("sync_bn", "compile", "activation_checkpointing", "model_wrapper_cfg")
        if key in arguments
    }
    runner = Runner(**arguments, cfg=top_level)
    return runner, held


def _collated(samples):
    return {key: [sample[key] for sample in samples] for key in samples[0]}


def train(task, work_dir, **kwargs):
    runner, held = build_runner(task, work_dir, **kwargs)
    runner.train()
    return runner, held


SHARDED = {"type": "negvision.FullyShardedModel"}
AOT = {"backend": "aot_eager"}  # torch.compile without a compiler of C++
ADAMW = {"optimizer": {"type": "AdamW", "lr": 1e-3, "weight_decay": 0.1}}


def close(got, wanted, where, tolerance):
    if get_rank() == 0:
        assert got.keys() == wanted.keys(), where
    for name in got:
        torch.testing.assert_close(
            got[name].view_as(wanted[name]), wanted[name], rtol=tolerance, atol=tolerance,
            msg=lambda text, name=name: f"{where} {name}: {text}",
        )  # fmt: skip


def all_close(got, wanted, where, tolerance=1e-5):
    """After each iteration; the weights to begin with are the same bits."""
    assert len(got.states) == len(wanted.states), where
    for step, states in enumerate(zip(got.states, wanted.states, strict=True)):
        close(*states, f"{where}, step {step}", tolerance if step else 0)


def resumed(file, **config):
    return {"load_from": str(file), "resume": True, **config}


def check_sharded(folder):
    """Sharded training equals DistributedDataParallel, and so do their checkpoints."""
    options = {
        "detection": {"reshard_after_forward": False},
        "segmentation": {"shard": ["backbone.layer1", "decode_head.convs"]},
        "classification": {"shard": []},
    }
    for task in TASKS:
        wrapper = {
            "model_wrapper_cfg": {**SHARDED, **options.get(task, {})},
            "custom_hooks": [{"type": "negvision.ChannelsLastHook"}],  # which leaves shards alone
        }
        runner, plain = train(task, folder / f"{task}_ddp")
        sizes = [p.numel() for p in runner.model.parameters()]
        runner, sharded = train(task, folder / f"{task}_fsdp", config=wrapper)
        for part in runner.model.modules():
            if isinstance(part, FSDPModule):
                part.reshard()  # the evaluation left some unsharded
        shares = [p.to_local().numel() for p in runner.model.parameters()]
        assert sum(shares) <= 0.6 * sum(sizes), (task, sum(shares), sum(sizes))
        all_close(sharded, plain, task)
        saved = torch.load(folder / f"{task}_fsdp" / "iter_2.pth", weights_only=False)
        wanted = torch.load(folder / f"{task}_ddp" / "iter_2.pth", weights_only=False)
        close(saved["state_dict"], wanted["state_dict"], f"{task} saved", 1e-5)
        shapes = [values.shape for values in saved["state_dict"].values()]
        assert shapes == [values.shape for values in wanted["state_dict"].values()], task
        assert not any(isinstance(v, DTensor) for v in saved["state_dict"].values())
        assert saved["optimizer"]["param_groups"] == wanted["optimizer"]["param_groups"]
        momenta = [
            {str(number): state["momentum_buffer"] for number, state in of["state"].items()}
            for of in (saved["optimizer"], wanted["optimizer"])
        ]
        close(*momenta, f"{task} momentum", 1e-4)


def check_resuming(folder):
    """The third step after resuming, sharded or not, from a checkpoint of either kind."""
    for optimizer in ("sgd", "adamw"):
        options = ADAMW if optimizer == "adamw" else None
        sharded = {"model_wrapper_cfg": SHARDED}
        first = folder / f"first_{optimizer}"
        _, whole_run = train("detection", first, config=sharded, options=options)
        config = resumed(first / "iter_2.pth", **sharded)
        _, again = train("detection", folder / f"again_{optimizer}", config=config, options=options)
        close(again.states[0], whole_run.states[2], "resumed", 0)
        close(again.states[1], whole_run.states[3], "a step after", 0)
        config = resumed(first / "iter_2.pth")
        _, ddp = train("detection", folder / f"ddp_{optimizer}", config=config, options=options)
        close(ddp.states[0], whole_run.states[2], "resumed without", 0)
        close(ddp.states[1], whole_run.states[3], "a step after without", 1e-5)
    # Saved by DistributedDataParallel, resumed sharded.
    _, plain = train("detection", folder / "plain")
    config = resumed(folder / "plain" / "iter_2.pth", model_wrapper_cfg=SHARDED)
    _, other = train("detection", folder / "other", config=config)
    close(other.states[0], plain.states[2], "resumed sharded", 0)
    close(other.states[1], plain.states[3], "a step after, sharded", 1e-5)
    # In the middle of an accumulation, whose gradients are in the checkpoint.
    checkpoint = {"type": "CheckpointHook", "interval": 1, "by_epoch": False}
    accumulated = {"parts": 2, "steps": 1, "options": {"accumulative_counts": 2}}
    for name, wrapper in (("ddp", None), ("fsdp", SHARDED)):
        config = {"model_wrapper_cfg": wrapper, "default_hooks": {"checkpoint": checkpoint}}
        _, one = train("faces", folder / f"accumulated_{name}", config=config, **accumulated)
        config |= resumed(folder / f"accumulated_{name}" / "iter_1.pth")
        _, two = train("faces", folder / f"resumed_{name}", config=config, **accumulated)
        assert not torch.equal(one.states[1]["head.weight"], one.states[2]["head.weight"])
        close(two.states[-1], one.states[-1], f"accumulation resumed, {name}", 1e-6)


def check_sync_bn(folder, alone):
    """Normalized over ranks, a batch is that of one process, whose states are in ``alone``."""
    ways = {"ddp": None, "fsdp": SHARDED}
    recompute, compiled = {"activation_checkpointing": ["backbone"]}, {"compile": AOT}
    for task, way, more in (
        ("faces", "ddp", compiled),
        ("faces", "fsdp", recompute),
        ("classification", "ddp", recompute),
        ("classification", "fsdp", {}),
    ):
        config = {"sync_bn": "torch", "model_wrapper_cfg": ways[way], **more}
        where = f"{task}_{way}_sync_bn"
        _, held = train(task, folder / where, steps=2, config=config)
        wanted = torch.load(alone / f"{task}_alone.pt")
        for step in (1, 2):
            close(held.states[step], wanted[step], f"{where} {step}", 2e-5)


def check_accumulated(folder):
    """Each rank's batch in two parts."""
    for task in ("detection", "faces"):
        runs = []
        for name, wrapper in (("ddp", None), ("fsdp", SHARDED)):
            runs += train(
                task, folder / f"{task}_accumulated_{name}", steps=2, parts=2,
                options={"accumulative_counts": 2}, config={"model_wrapper_cfg": wrapper},
            )[1:]  # fmt: skip
        all_close(*runs, f"{task} accumulated")


def check_mixed_precision(folder):
    """Losses are close to those of float32, and the stored state stays float32."""
    half = {**SHARDED, "mixed_precision": "bf16"}
    amp = {"type": "negvision.BF16OptimWrapper"}
    for task in ("detection", "faces"):
        _, plain = train(task, folder / f"{task}_plain")
        full = plain.losses
        runs = {"half": (half, None)}
        if task == "detection":
            runs |= {"amp": (SHARDED, amp), "both": (half, amp), "ddp": (None, amp)}
        for name, (wrapper, options) in runs.items():
            config = {"model_wrapper_cfg": wrapper}
            _, held = train(task, folder / f"{task}_{name}", config=config, options=options)
            assert held.losses != full, (task, name)
            for got, wanted in zip(held.losses, full, strict=True):
                assert abs(got - wanted) <= 0.1 * abs(wanted), (task, name, held.losses, full)
            assert all(v.dtype != torch.bfloat16 for v in held.states[-1].values()), (task, name)


_HEAD = {**FACES["head"], "sharded": True}
# Task, arguments of the wrapper, arguments of the model, message.
REFUSED = [
    ("faces", {}, {"head": _HEAD}, "head.weight is already sharded over ranks"),
    ("faces", {"mixed_precision": "fp16"}, {}, "mixed_precision is 'fp16'"),
    ("faces", {"shard": "backbone.layr1"}, {}, "no such module; nearest: 'backbone.layer1'"),
    ("segmentation", {"shard": ["decode_head"]}, {}, "names a FCNHead, which computes in its"),
]


def check_refused(folder):
    """What sharding cannot do."""
    for number, (task, arguments, model, expected) in enumerate(REFUSED):
        config = {"model_wrapper_cfg": {**SHARDED, **arguments}}
        with pytest.raises(ConfigError, match=expected):
            build_runner(task, folder / f"refused_{number}", config=config, **model)


def check_evaluation(folder, file):
    """Ranks that never trained evaluate the full weights of a checkpoint."""
    config = {"model_wrapper_cfg": SHARDED, "load_from": str(file)}
    runner, _ = build_runner("detection", folder / "evaluated", config=config)
    assert runner.val() == {"samples/count": BATCH * STEPS}
    saved = torch.load(file, weights_only=False)["state_dict"]
    close(Held.snapshot(runner), saved, "evaluated", 0)
    assert runner.model.is_sharded
