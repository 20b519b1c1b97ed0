"""How well ``negvision audit`` finds wrong labels, by method, beside cleanlab's scores.

Errors are planted in a share of the training labels, of all ``--kinds`` at once, as real labels
have them: a third of the errors are boxes ``missing``, of another ``class``, at a shifted
``location``; for CIFAR-10 another class of the ``image``, for LFW another ``identity``. At random,
of the smallest third of the boxes (``--by size``), or of the most frequent class (``--by class``).
A recipe trains on them. Then average precision and precision at k of the scores of each kind, by
method: ``model``, ``history``, ``folds`` with ``--folds K``. ``--cleanlab PYTHON`` scores the same
predictions with cleanlab in that interpreter, by the best of its thresholds or methods. Means over
the seeds and differences from cleanlab have 95 % intervals from images and seeds.

``--fuller`` plants nothing: detectors of blood cells train on BCCD's own labels of the images that
other people labeled anew; a suspect is right if it is a box of the fuller labels that BCCD lacks.
``--data cifar --noise aggregate`` (or ``human1``) takes the labels that people gave in CIFAR-10N.

Finished trainings in the work dir are not repeated, and settings that the file of results has are
kept in it::

    NEGVISION_DATA=... python benchmarks/audit.py --data bccd cards --shares 0.05 0.3 --seeds 0 1
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from audit_parts import Figures, by_cleanlab, measure, plant, summary, table, table_of
from harness import RESULTS, arguments, write_results
from negatives import DATA, call, missing, read, write_split
from training_runs import ROOT

from negvision.audit.boxes import BoxSubject, BoxTable
from negvision.audit.data import Audited, find_leaf, open_data
from negvision.audit.run import findings_of, predict_folds, read_history, train_folds
from negvision.audit.subject import Audit, Findings, by_history
from negvision.benchmark.memory import peak_resident, resident
from negvision.data.sample_history import SampleHistory
from negvision.data.suspects import Suspects
from negvision.engine.config.reading import load_config
from negvision.inference.inferencer import Inferencer

KINDS = {
    **dict.fromkeys(("bccd", "cards", "coco128"), ("missing", "class", "location")),
    "cifar": ("image",),
    "lfw112": ("identity",),
}
# Name -> annotation files of train and val, and their folders of images.
BOXES = {
    # The fuller labels: BCCD's own lack half of the red cells, more than is planted.
    "bccd": (("bccd/train_fuller", "bccd/images"), ("bccd/val_fuller", "bccd/images")),
    "cards": (("cards/train_id", "cards/images"), ("cards/test_id", "cards/images")),
    "coco128": (
        ("coco128/instances_train", "coco128/train"),
        ("coco128/instances_val", "coco128/val"),
    ),
}


def write_folders(args, name: str, share: float, seed: int, folder: Path) -> None:
    """A folder of images for each class or person, with some in that of another.

    The true class is the first part of a file's name.
    """
    random, items = np.random.default_rng(seed), []
    if name == "cifar":
        pack = np.load(DATA / "cifar" / "cifar10_train.npz")
        data, ends, labels = (pack[key] for key in ("data", "offsets", "labels"))
        truth = labels[: args.images]
        items = [data[ends[row] : ends[row + 1]].tobytes() for row in range(args.images)]
        names = [str(one) for one in pack["classes"]]
    else:
        lines = (DATA / "lfw112" / "train.txt").read_text().split("\n")
        rows = [line.rsplit(maxsplit=1) for line in lines if line.strip()][: args.images]
        truth = np.array([int(label) for _, label in rows])
        items = [(DATA / "lfw112" / path).read_bytes() for path, _ in rows]
        names = [f"person{label}" for label in range(truth.max() + 1)]
    given = truth.copy()
    if args.noise:
        given = np.load(DATA / "cifar" / "cifar10n_labels.npz")[args.noise][: len(truth)]
    else:
        rows = random.choice(len(truth), round(share * len(truth)), replace=False)
        given[rows] = (given[rows] + random.integers(1, len(names), len(rows))) % len(names)
    for number, (item, right, label) in enumerate(zip(items, truth, given, strict=True)):
        (folder / names[label]).mkdir(parents=True, exist_ok=True)
        (folder / names[label] / f"{names[right]}__{number}.jpg").write_bytes(item)


def subjects(args, run: Path) -> dict[str, tuple[Audited, list[Findings]]]:
    """Method -> the data set and its findings."""
    cfg = load_config(str(run / "config.py"))
    cfg.work_dir = str(run)
    model = Inferencer(run)
    leaf = find_leaf(cfg, None, run / "audit", model.task)
    scope = cfg.get("default_scope") or "mmengine"
    data = open_data(leaf, scope, model)
    data.predict(model, range(len(data.predictions)))
    found = {"model": (data, findings_of(data, None))}
    if (history := read_history(run, data, cfg)) is not None:
        found["history"] = (data, findings_of(data, history))
    if args.folds and model.task != "face":
        from negvision.cli.audit import _train

        parts = open_data(leaf, scope, model)
        runs = train_folds(cfg, parts, leaf, args.folds, run / "audit" / "folds", _train)
        predict_folds(parts, runs, iter)
        found["folds"] = (parts, findings_of(parts, None))
    return found


def one_run(
    args, name: str, kinds: Sequence[str], share: float, seed: int
) -> tuple[dict[str, dict[str, Figures]], int]:
    """Plant, train, and measure: kind -> method -> figures, and the number of images."""
    label = "fuller" if args.fuller else args.noise or f"{'_'.join(kinds)}_{share:g}_{args.by}"
    folder = args.work_dir / name / label / f"seed{seed}"
    data, run = folder / "data", folder / "run"
    planted: dict[str, BoxTable] = {}
    if name in BOXES:
        (train_file, photos), (val_file, others) = BOXES[name]
        content = read(train_file)
        if args.fuller:
            fuller, content, val_file = content, read("bccd/train"), "bccd/val"
            shown = {one["id"] for one in fuller["images"]}
            for key, of in (("images", "id"), ("annotations", "image_id")):
                content[key] = [one for one in content[key] if one[of] in shown]
            omitted = {**fuller, "images": content["images"]}
            rows = missing(content, fuller)
            planted = {"missing": table_of({**omitted, "annotations": rows})}
        else:
            content, planted = plant(content, kinds, share, args.by, seed)
        places = {Path(one["file_name"]).name: place for place, one in enumerate(content["images"])}
        write_split(data, "train", content, DATA / photos)
        write_split(data, "valid", read(val_file), DATA / others)
    elif not data.is_dir():
        write_folders(args, name, share, seed, data)
    if not (run / f"iter_{args.iters}.pth").is_file():
        shutil.rmtree(run, ignore_errors=True)  # what an interruption left
        task = ["--task", "faces"] if name == "lfw112" else []
        task += ["--model", args.model] if name in BOXES else []
        # What is planted would decide between 320 and 640.
        task += ["--imgsz", 320] if name == "coco128" else []
        length = ["--iters", args.iters, "--patience", 0, "--seed", seed]
        call(folder / "init.log", "init", data, "--work-dir", run, *length, *task)
        with open(run / "config.py", "a", encoding="utf-8") as config:
            if name in BOXES:  # validation chooses the checkpoint; the usual ten take longer
                config.write(f'\ntrain_cfg["val_interval"] = {args.iters // 3}\n')
        amp = ["--amp", "bf16"] if args.amp else []
        call(folder / "train.log", "train", run / "config.py", "--work-dir", run, "--history", *amp)
    found: dict[str, dict[str, Figures]] = {kind: {} for kind in kinds}
    for (method, (audited, findings)), kind in product(subjects(args, run).items(), kinds):
        subject, images = audited.subject(), len(audited.names)
        methods = {method: [next(one for one in findings if one.kind == kind)]}
        if args.cleanlab and method != "history" and kind != "identity":
            methods[f"cleanlab on {method}"] = by_cleanlab(args.cleanlab, subject, kind)

        def figures(scored: Findings, audited=audited, subject=subject, kind=kind) -> Figures:
            if planted:
                # The recipe orders the images anew.
                at = {places[Path(one).name]: place for place, one in enumerate(audited.names)}
                moved = np.array([at[place] for place in planted[kind].image.tolist()], np.int64)
                here = replace(planted[kind], image=moved).rows(np.argsort(moved, kind="stable"))
                return measure(subject, scored, here)
            names = [Path(one) for one in audited.names]
            wrong = np.array([one.name.partition("__")[0] != one.parent.name for one in names])
            rows, none = np.arange(len(names)), np.zeros(0, np.int64)
            return Figures.of(scored.scores, wrong, rows, none, len(names))

        for title, scored in methods.items():
            # The best of cleanlab's, by what was planted: more than a user could do.
            found[kind][title] = max(map(figures, scored), key=lambda one: one.values[0])
            shown = found[kind][title].shown()
            print(f"{name} {label} seed {seed}, {kind}, {title}: {shown}", flush=True)
    return found, images


def speed(images: int = 5000, objects: int = 36_000, each: int = 100) -> dict[str, float]:
    """CPU seconds and MiB of an audit of a set of COCO's size, with made-up boxes and a history."""
    random = np.random.default_rng(0)

    def table(count: int, **columns) -> BoxTable:
        low = random.uniform(0, 560, (count, 2))
        box = np.concatenate([low, low + random.uniform(10, 200, (count, 2))], 1)
        place, label = random.integers(0, images, count), random.integers(0, 80, count)
        return BoxTable.of(place, label, box, **columns)

    truth = table(objects)
    near = truth.box + random.normal(0, 3, truth.box.shape)
    found = BoxTable.of(truth.image, truth.label, near, random.random(objects))
    found = found.joined(table(images * each, score=random.random(images * each) ** 3))
    ids = np.tile(np.arange(objects), 12)
    losses = {"annotation": ids, "epoch": np.repeat(np.arange(12), objects)}
    losses["loss"] = random.exponential(1, len(ids))
    history = SampleHistory.of("detection", "", (), **losses)
    names = [f"{place}.jpg" for place in range(images)]
    classes = [f"class {label}" for label in range(80)]

    def work() -> int:
        subject = BoxSubject(truth, found, classes, names, range(images), range(objects))
        parts = list(subject.findings())
        parts[1] = by_history(parts[1], history, classes)
        audited = Audit.of(parts)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "suspects.json")
            Suspects.of(audited.suspects, "", classes, "history").save(path)
        return len(audited.suspects)

    before, begin = resident(), time.process_time()
    peak = peak_resident(work) - before
    result = {"CPU seconds": time.process_time() - begin, "MiB": peak / 2**20}
    print(result)
    return result


