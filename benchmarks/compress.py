"""What pruning costs a class, with and without its protection, and by torch-pruning alone.

- ``bccd``: ATSS on blood cells, platelets protected, at 50, 30 and 20 % of the operations.
- ``cifar10``: ResNet-20, cats protected, with 90 % of the weights 0.

For each seed an original is trained and compressed in these ways: ``protected`` with the ranking
loss in three rounds, ``unprotected`` without it, and for boxes ``plain``: all channels at once, and
as many iterations of training. No round stops early, so that all have the same size. Recall and
false negatives are those of the test set, which no round was chosen by, at the false positives of
the original, with 95 % intervals from resampled images; differences of the ways are those of the
means over the seeds, with intervals from images and seeds. Speed is that of the exported files.

Runs that the file of results has are not repeated, so that the command can be stopped and goes on
when it is given again::

    NEGVISION_DATA=... python benchmarks/compress.py --seeds 0 1 2
"""

from __future__ import annotations

import itertools
import json
import pickle
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

import numpy as np
from folder_budgets import run
from harness import RESULTS, arguments, write_results
from training_runs import ROOT

from negvision.benchmark.cost import cost_of_file
from negvision.bootstrap import Side, bootstrap, paired_difference
from negvision.engine.checkpoints.finding import find_model
from negvision.engine.prepare import prepare_config
from negvision.report.class_outcomes import Outcomes, figures_of, outcomes_of

# Config, protected class, option and values of the goal, iterations of the training and of a round.
SETS = {
    "bccd": ("configs/atss/bccd_atss.py", "Platelets", "--flops", (0.5, 0.3, 0.2), 600, 200),
    "cifar10": ("configs/abet/cifar10_plain.py", "cat", "--sparsity", (0.9,), None, 2000),
}
ROUNDS = 3
# A recall that stops no round.
ANY = "1e-9"


def ways(name: str, protected: str, iters: int) -> dict[str, list]:
    """The options of each way to compress."""
    rounds = ["--rounds", ROUNDS, "--iters", iters]
    found = {
        "protected": [*rounds, "--protect", f"{protected}={ANY}"],
        "unprotected": rounds,
    }
    if name == "bccd":
        found["plain"] = ["--rounds", 1, "--iters", ROUNDS * iters]
    return found


