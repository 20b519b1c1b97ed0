"""What false negatives and background images cost, and what is gained by not believing them.

``--part omissions``: detectors of blood cells on the 124 images of BCCD that other people labeled
anew, much more fully, evaluated on the fuller labels of 57 others. They train on BCCD's own labels
(``own``) and on the fuller ones of which a share is dropped at random: ``plain``; with suspects of
``negvision audit`` on that training (``audited``); with all omissions known to be suspects
(``known``), which is what ignoring can give at most; with ``--soft-negatives`` (``soft``); with a
coupled model of what people leave out (``coupled``, ``coupled_negatives.py``). The ``ceiling``
trains on the fuller labels.

``--part shares``: detectors of cards, on photographs of streets without a card (CamVid) too: AP and
false positives per image at recall 0.8, by the share of street images in a batch, and with as many
hard ones as ``negvision mine-negatives`` finds by the training without any, or random ones.

All runs have the same number of iterations. Validation chooses the best checkpoint, for all alike.
Finished runs in the work dir are not repeated::

    NEGVISION_DATA=... python benchmarks/negatives.py --part omissions --seeds 0 1 2
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import arguments, write_results
from training_runs import ROOT, last_evaluation, markdown_table, summarize

from negvision.data.suspects import Suspect, Suspects

DATA = Path(os.environ.get("NEGVISION_DATA", "data"))
# Of each part: name -> key of the metric, and factor.
METRICS = {
    "omissions": {
        "AP": ("bbox_mAP", 100),
        "AP50": ("bbox_mAP_50", 100),
        "AR": ("bbox_AR@100", 100),
        "AP of RBC": ("bbox_mAP/RBC", 100),
    },
    "shares": {
        "AP": ("bbox_mAP", 100),
        "FP per 100 images at recall 0.5": ("bbox_fppi@0.5", 100),
        "FP per 100 images at recall 0.8": ("bbox_fppi@0.8", 100),
    },
}
COUPLED = """
custom_imports = dict(imports=["coupled_negatives"])
custom_hooks = [*custom_hooks, dict(type="CoupledNegatives")]
"""
# Street images that are mined, and that random ones are compared with.
_MINED = 100


def read(name: str) -> dict:
    """An annotation file of the data pack."""
    path, _, file = name.rpartition("/")
    return json.loads((DATA / path / "annotations" / f"{file}.json").read_text())


def write_split(folder: Path, split: str, content: Mapping, *places: Path) -> None:
    """A split of a COCO folder, with links to images that lie in one of ``places``."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    images = [{**image, "file_name": Path(image["file_name"]).name} for image in content["images"]]
    for image in images:
        link = folder / split / image["file_name"]
        if not link.exists():
            found = (place / image["file_name"] for place in places)
            link.symlink_to(next(path for path in found if path.is_file()).resolve())
    written = json.dumps({**content, "images": images})
    (folder / split / "_annotations.coco.json").write_text(written)


