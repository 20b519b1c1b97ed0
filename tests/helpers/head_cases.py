import torch
from mmdet.registry import MODELS
from mmengine.structures import InstanceData

STRIDES = (8, 16, 32)
SIZE = (96, 128)
SHAPES = [(-(-SIZE[0] // s), -(-SIZE[1] // s)) for s in STRIDES]
CLASSES = 5
ASSIGNER = {"type": "negvision.ATSSAssigner", "topk": 9}
ANCHORS = {
    "type": "AnchorGenerator",
    "ratios": [1.0],
    "octave_base_scale": 4,
    "scales_per_octave": 1,
    "strides": list(STRIDES),
}
TEST = {
    "nms_pre": 100,
    "min_bbox_size": 0,
    "score_thr": 0.0,
    "nms": {"type": "nms", "iou_threshold": 0.6},
    "max_per_img": 50,
}


def dense_head(kind: str, std: float | None = None, train: dict | None = None, **options):
    """A head with weights from Normal(0, std), or its own initial ones; ``train`` for train_cfg."""
    torch.manual_seed(0)
    config = {
        "type": kind,
        "num_classes": CLASSES,
        "in_channels": 8,
        "feat_channels": 8,
        "stacked_convs": 1,
        "norm_cfg": None,
        "loss_cls": {"type": "FocalLoss", "use_sigmoid": True, "loss_weight": 1.0},
        "loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0},
        "train_cfg": {
            "assigner": ASSIGNER, "allowed_border": -1, "pos_weight": -1, **(train or {})
        },
    }  # fmt: skip
    if "FCOS" in kind:
        config["strides"] = list(STRIDES)
        config["regress_ranges"] = ((-1, 64), (64, 128), (128, 1e8))
    else:
        config["anchor_generator"] = ANCHORS
    model = MODELS.build({**config, **options})
    for parameter in model.parameters() if std else ():
        torch.nn.init.normal_(parameter, std=std)
    return model


def truth(generator: torch.Generator, count: int) -> InstanceData:
    """Random boxes within the image, of many sizes."""
    low = torch.rand(count, 2, generator=generator) * torch.tensor([90.0, 60.0])
    size = torch.rand(count, 2, generator=generator) ** 2 * 60 + 4
    return InstanceData(
        bboxes=torch.cat([low, low + size], 1),
        labels=torch.randint(CLASSES, (count,), generator=generator),
    )


def batch(seed: int, counts=(4, 0, 9)) -> tuple[list[InstanceData], list[dict]]:
    generator = torch.Generator().manual_seed(seed)
    metas = [{"img_shape": SIZE, "pad_shape": SIZE} for _ in counts]
    return [truth(generator, count) for count in counts], metas


def features(seed: int, images: int = 3, channels: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(images, channels, *shape, generator=generator) for shape in SHAPES]


def total(losses: dict) -> dict[str, torch.Tensor]:
    """Losses by name, those of the levels added up."""
    return {
        name: sum(value) if isinstance(value, list | tuple) else value
        for name, value in losses.items()
    }
