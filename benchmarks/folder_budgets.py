"""AP after so many CPU minutes of ``negvision train FOLDER --minutes N``, and from scratch.

Each run has one thread and one data set as a folder, and nothing else is given. "Minutes" are of a
machine that does nothing else; the CPU seconds of the whole process are recorded beside them. AP
is that of the best checkpoint on the split "val" (cards: ``test_id``), which it was chosen on, for
all alike. Runs that the file of results has are not repeated, so that the command can be stopped
and goes on when it is given again::

    NEGVISION_DATA=... python benchmarks/folder_budgets.py --minutes 3 5 10 --seeds 0 1 2

With ``--yolo PROGRAM``, the ``yolo`` of an environment of its own with ultralytics (AGPL-3.0), its
yolo11n is trained from scratch at the same size of images, for the same time. People usually start
it from weights of COCO, which cannot be had here.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import resource
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

from harness import RESULTS, arguments, write_results
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from training_runs import ROOT, markdown_table, summarize

from negvision.compat.patches import captured_pycocotools

# Folder below NEGVISION_DATA: annotations of train and val, and the side in pixels that `negvision
# train` chooses for it.
SETS = {"cards": ("train_id", "test_id", 256), "bccd": ("train", "val", 320)}
MODELS = {
    "Lite0, pretrained": ("--model", "atss-lite0"),
    "slim ResNet-18, from scratch": ("--model", "atss-r18"),
}
YOLO = "yolo11n of ultralytics, from scratch"


def make_folder(name: str, work: Path) -> Path:
    """The data set as a COCO folder of two splits, with links to the images."""
    source, folder = Path(os.environ["NEGVISION_DATA"]) / name, work / "data" / name
    for split, file in zip(("train", "valid"), SETS[name][:2], strict=True):
        (folder / split).mkdir(parents=True, exist_ok=True)
        content = json.loads((source / "annotations" / f"{file}.json").read_text())
        for image in content["images"]:
            photo = source / "images" / Path(image["file_name"]).name
            image["file_name"] = photo.name
            if not (folder / split / photo.name).exists():
                (folder / split / photo.name).symlink_to(photo.resolve())
        (folder / split / "_annotations.coco.json").write_text(json.dumps(content))
    return folder


def run(command: list, log: Path) -> tuple[float, float]:
    """Run a command with one thread; its seconds and CPU seconds."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with log.open("w") as output:
        done = subprocess.run(
            [str(part) for part in command], stdout=output, stderr=output, env=environment
        )
    elapsed, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"status {done.returncode}, see {log}")
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def train_ours(options: tuple[str, ...], folder: Path, minutes: float, seed: int, work: Path):
    """Train by ``negvision train``; AP, AP50 and the iterations of the best checkpoint."""
    command = [sys.executable, "-m", "negvision", "train", folder, "--minutes", minutes]
    spent = run([*command, "--seed", seed, "--work-dir", work, *options], work.with_suffix(".log"))
    found = re.findall(
        r"val  after (\d+) iterations  bbox_mAP ([\d.]+)  bbox_mAP_50 ([\d.]+)",
        work.with_suffix(".log").read_text(),
    )
    best = max(found, key=lambda one: float(one[1]))
    return spent, float(best[1]), float(best[2]), f"{found[-1][0]} iterations"


def train_yolo(yolo: Path, folder: Path, minutes: float, seed: int, work: Path):
    """Train yolo11n from scratch; as :func:`train_ours`, evaluated by pycocotools."""
    data = folder.parent / f"{folder.name}_yolo"
    if not data.exists():
        convert = [sys.executable, "-m", "negvision", "convert", folder, "--to", "yolo"]
        run([*convert, "--out", data], work.with_suffix(".log"))
    common = [f"imgsz={SETS[folder.name][2]}", "device=cpu"]
    common += [f"project={work.parent.resolve()}", "exist_ok=True"]
    train = ["model=yolo11n.yaml", f"data={data.resolve() / 'data.yaml'}", f"time={minutes / 60}"]
    train += [f"seed={seed}", "workers=0", "plots=False", f"name={work.name}"]
    spent = run([yolo, "detect", "train", *train, *common], work.with_suffix(".log"))
    best = work.resolve() / "weights" / "best.pt"
    test = [f"model={best}", f"data={data.resolve() / 'data.yaml'}", "save_json=True"]
    test += ["plots=False", "workers=0", f"name={work.name}_val"]
    run([yolo, "detect", "val", *test, *common], work.with_suffix(".val.log"))
    file = work.parent / f"{work.name}_val" / "predictions.json"
    ap, ap50 = evaluate(json.loads(file.read_text()), folder)
    epochs = len((work / "results.csv").read_text().splitlines()) - 1
    return spent, ap, ap50, f"{epochs} epochs"


def evaluate(predictions: list[dict], folder: Path) -> tuple[float, float]:
    """AP and AP50 of predictions whose images are named by their stems, classes from 1 on."""
    file = folder / "valid" / "_annotations.coco.json"
    content = json.loads(file.read_text())
    images = {Path(image["file_name"]).stem: image["id"] for image in content["images"]}
    classes = sorted(category["id"] for category in content["categories"])
    for one in predictions:
        one["image_id"] = images[str(one["image_id"])]
        one["category_id"] = classes[one["category_id"] - 1]
    with captured_pycocotools():
        truth = COCO(str(file))
        if not predictions:
            return 0.0, 0.0
        evaluator = COCOeval(truth, truth.loadRes(predictions), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return float(evaluator.stats[0]), float(evaluator.stats[1])


def main(args: Namespace) -> None:
    kinds = {**MODELS, **({YOLO: args.yolo} if args.yolo else {})}
    out = Path(args.out or RESULTS / "folder_budgets.json")
    runs: dict[str, list[dict]] = json.loads(out.read_text())["runs"] if out.is_file() else {}
    for seed, name, minutes, (kind, options) in itertools.product(
        args.seeds, args.sets, args.minutes, kinds.items()
    ):
        done = runs.setdefault(f"{name}, {minutes:g} min, {kind}", [])
        if any(one["seed"] == seed for one in done):
            continue
        stem = re.sub(r"\W+", "_", f"{name} {minutes:g}min {kind} seed{seed}")
        train = train_yolo if kind == YOLO else train_ours
        folder = make_folder(name, args.work_dir)
        spent, ap, ap50, length = train(options, folder, minutes, seed, args.work_dir / stem)
        one = {
            "seed": seed,
            "seconds": round(spent[0], 1),
            "cpu_seconds": round(spent[1], 1),
            "length": length,
            "val": {"AP": round(100 * ap, 2), "AP50": round(100 * ap50, 2)},
        }
        done.append(one)
        print(name, minutes, kind, one, flush=True)
        summary = {kind: summarize(entries, ["val"]) for kind, entries in runs.items()}
        write_results("folder_budgets", {"runs": runs, "summary": summary}, out)
    summary = {kind: summarize(entries, ["val"]) for kind, entries in runs.items() if entries}
    print(f"\n{markdown_table(summary, 'val', 'val, percent')}\n")


if __name__ == "__main__":
    parser = arguments(__doc__, "folder_budgets")
    parser.add_argument("--minutes", type=float, nargs="+", default=[3, 5, 10])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--yolo", type=Path, help="the program of ultralytics")
    parser.add_argument("--work-dir", type=Path, default=ROOT / "work_dirs" / "folder_budgets")
    main(parser.parse_args())