def main(given: Sequence[str] | None = None) -> int:
    """Run what is asked for and write the results; 0."""
    parser = arguments(__doc__, "audit")
    parser.add_argument("--data", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--kinds", nargs="+", help="default: all of the data set")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.1, 0.3])
    parser.add_argument("--by", choices=["random", "size", "class"], default="random")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iters", type=int, default=300)
    parser.add_argument("--model", default="atss-lite0", help="of boxes")
    parser.add_argument("--amp", action="store_true", help="train in bfloat16")
    parser.add_argument("--images", type=int, default=5000, help="of CIFAR-10 and LFW")
    parser.add_argument("--folds", type=int)
    parser.add_argument("--noise", choices=["aggregate", "human1"], help="of CIFAR-10N")
    parser.add_argument("--fuller", action="store_true", help="real omissions of BCCD")
    parser.add_argument("--cleanlab", metavar="PYTHON", help="interpreter that has cleanlab")
    parser.add_argument("--work-dir", type=Path, default=ROOT / "work_dirs" / "audit")
    parser.add_argument("--speed", action="store_true", help="of 5,000 images, and nothing else")
    args = parser.parse_args(given)
    args.work_dir = args.work_dir.absolute()
    if args.speed:
        write_results("audit_speed", speed(), args.out)
        return 0
    if args.fuller:
        args.data, args.kinds, args.shares = ["bccd"], ["missing"], [0.0]
    if args.noise:
        args.data, args.shares = ["cifar"], [0.0]
    out = Path(args.out or RESULTS / "audit.json")
    settings = json.loads(out.read_text())["settings"] if out.is_file() else {}
    for name, share in product(args.data, args.shares):
        if not (kinds := [one for one in KINDS[name] if one in (args.kinds or KINDS[name])]):
            continue
        runs = [one_run(args, name, kinds, share, seed) for seed in args.seeds]
        planted = "" if args.noise or args.fuller else f" {share:g} by {args.by}"
        what = args.noise or ("fuller" if args.fuller else " ".join(kinds))
        settings[f"{name}, {what}{planted}"] = {
            "seeds": args.seeds,
            "iters": args.iters,
            **({"model": args.model} if name in BOXES else {}),
            "amp": args.amp,
            "images": runs[0][1],
            **{kind: summary([found[kind] for found, _ in runs], runs[0][1]) for kind in kinds},
        }
        write_results("audit", {"settings": settings}, out)
    print(f"\n{table(settings)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
