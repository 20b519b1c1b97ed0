"""RetinaNet on blood cells with max-IoU and with ATSS: same network, budget, seeds and data.

Trains each config once a seed, one run after the other, tests the last checkpoint on the test
split, writes ``benchmarks/results/bccd.json`` and prints a table. A run whose figures stand in the
work dir already is not repeated, so that an interrupted benchmark goes on where it stopped::

    NEGVISION_DATA=... python benchmarks/bccd_table.py --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from harness import write_results

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = {
    "RetinaNet, one anchor, max-IoU": "configs/atss/bccd_retinanet.py",
    "RetinaNet, one anchor, ATSS": "configs/atss/bccd_retinanet_atss.py",
}
FIGURES = {"AP": "bbox_mAP", "AP50": "bbox_mAP_50", "AP75": "bbox_mAP_75"}
CLASSES = ("RBC", "WBC", "Platelets")


def main(argv: list[str] | None = None) -> int:
    """Run what is missing, then write and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work-dir", type=Path, default=ROOT / "work_dirs" / "bccd_table")
    parser.add_argument("--data-root", help="folder of the bccd set, if not below NEGVISION_DATA")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/bccd.json")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], help="changes to all configs, as of train"
    )
    args = parser.parse_args(argv)

    runs: dict[str, list[dict]] = {name: [] for name in CONFIGS}
    # Seeds outermost: whatever stops the benchmark leaves comparable runs behind.
    for seed in args.seeds:
        for name, config in CONFIGS.items():
            runs[name].append(run_once(config, seed, args))
            print(f"{name}, seed {seed}: {format_run(runs[name][-1])}", flush=True)
    summary = {name: summarise(entries) for name, entries in runs.items()}
    path = write_results(
        "bccd",
        {"configs": CONFIGS, "cfg_options": args.cfg_options, "runs": runs, "summary": summary},
        path=args.out,
    )
    print(f"\n{markdown_table(summary, len(args.seeds))}\n\nwritten to {path}")
    return 0


def run_once(config: str, seed: int, args: argparse.Namespace) -> dict:
    """Figures of one training on ``val`` and ``test``, from disk where they are known."""
    work = args.work_dir / f"{Path(config).stem}_seed{seed}"
    done = work / "figures.json"
    if done.is_file():
        return json.loads(done.read_text())
    common = [f"--data-root={args.data_root}"] if args.data_root else []
    options = ["--cfg-options", f"randomness.seed={seed}", *args.cfg_options]
    start = time.perf_counter()
    call("tools/train.py", config, "--work-dir", work / "train", *common, *options)
    elapsed = time.perf_counter() - start
    checkpoint = (work / "train" / "last_checkpoint").read_text().strip()
    call("tools/test.py", config, checkpoint, "--work-dir", work / "test", *common, *options)
    figures = {
        "seed": seed,
        "train_seconds": round(elapsed, 1),
        "val": read_figures(work / "train", "vis_data/scalars.json"),
        "test": read_figures(work / "test", "*.json"),
    }
    done.write_text(json.dumps(figures, indent=2))
    return figures


def call(script: str, *arguments) -> None:
    """Run a command of this repository; what it printed is shown if it fails."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def read_figures(work: Path, pattern: str) -> dict[str, float]:
    """The last evaluation that a run logged, in percent: AP, AP50, AP75 and the AP of classes."""
    logged = []
    for path in sorted(work.glob(f"*/{pattern}")):
        logged += [json.loads(line) for line in path.read_text().splitlines() if line]
    found = [entry for entry in logged if "coco/bbox_mAP" in entry]
    if not found:
        sys.exit(f"no evaluation is logged below {work}")
    keys = FIGURES | {f"AP {name}": f"bbox_mAP/{name}" for name in CLASSES}
    return {name: round(100 * found[-1][f"coco/{key}"], 2) for name, key in keys.items()}


def summarise(runs: list[dict]) -> dict[str, dict]:
    """Mean and sample deviation over the seeds for each split and figure."""
    result = {}
    for split in ("val", "test"):
        columns = {name: [run[split][name] for run in runs] for name in runs[0][split]}
        result[split] = {
            name: {
                "mean": round(statistics.mean(values), 2),
                "std": round(statistics.stdev(values), 2) if len(values) > 1 else None,
            }
            for name, values in columns.items()
        }
    return result


def markdown_table(summary: dict[str, dict], seeds: int) -> str:
    """One row a config: the figures on the test split, in percent, mean ± deviation."""
    names = list(next(iter(summary.values()))["test"])
    lines = [
        f"| test split, seeds: {seeds} | {' | '.join(names)} |",
        f"| --- |{' --- |' * len(names)}",
    ]
    for config, splits in summary.items():
        cells = []
        for name in names:
            mean, std = splits["test"][name]["mean"], splits["test"][name]["std"]
            cells.append(f"{mean:.1f}" + (f" ± {std:.1f}" if std is not None else ""))
        lines.append(f"| {config} | {' | '.join(cells)} |")
    return "\n".join(lines)


def format_run(run: dict) -> str:
    """One line about a run."""
    figures = ", ".join(f"{name} {run['test'][name]:.1f}" for name in FIGURES)
    return f"{figures} on test ({run['train_seconds']:.0f} s)"


if __name__ == "__main__":
    sys.exit(main())
