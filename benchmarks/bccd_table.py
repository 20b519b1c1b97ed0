"""RetinaNet on blood cells with max-IoU and with ATSS: same network, budget, seeds and data.

Trains each config with each seed, tests the last checkpoint on the test split, writes
``benchmarks/results/bccd.json`` and prints a table. Finished runs in the work dir are not repeated,
so an interrupted benchmark can continue::

    NEGVISION_DATA=... python benchmarks/bccd_table.py --seeds 0 1 2
"""

from __future__ import annotations

from pathlib import Path

from training_runs import last_evaluation, tabulate

CONFIGS = {
    "RetinaNet, one anchor, max-IoU": "configs/atss/bccd_retinanet.py",
    "RetinaNet, one anchor, ATSS": "configs/atss/bccd_retinanet_atss.py",
}
METRICS = {"AP": "bbox_mAP", "AP50": "bbox_mAP_50", "AP75": "bbox_mAP_75"}
CLASSES = ("RBC", "WBC", "Platelets")


def read_metrics(work: Path) -> dict[str, dict[str, float]]:
    """AP, AP50, AP75 and the AP of classes on val and test, in percent."""
    keys = METRICS | {f"AP {name}": f"bbox_mAP/{name}" for name in CLASSES}
    splits = {}
    for split, folder, pattern in (
        ("val", "train", "vis_data/scalars.json"),
        ("test", "test", "*.json"),
    ):
        found = last_evaluation(work / folder, pattern, "coco/bbox_mAP")
        splits[split] = {name: round(100 * found[f"coco/{key}"], 2) for name, key in keys.items()}
    return splits


def format_run(run: dict) -> str:
    """One line about a run."""
    figures = ", ".join(f"{name} {run['test'][name]:.1f}" for name in METRICS)
    return f"{figures} on test ({run['train_seconds']:.0f} s)"


if __name__ == "__main__":
    tabulate("bccd", __doc__, CONFIGS, read_metrics, format_run, ("val", "test"), test=True)