def train(name: str, seed: int, args: Namespace, length: int | None) -> Path:
    """The checkpoint of the original, which is trained once."""
    work = args.work_dir / f"{name}_seed{seed}"
    if not (work / "done").exists():
        options = [f"randomness.seed={seed}", *(args.cfg_options or ())]
        count = args.iters or length
        if count:
            options += [f"train_cfg.{key}={count}" for key in ("max_iters", "val_interval")]
        elif args.epochs:
            options += [f"train_cfg.{key}={args.epochs}" for key in ("max_epochs", "val_interval")]
            # As in the config, where 200 epochs have their steps after 100, 150 and 180.
            steps = [args.epochs * share // 20 for share in (10, 15, 18)]
            options.append(f"param_scheduler.0.milestones={steps}".replace(" ", ""))
        command = [sys.executable, "-m", "negvision", "train", ROOT / SETS[name][0]]
        run([*command, "--work-dir", work, "--cfg-options", *options], work.with_suffix(".log"))
        (work / "done").touch()
    return Path(find_model(str(work)))


def tested(file: Path) -> tuple[Outcomes, tuple[int, int]]:
    """What a checkpoint finds on the test set, and the size of its images; computed once."""
    kept = file.with_suffix(".outcomes.pkl")
    if not kept.exists():
        given = Namespace(
            config=str(file), cfg_options=None, work_dir=None, data_root=None, launcher="none",
            trust_checkpoint=False,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            kept.write_bytes(pickle.dumps(outcomes_of(prepare_config(given), file, Path(folder))))
    return pickle.loads(kept.read_bytes())


def measure(original: Path, small: Path, out: Path) -> dict:
    """Figures by class on the test set, and size and speed of the exported files."""
    found, costs = {}, {}
    for side, file in (("original", original), ("compressed", small)):
        found[side], size = tested(file)
        onnx = out / f"{side}.onnx"
        command = [sys.executable, "-m", "negvision", "export", file, "--out", onnx]
        run(command, onnx.with_suffix(".log"))
        cost = cost_of_file(onnx, lambda line: None, size=size)
        rate = cost.rows["onnxruntime"].images_per_s
        costs[side] = {"MB": onnx.stat().st_size / 1e6, "images_per_s": rate}
    classes = {side: figures_of(one, found["original"]) for side, one in found.items()}
    return {"classes": classes, "exported": costs}


def compare(pairs: dict[str, list[tuple[Path, Path]]], protected: str) -> dict:
    """What becomes of the protected class, means over seeds, by way.

    ``matched`` is the recall at the false positives of the original; ``own`` that of what the model
    itself decides, the most probable class or boxes from its threshold, and ``false`` the false
    positives of that, by objects. Differences of two ways have 95 % intervals.

    Args:
        pairs: Way -> the original and the compressed checkpoint of each seed.
        protected: Name of the class.
    """
    sides = {}
    for way, files in {"original": [(one, one) for one, _ in pairs["protected"]], **pairs}.items():
        trainings = []
        for original, file in files:
            before, now = tested(original)[0], tested(file)[0]
            place = list(now.classes).index(protected)
            own = np.where(now.shown & now.hit & (now.label == place), now.count, 0)

            def figures(weights, before=before, now=now, place=place, own=own) -> np.ndarray:
                total = weights @ now.objects[:, place]
                matched = now.figures(weights, before.false_positives(weights))[:, 0, place]
                false = now.false_positives(weights)[:, place] / total
                return np.stack([matched, (weights[:, now.image] * own).sum(1) / total, false], 1)

            images = len(now.objects)
            draws = bootstrap(figures, np.arange(images))
            trainings.append((figures(np.ones((1, images)))[0], draws))
        sides[way] = Side.of(trainings)
    names, found = ("matched", "own", "false"), {}
    for way, side in sides.items():
        found[way] = dict(zip(names, side.values.T.tolist(), strict=True))
        print(f"  {way}: {dict(zip(names, side.values.mean(0).round(3).tolist(), strict=True))}")
    for first, second in itertools.combinations(sides, 2):
        one = paired_difference(sides[second], sides[first], images)
        rows = np.stack([one.difference, one.low, one.high], 1)
        found[f"{first} - {second}"] = dict(zip(names, rows.tolist(), strict=True))
        print(f"  {first} - {second}: {rows.round(3).tolist()}")
    return found


def main(args: Namespace) -> None:
    out = Path(args.out or RESULTS / "compress.json")
    known = json.loads(out.read_text()) if out.is_file() else {}
    runs, compared = known.get("runs", {}), known.get("compared", {})
    given = {key: getattr(args, key) for key in ("iters", "epochs", "round_iters", "cfg_options")}
    settings = {key: value for key, value in given.items() if value}
    for seed, name in itertools.product(args.seeds, args.sets):
        _, protected, option, values, length, iters = SETS[name]
        original = train(name, seed, args, length)
        for value, (way, options) in itertools.product(
            args.values or values, ways(name, protected, args.round_iters or iters).items()
        ):
            done = runs.setdefault(f"{name}, {option} {value:g}, {way}", [])
            if before := [one["settings"] for one in done if one["seed"] == seed]:
                if before[0] != settings:
                    sys.exit(f"{out} has a run of {name} with {before[0]}: give another --out")
                continue
            work = args.work_dir / f"{name}_seed{seed}_{value:g}_{way}"
            command = [sys.executable, "-m", "negvision", "compress", original, option, value]
            resume = ["--resume"] if (work / "rounds.json").exists() else []
            command += ["--out", work, *options, *resume]
            run(command, work.parent / f"{work.name}.log")
            rounds = json.loads((work / "rounds.json").read_text())
            one = {
                "seed": seed,
                "settings": settings,
                "protected": protected,
                "original": {key: rounds["original"][key] for key in ("operations", "sparsity")},
                "compressed": {
                    key: rounds["rounds"][-1][key] for key in ("operations", "sparsity")
                },
                "test": measure(original, work / "compressed.pth", work),
            }
            done.append(one)
            print(line(name, f"{option} {value:g}", way, one), flush=True)
            write_results("compress", {"runs": runs, "compared": compared}, out)
    for name in args.sets:
        _, protected, option, values, _, iters = SETS[name]
        for value in args.values or values:
            pairs = {
                way: [
                    (
                        Path(find_model(str(args.work_dir / f"{name}_seed{seed}"))),
                        args.work_dir / f"{name}_seed{seed}_{value:g}_{way}" / "compressed.pth",
                    )
                    for seed in args.seeds
                ]
                for way in ways(name, protected, iters)
            }
            label = f"{name}, {option} {value:g}"
            print(f"{label}: recall of {protected}")
            compared[label] = compare(pairs, protected)
    write_results("compress", {"runs": runs, "compared": compared}, out)


def line(name: str, goal: str, way: str, one: dict) -> str:
    """A run in one line."""
    sides = one["test"]["classes"]
    recall, missed = (
        " to ".join(f"{sides[side][one['protected']][key][0]:.3g}" for side in sides)
        for key in ("recall", "missed")
    )
    exported = one["test"]["exported"]["compressed"]
    return (
        f"{name} {goal} {way}, seed {one['seed']}: {one['protected']} recall {recall}, missed "
        f"{missed}; {exported['MB']:.3g} MB, {exported['images_per_s']:.4g} images/s"
    )


if __name__ == "__main__":
    parser = arguments(__doc__, "compress")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--values", type=float, nargs="+", help="of the goal, instead of all")
    parser.add_argument("--iters", type=int, help="of a training of bccd, instead of 600")
    parser.add_argument("--epochs", type=int, help="of a training of cifar10")
    parser.add_argument("--round-iters", type=int, help="of a round")
    changes = "changes to the config of the originals, as for train"
    parser.add_argument("--cfg-options", nargs="+", metavar="KEY=VALUE", help=changes)
    parser.add_argument("--work-dir", type=Path, default=ROOT / "work_dirs" / "compress")
    main(parser.parse_args())