def call(log: Path, *command) -> None:
    """Run a command of negvision; its output goes to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        command = [sys.executable, "-m", "negvision", *map(str, command)]
        paths = [str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{log.read_text()[-4000:]}")


def settings_of(args) -> dict:
    """What all runs of a table have in common."""
    return {"iters": args.iters, "model": args.model, "amp": args.amp}


def train(args, data: Path, work: Path, seed: int, *options, config: str = "") -> dict:
    """Train, test, and return the metrics; a finished run is read.

    With ``config``, lines of a config that are added to the one that ``negvision init`` writes.
    """
    done = work / "figures.json"
    if not done.is_file():
        length = ["--iters", args.iters, "--patience", 0, "--seed", seed, "--model", args.model]
        source, more = data, [*length, *options]
        if config:
            shutil.rmtree(work, ignore_errors=True)  # what an interruption left
            call(work / "init.log", "init", data, "--work-dir", work / "init", *length, *options)
            [source], more = (work / "init").glob("*.py"), []
            source.write_text(source.read_text() + config)
        more += ["--amp", "bf16"] if args.amp else []
        call(work / "train.log", "train", source, "--work-dir", work / "run", *more)
        # A config in a checkpoint may not import modules, a file may.
        subject = [source, next((work / "run").glob("best*.pth"))] if config else [work / "run"]
        call(work / "test.log", "test", *subject, "--work-dir", work / "test")
        found = last_evaluation(work / "test", "*.json", "coco/bbox_mAP")
        metrics = METRICS[args.part].items()
        figures = {name: scale * found[f"coco/{key}"] for name, (key, scale) in metrics}
        done.write_text(json.dumps({"settings": settings_of(args), "figures": figures}))
    written = json.loads(done.read_text())
    if written["settings"] != settings_of(args):
        sys.exit(f"{done} is of a run with {written['settings']}: give another --work-dir")
    figures = written["figures"]
    shown = ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
    print(f"{work.relative_to(args.work_dir)}: {shown}", flush=True)
    return {"seed": seed, "test": figures}


def missing(labels: dict, fuller: dict) -> list[dict]:
    """The boxes of ``fuller`` that no box of ``labels`` overlaps by half (IoU)."""
    own: dict[int, list] = {}
    for one in labels["annotations"]:
        own.setdefault(one["image_id"], []).append(one["bbox"])
    found = []
    for one in fuller["annotations"]:
        x, y, w, h = one["bbox"]
        best = 0.0
        for left, top, width, height in own.get(one["image_id"], ()):
            shared = max(min(x + w, left + width) - max(x, left), 0)
            shared *= max(min(y + h, top + height) - max(y, top), 0)
            best = max(best, shared / (w * h + width * height - shared))
        if best < 0.5:
            found.append(one)
    return found


def known_suspects(run: Path, labels: dict, fuller: dict, out: Path) -> Path:
    """A file of suspects that names every omission, for the annotations of a finished run."""
    written = json.loads((run / "data" / "train.json").read_text())
    ids = {Path(image["file_name"]).name: image for image in written["images"]}
    names = {image["id"]: Path(image["file_name"]).name for image in labels["images"]}
    classes = {one["id"]: one["name"] for one in fuller["categories"]}
    suspects = []
    for one in missing(labels, fuller):
        image, name = ids[names[one["image_id"]]], classes[one["category_id"]]
        place = {"image": image["file_name"], "image_id": image["id"]}
        suspects.append(
            Suspect("missing", **place, bbox=one["bbox"], proposed=name, probability=1.0)
        )
    order = [one["name"] for one in sorted(written["categories"], key=lambda one: one["id"])]
    Suspects.of(suspects, run / "data" / "train.json", order, "known").save(out)
    return out


def omissions(args) -> dict[str, list[dict]]:
    """The runs by name; see the module."""
    fuller = read("bccd/train_fuller")
    shown = {image["id"] for image in fuller["images"]}
    own = read("bccd/train")
    own["images"] = [image for image in own["images"] if image["id"] in shown]
    own["annotations"] = [one for one in own["annotations"] if one["image_id"] in shown]
    runs: dict[str, list[dict]] = {}
    for seed in args.seeds:
        sets = {"own": own}
        for share in args.drops:
            rng = random.Random(seed)
            kept = [one for one in fuller["annotations"] if rng.random() >= share]
            sets[f"{share:.0%} dropped"] = {**fuller, "annotations": kept}
        for name, labels in {**sets, "ceiling": fuller}.items():
            folder = args.work_dir / f"seed{seed}" / name.replace(" ", "_").replace("%", "")
            data = folder / "data"
            for split, content in (("train", labels), ("valid", read("bccd/val_fuller"))):
                write_split(data, split, content, DATA / "bccd" / "images")

            def record(arm: str, work: Path, *options, data=data, seed=seed, config="") -> None:
                found = train(args, data, work, seed, *options, config=config)
                runs.setdefault(arm, []).append(found)

            if name == "ceiling":
                record(name, folder / "plain")
                continue
            record(f"{name}, plain", folder / "plain", "--history")
            record(f"{name}, soft", folder / "soft", "--soft-negatives")
            record(f"{name}, coupled", folder / "coupled", config=COUPLED)
            known = known_suspects(folder / "plain" / "run", labels, fuller, folder / "known.json")
            record(f"{name}, known", folder / "known", "--suspects", known)
            if args.audit:
                found = folder / "audit" / "suspects.json"
                if not found.is_file():
                    audit = ("audit", folder / "plain" / "run", "--out", found.parent)
                    call(folder / "audit.log", *audit)
                record(f"{name}, audited", folder / "audited", "--suspects", found)
    return runs


def shares(args) -> dict[str, list[dict]]:
    """The runs by name; see the module."""
    streets = DATA / "camvid" / "img"
    data = args.work_dir / "data"
    photos = DATA / "cards" / "images"
    write_split(data, "train", read("cards/train_id"), photos)
    for split, place, count in (("valid", "val", 38), ("test", "test", 152)):
        content = read("cards/test_id")
        first = 1 + max(image["id"] for image in content["images"])
        for number, path in enumerate(sorted((streets / place).iterdir())[:count], first):
            size = {"width": 480, "height": 360}
            content["images"].append({"id": number, "file_name": path.name, **size})
        write_split(data, split, content, photos, streets / place)
    runs: dict[str, list[dict]] = {}
    for seed in args.seeds:
        folder = args.work_dir / f"seed{seed}"
        runs.setdefault("none", []).append(train(args, data, folder / "none", seed))
        for share in args.shares:
            options = ("--negatives", streets / "train", "--negative-share", share)
            found = train(args, data, folder / f"share_{share:g}", seed, *options)
            runs.setdefault(f"share {share:g}", []).append(found)
        mined, some = folder / "mined", folder / "random"
        if not mined.is_dir():
            most = ("--most", args.mined, "--score-threshold", 0.05, "--link", "--out", mined)
            model = folder / "none" / "run"
            call(folder / "mine.log", "mine-negatives", model, streets / "train", *most)
        some.mkdir(exist_ok=True)
        every = sorted((streets / "train").iterdir())
        count = len(json.loads((mined / "mined.json").read_text()))
        for path in random.Random(seed).sample(every, count):
            if not (some / path.name).exists():
                (some / path.name).symlink_to(path.resolve())
        for name, source in (("mined", mined), ("random", some)):
            options = ("--negatives", source, "--negative-share", 0.25)
            found = train(args, data, folder / f"of_{name}", seed, *options)
            runs.setdefault(f"{name}, share 0.25", []).append(found)
    return runs


def main(given: Sequence[str] | None = None) -> int:
    """Run a part, print its table and write its results; 0."""
    parser = arguments(__doc__, "negatives_<part>")
    parser.add_argument("--part", choices=["omissions", "shares"], required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iters", type=int, default=900)
    parser.add_argument("--model", default="atss-lite0")
    parser.add_argument("--amp", action="store_true", help="train in bfloat16")
    parser.add_argument("--drops", type=float, nargs="*", default=[0.3, 0.5, 0.7])
    parser.add_argument("--shares", type=float, nargs="*", default=[0.1, 0.25, 0.5])
    parser.add_argument("--mined", type=int, default=_MINED, help="images to mine")
    parser.add_argument("--no-audit", dest="audit", action="store_false")
    parser.add_argument("--work-dir", type=Path, default=ROOT / "work_dirs" / "negatives")
    args = parser.parse_args(given)
    args.work_dir = (args.work_dir / args.part).absolute()
    runs = {"omissions": omissions, "shares": shares}[args.part](args)
    summary = {name: summarize(entries, ["test"]) for name, entries in runs.items()}
    title = f"{args.iters} iterations, seeds: {len(args.seeds)}"
    print(f"\n{markdown_table(summary, 'test', title)}\n")
    payload = {**settings_of(args), "runs": runs, "summary": summary}
    write_results(f"negatives_{args.part}", payload, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
