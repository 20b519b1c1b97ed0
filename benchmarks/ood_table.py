"""Trainings of AbeT and plain networks with the same budget on real data, and their OOD metrics.

``cards``: Faster R-CNN on playing cards, queen and ten held out; ``cards_lite0``: the same from
weights of ImageNet. ``camvid``: DeepLabV3+ on street
scenes, pedestrian and bicyclist held out. ``cifar``: ResNet-20 on CIFAR-10. Trains each config with
each seed, writes ``benchmarks/results/ood_<set>.json`` and prints a table of all scores with
intervals by bootstrap over images. Finished runs in the work dir are not repeated::

    NEGVISION_DATA=... python benchmarks/ood_table.py cards --seeds 0 1 2
"""

from __future__ import annotations

import functools
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import write_results
from training_runs import last_evaluation, parser_for, run_all

from negvision.ood import SCORE_NAMES
from negvision.ood.metrics import METRIC_NAMES, METRIC_TITLES
from negvision.ood.records import OODRecords, evaluate_records

SETS = {
    "cards": {
        "Faster R-CNN": "configs/abet/cards_faster_rcnn.py",
        "Faster R-CNN, AbeT": "configs/abet/cards_abet.py",
    },
    "cards_lite0": {
        "Faster R-CNN": "configs/abet/cards_faster_rcnn_lite0.py",
        "Faster R-CNN, AbeT": "configs/abet/cards_abet_lite0.py",
    },
    "camvid": {
        "DeepLabV3+": "configs/abet/camvid_deeplabv3plus.py",
        "DeepLabV3+, AbeT": "configs/abet/camvid_abet.py",
    },
    "cifar": {
        "ResNet-20, AbeT": "configs/abet/cifar10_abet.py",
        "ResNet-20": "configs/abet/cifar10_plain.py",
        "ResNet-20, AbeT, inner products": "configs/abet/cifar10_abet_inner.py",
    },
}
# The metric of the in-distribution classes by task.
ID_METRICS = {"id_ap": "ID AP", "mIoU": "ID mIoU", "accuracy": "ID accuracy"}


def main() -> None:
    """Run missing trainings, then write and print the results."""
    argv = sys.argv[1:]
    if not argv or argv[0] not in SETS:
        sys.exit(f"{__doc__}\nname a set: {', '.join(SETS)}")
    name = argv[0]
    args = parser_for(f"ood_{name}", __doc__).parse_args(argv[1:])
    # The full test set is too large for each evaluation, so the last checkpoint is tested on it.
    test = name == "cifar"
    read = functools.partial(read_metrics, "test" if test else "train")
    runs = run_all(SETS[name], args, read, format_run, test=test)
    print(f"\n{table(runs)}\n")
    payload = {"configs": SETS[name], "cfg_options": args.cfg_options, "runs": runs}
    write_results(f"ood_{name}", payload, args.out)


def read_metrics(command: str, work: Path) -> dict[str, dict]:
    """Metrics of the last evaluation by train or test, and the intervals of each score."""
    pattern = "vis_data/scalars.json" if command == "train" else "[0-9]*.json"
    found = last_evaluation(work / command, pattern, "ood/auroc")
    files = sorted((work / command).rglob("ood_scores.npz"), key=lambda path: path.stat().st_mtime)
    evaluation = evaluate_records(OODRecords.load(files[-1]))
    return {
        "figures": {
            key.removeprefix("ood/"): value
            for key, value in found.items()
            if key.startswith("ood/") and isinstance(value, int | float)
        },
        "own_score": next(iter(evaluation.by_score)),
        "intervals": {score: dict(m.intervals) for score, m in evaluation.by_score.items()},
    }


def format_run(run: dict) -> str:
    """One line about a run."""
    figures = run["figures"]
    shown = ", ".join(f"{METRIC_TITLES[key]} {100 * figures[key]:.1f}" for key in METRIC_NAMES)
    return f"{run['own_score']}: {shown} ({run['train_seconds']:.0f} s)"


def table(runs: dict[str, Sequence[dict]]) -> str:
    """Percent: one row per network and score, then one per OOD set if there are several.

    Cells are means over the seeds, with the interval of the first seed over all OOD samples.
    """
    some = next(iter(runs.values()))[0]
    known = next(key for key in ID_METRICS if key in some["figures"])
    heads = " | ".join(METRIC_TITLES.values())
    lines = [
        f"| network | {ID_METRICS[known]} | score | {heads} |",
        "| --- | --- | --- |" + " --- |" * len(METRIC_NAMES),
    ]
    for network, seeds in runs.items():
        for score in seeds[0]["intervals"]:
            cells = []
            for key in METRIC_NAMES:
                low, high = (100 * end for end in seeds[0]["intervals"][score][key])
                cells.append(f"{_mean(seeds, score, key)} ({low:.0f} to {high:.0f})")
            id_cell = f"{100 * statistics.mean(run['figures'][known] for run in seeds):.1f}"
            lines.append(f"| {network} | {id_cell} | {score} | {' | '.join(cells)} |")
    # `msp/auroc` is of a score, `cifar100/auroc` of an OOD set.
    firsts = {key.split("/")[0] for key in some["figures"] if "/" in key}
    sources = sorted(firsts - set(SCORE_NAMES))
    if sources:
        lines += ["", f"| network | score | OOD set | {heads} |"]
        lines.append("| --- | --- | --- |" + " --- |" * len(METRIC_NAMES))
    for network, seeds in runs.items():
        for score in seeds[0]["intervals"]:
            for source in sources:
                cells = [_mean(seeds, score, key, f"{source}/") for key in METRIC_NAMES]
                lines.append(f"| {network} | {score} | {source} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(seeds: Sequence[dict], score: str, key: str, source: str = "") -> str:
    own = "" if score == seeds[0]["own_score"] else f"{score}/"
    mean = statistics.mean(run["figures"][source + own + key] for run in seeds)
    return f"{100 * mean:.1f}"


if __name__ == "__main__":
    main()
