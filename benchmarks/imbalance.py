"""Cross-entropy, focal loss and the self-adjusting Dice loss where one class is rare.

- ``bccd``: ATSS on blood cells from scratch; platelets are 7 % of the boxes. AP on the test set.
- ``camvid``: DeepLabV3+ on streets, all 11 classes, from weights of ImageNet; bicyclists and signs
  are 0.4 and 1 % of the pixels. IoU on the test set, and AP of pixels by their probability.

Dice is that with ``alpha=0``, and self-adjusting Dice that with ``alpha=1``, over a batch.

The same network, budget, learning rate and seeds; only the loss of the classes differs. The last
checkpoint counts. Finished runs in the work dir are not repeated, so that the command can be
stopped and goes on when it is given again::

    NEGVISION_DATA=... python benchmarks/imbalance.py bccd --seeds 0 1 2
    NEGVISION_DATA=... python benchmarks/imbalance.py camvid --seeds 0 1 2
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from training_runs import ROOT, last_evaluation, tabulate

CLASSES = {
    "bccd": ("RBC", "WBC", "Platelets"),
    "camvid": ("bicyclist", "sign_symbol", "pedestrian", "pole"),
}
DICE = 'dict(_delete_=True, type="negvision.SelfAdjustingDiceLoss"'
LOSSES = {
    "bccd": {
        "cross-entropy": 'dict(_delete_=True, type="CrossEntropyLoss", use_sigmoid=True)',
        "focal": "dict()",
        "Dice": f"{DICE}, use_sigmoid=True, alpha=0.0)",
        "self-adjusting Dice": f"{DICE}, use_sigmoid=True, alpha=1.0)",
    },
    "camvid": {
        "cross-entropy": "dict()",
        "focal": 'dict(_delete_=True, type="negvision.PixelFocalLoss")',
        "Dice": f"{DICE}, alpha=0.0)",
        "self-adjusting Dice": f"{DICE}, alpha=1.0)",
    },
}
CONFIG = {
    "bccd": """
_base_ = "{root}/configs/atss/bccd_atss.py"
model = dict(bbox_head=dict(loss_cls={loss}))
""",
    "camvid": """
_base_ = [
    "{root}/configs/_base_/models/deeplabv3plus_lite0.py",
    "{root}/configs/_base_/datasets/camvid_ood_segmentation.py",
    "{root}/configs/_base_/schedules/schedule_finetune.py",
    "{root}/configs/_base_/segmentation_slim_runtime.py",
]
custom_imports = dict(imports=["imbalance_parts"])
classes = tuple(
    "sky building pole road pavement tree sign_symbol fence car pedestrian bicyclist".split()
)
known = dict(metainfo=dict(classes=classes))
model = dict(decode_head=dict(num_classes=11, loss_decode={loss}))
# At full size, unlike the other configs: the rare classes are small and thin.
train_pipeline, test_pipeline = (
    [
        dict(step, scale=(480, 360)) if "scale" in step else step
        for step in steps
        if step["type"] != "negvision.LoadOODMap"
    ]
    for steps in (_base_.train_pipeline, _base_.test_pipeline)
)
train_dataloader = dict(dataset=dict(**known, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**known, pipeline=test_pipeline))
test_dataloader = dict(
    dataset=dict(
        **known,
        pipeline=test_pipeline,
        data_prefix=dict(img_path="img/test", seg_map_path="ann/test"),
    )
)
val_evaluator = dict(_delete_=True, type="negvision.IoUMetric", iou_metrics=["mIoU"])
test_evaluator = [val_evaluator, dict(type="negvision.PixelAP", sigmoid={sigmoid})]
default_hooks = dict(visualization=dict(_delete_=True, type="SegVisualizationHook"))
""",
}


def write_configs(name: str, folder: Path) -> dict[str, str]:
    """A config file for each loss."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for kind, loss in LOSSES[name].items():
        path = folder / f"{name}_{re.sub('[- ]', '_', kind).lower()}.py"
        sigmoid = name == "camvid" and kind == "focal"
        path.write_text(CONFIG[name].format(root=ROOT, loss=loss, sigmoid=sigmoid))
        found[kind] = str(path.relative_to(ROOT))
    return found


def boxes(work: Path) -> dict[str, dict[str, float]]:
    """AP, AP50 and the AP of classes on the test set, in percent."""
    keys = {"AP": "bbox_mAP", "AP50": "bbox_mAP_50"}
    keys |= {f"AP {name}": f"bbox_mAP/{name}" for name in CLASSES["bccd"]}
    found = last_evaluation(work / "test", "*.json", "coco/bbox_mAP")
    return {"test": {name: round(100 * found[f"coco/{key}"], 2) for name, key in keys.items()}}


def pixels(work: Path) -> dict[str, dict[str, float]]:
    """Mean IoU, and IoU and AP of classes on the test set, in percent, from log and table."""
    found = last_evaluation(work / "test", "*.json", "mIoU")
    log = max((work / "test").rglob("*.log"), key=lambda path: path.stat().st_mtime).read_text()
    rows = dict(re.findall(r"\| +(\w+) +\| +([\d.]+) +\|", log))
    columns = {f"IoU {name}": float(rows[name]) for name in CLASSES["camvid"]}
    columns |= {f"AP {name}": round(found[f"AP/{name}"], 2) for name in CLASSES["camvid"]}
    return {"test": {"mIoU": round(found["mIoU"], 2), **columns}}


def format_run(run: dict) -> str:
    """One line about a run."""
    figures = ", ".join(f"{name} {value:.1f}" for name, value in run["test"].items())
    return f"{figures} ({run['train_seconds']:.0f} s)"


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in CONFIG:
        sys.exit(f"{__doc__}\nname a set: {', '.join(CONFIG)}")
    which = sys.argv.pop(1)
    # Where trainings find the parts that are no part of negvision.
    folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    tabulate(
        f"imbalance_{which}", __doc__, write_configs(which, ROOT / "work_dirs/imbalance/configs"),
        {"bccd": boxes, "camvid": pixels}[which], format_run, ("test",), test=True,
    )  # fmt: skip
