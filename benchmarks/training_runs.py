"""Train configs with several seeds and tabulate their metrics; finished runs are not repeated."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness import arguments, write_results

ROOT = Path(__file__).resolve().parents[1]
Metrics = dict[str, dict[str, float]]


def tabulate(
    name: str,
    description: str | None,
    configs: Mapping[str, str],
    read: Callable[[Path], Metrics],
    format_run: Callable[[dict], str],
    splits: Sequence[str],
    test: bool,
) -> None:
    """Run what is missing, write ``name.json`` and print a table of the last of ``splits``.

    The other arguments are those of :func:`run_all`.
    """
    args = parser_for(name, description).parse_args()
    runs = run_all(configs, args, read, format_run, test)
    summary = {config: summarize(entries, splits) for config, entries in runs.items()}
    title = f"{splits[-1]}, percent, seeds: {len(args.seeds)}"
    print(f"\n{markdown_table(summary, splits[-1], title)}\n")
    payload = {"configs": configs, "cfg_options": args.cfg_options, "runs": runs}
    payload["summary"] = summary
    if len(args.seeds) > 1:
        payload["differences"] = apart = differences(runs, splits[-1])
        for pair, row in apart.items():
            shown = (
                f"{key} {mean:+.1f} ({low:.1f} to {high:.1f})"
                for key, (mean, low, high) in row.items()
            )
            print(f"{pair}: {', '.join(shown)}")
    write_results(name, payload, args.out)


def parser_for(name: str, description: str | None) -> argparse.ArgumentParser:
    """The options of a table of runs, which go to ``work_dirs/<name>``."""
    parser = arguments(description, name)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work-dir", type=Path, default=ROOT / "work_dirs" / name)
    parser.add_argument("--data-root", help="folder of the set, if not below NEGVISION_DATA")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], help="changes to all configs, as for train"
    )
    return parser


def run_all(
    configs: Mapping[str, str],
    args: argparse.Namespace,
    read: Callable[[Path], Metrics],
    format_run: Callable[[dict], str],
    test: bool,
) -> dict[str, list[dict]]:
    """Train every config with every seed; an interruption leaves whole seeds, which compare.

    Args:
        configs: A name to a config file.
        args: Of :func:`parser_for`.
        read: Metrics by split from the work dir of a run.
        format_run: One line about a run.
        test: Whether to test the last checkpoint on the config's test set as well.
    """
    runs: dict[str, list[dict]] = {name: [] for name in configs}
    for seed in args.seeds:
        for name, config in configs.items():
            runs[name].append(_run_once(config, seed, args, read, test))
            print(f"{name}, seed {seed}: {format_run(runs[name][-1])}", flush=True)
    return runs


def _run_once(config: str, seed: int, args, read, test: bool) -> dict:
    work = args.work_dir / f"{Path(config).stem}_seed{seed}"
    done = work / "figures.json"
    if done.is_file():
        figures = json.loads(done.read_text())
        options = figures.get("cfg_options", [])
        if options != args.cfg_options:
            sys.exit(
                f"{done} is of a run with {' '.join(options) or 'no changes to its config'}: give "
                "another --work-dir, or remove the file"
            )
        return figures
    common = [f"--data-root={args.data_root}"] if args.data_root else []
    options = ["--cfg-options", f"randomness.seed={seed}", *args.cfg_options]
    shutil.rmtree(work / "train", ignore_errors=True)  # what an interruption left
    start = time.perf_counter()
    call("tools/train.py", config, "--work-dir", work / "train", *common, *options)
    elapsed = time.perf_counter() - start
    if test:
        checkpoint = (work / "train" / "last_checkpoint").read_text().strip()
        call("tools/test.py", config, checkpoint, "--work-dir", work / "test", *common, *options)
    figures = {"seed": seed, "train_seconds": round(elapsed, 1), **read(work)}
    figures["cfg_options"] = args.cfg_options
    done.write_text(json.dumps(figures, indent=2))
    return figures


def call(script: str, *arguments) -> None:
    """Run a command of this repository; its output is shown only if it fails."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def last_evaluation(work: Path, pattern: str, key: str) -> dict[str, float]:
    """The last record with ``key`` in the logs ``*/pattern`` below ``work``."""
    logged = []
    for path in sorted(work.glob(f"*/{pattern}")):
        logged += [json.loads(line) for line in path.read_text().splitlines() if line]
    found = [entry for entry in logged if key in entry]
    if not found:
        sys.exit(f"no evaluation is logged below {work}")
    return found[-1]


def summarize(runs: Sequence[dict], splits: Sequence[str]) -> dict[str, dict]:
    """Mean and sample deviation over the seeds of each metric, by split."""
    result = {}
    for split in splits:
        columns = {name: [run[split][name] for run in runs] for name in runs[0][split]}
        result[split] = {
            name: {
                "mean": round(statistics.mean(values), 2),
                "std": round(statistics.stdev(values), 2) if len(values) > 1 else None,
            }
            for name, values in columns.items()
        }
    return result


def differences(runs: Mapping[str, Sequence[dict]], split: str) -> dict[str, dict]:
    """The mean of each config minus that of the first, with 95 % intervals of Welch's t-test.

    Returns:
        "config - first" -> metric -> (difference, low, high).
    """
    from scipy import stats

    (first, before), *others = runs.items()
    found = {}
    for name, after in others:
        rows = found[f"{name} - {first}"] = {}
        for key in before[0][split]:
            one, two = ([run[split][key] for run in entries] for entries in (after, before))
            low, high = stats.ttest_ind(one, two, equal_var=False).confidence_interval()
            mean = statistics.mean(one) - statistics.mean(two)
            rows[key] = [round(value, 2) for value in (mean, float(low), float(high))]
    return found


def markdown_table(summary: Mapping[str, dict], split: str, title: str) -> str:
    """One row per config: the metrics on a split, mean ± deviation."""
    names = list(next(iter(summary.values()))[split])
    lines = [f"| {title} | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for config, splits in summary.items():
        cells = []
        for name in names:
            mean, std = splits[split][name]["mean"], splits[split][name]["std"]
            cells.append(f"{mean:.1f}" + (f" ± {std:.1f}" if std is not None else ""))
        lines.append(f"| {config} | {' | '.join(cells)} |")
    return "\n".join(lines)
