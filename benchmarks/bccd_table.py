"""RetinaNet on blood cells with max-IoU and with ATSS: same network, budget, seeds and data.

Trains each config with each seed, tests the last checkpoint on the test split, writes
``benchmarks/results/bccd.json`` and prints a table. Finished runs in the work dir are not repeated,
so an interrupted benchmark can continue::

    NEGVISION_DATA=... python benchmarks/bccd_table.py --seeds 0 1 2
"""

from __future__ import annotations

import sys
from pathlib import Path

from harness import write_results
from training_runs import last_evaluation, markdown_table, parser_for, run_all, summarize

CONFIGS = {
    "RetinaNet, one anchor, max-IoU": "configs/atss/bccd_retinanet.py",
    "RetinaNet, one anchor, ATSS": "configs/atss/bccd_retinanet_atss.py",
}
METRICS = {"AP": "bbox_mAP", "AP50": "bbox_mAP_50", "AP75": "bbox_mAP_75"}
CLASSES = ("RBC", "WBC", "Platelets")


def main(argv: list[str] | None = None) -> int:
    """Run missing trainings, then write and print the results."""
    args = parser_for("bccd", __doc__).parse_args(argv)
    runs = run_all(CONFIGS, args, read_metrics, format_run, test=True)
    summary = {name: summarize(entries, ("val", "test")) for name, entries in runs.items()}
    path = write_results(
        "bccd",
        {"configs": CONFIGS, "cfg_options": args.cfg_options, "runs": runs, "summary": summary},
        path=args.out,
    )
    table = markdown_table(summary, "test", f"test split, seeds: {len(args.seeds)}")
    print(f"\n{table}\n\nwritten to {path}")
    return 0


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
    sys.exit(main())
