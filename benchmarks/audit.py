"""How well ``negvision audit`` finds wrong labels, by method, beside cleanlab's scores.

Errors are planted in a share of the training labels, of all ``--kinds`` at once, as real labels
have them: a third of the errors are boxes ``missing``, of another ``class``, at a shifted
``location``; for CIFAR-10 another class of the ``image``, for LFW another ``identity``. At random,
of the smallest third of the boxes (``--by size``), or of the most frequent class (``--by class``).
A recipe trains on them. Then average precision and precision at k of the scores of each kind, by
method: ``model``, ``history``, ``folds`` with ``--folds K``. ``--cleanlab PYTHON`` scores the same
predictions with cleanlab in that interpreter. Means over the seeds and differences from cleanlab
have 95 % intervals from images and seeds.

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
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from harness import RESULTS, arguments, write_results
from negatives import DATA, call, missing, read, write_split
from training_runs import ROOT

from negvision.audit.boxes import BoxSubject, BoxTable, drop, overlaps, shift, swap
from negvision.audit.data import Audited, find_leaf, open_data
from negvision.audit.labels import LabelSubject
from negvision.audit.run import findings_of, predict_folds, read_history, train_folds
from negvision.audit.subject import Audit, Findings, by_history
from negvision.benchmark.memory import peak_resident, resident
from negvision.bootstrap import Side, bootstrap, paired_difference
from negvision.data.sample_history import SampleHistory
from negvision.data.suspects import Suspects
from negvision.detection.metrics.error_kinds import Pairs
from negvision.engine.config.reading import load_config
from negvision.inference.inferencer import Inferencer

KINDS = {
    **dict.fromkeys(("bccd", "cards", "coco128"), ("missing", "class", "location")),
    "cifar": ("image",),
    "lfw112": ("identity",),
}
# Name -> annotation files of train and val, and their folders of images.
BOXES = {
    "bccd": (("bccd/train", "bccd/images"), ("bccd/val", "bccd/images")),
    "cards": (("cards/train_id", "cards/images"), ("cards/test_id", "cards/images")),
    "coco128": (
        ("coco128/instances_train", "coco128/train"),
        ("coco128/instances_val", "coco128/val"),
    ),
}
PRECISIONS, PRECISE = (20, 100, 500), 0.9
NAMES = ("AP", *(f"P@{limit}" for limit in PRECISIONS), f"R@P{PRECISE}")
CLEANLAB = """
import pickle, sys
import numpy as np
with open(sys.argv[1], "rb") as file:
    given = pickle.load(file)
if "probabilities" in given:
    from cleanlab.rank import get_label_quality_scores
    found = get_label_quality_scores(given["labels"], given["probabilities"])
else:
    from cleanlab.object_detection import rank
    name = {"missing": "overlooked", "class": "swap", "location": "badloc"}[given["kind"]]
    score = getattr(rank, f"compute_{name}_box_scores")
    # At its default of 0.95, cleanlab has no opinion on the lower scores of a focal loss.
    options = {"high_probability_threshold": 0.0} if name == "overlooked" else {}
    found = score(labels=given["truth"], predictions=given["found"], **options)
    found = np.concatenate([np.zeros(0), *found])
np.save(sys.argv[2], found)
"""


def table_of(content: dict) -> BoxTable:
    """The annotations of a COCO file; images and classes by their places."""
    images = {one["id"]: place for place, one in enumerate(content["images"])}
    labels = {one["id"]: place for place, one in enumerate(content["categories"])}
    rows = content["annotations"]
    boxes = np.array([one["bbox"] for one in rows], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    crowd = [bool(one.get("iscrowd")) for one in rows]
    places = [images[one["image_id"]] for one in rows], [labels[one["category_id"]] for one in rows]
    return BoxTable.of(*places, boxes, ignored=crowd)


def plant(
    content: dict, kinds: Sequence[str], share: float, by: str, seed: int
) -> tuple[dict, dict[str, BoxTable]]:
    """A COCO file with errors in a share of its boxes, an equal part of each kind.

    Returns:
        The file, and by kind what is wrong: the dropped boxes, or the changed ones.
    """
    random, whole = np.random.default_rng(seed), table_of(content)
    area, free = (whole.box[:, 2:] - whole.box[:, :2]).prod(1), ~whole.ignored
    total = round(share * free.sum())
    if by == "size":
        free &= area <= np.quantile(area[free], 1 / 3)
    elif by == "class":
        free &= whole.label == np.bincount(whole.label[free]).argmax()
    rows = [dict(one) for one in content["annotations"]]
    classes, planted = len(content["categories"]), {}
    parts = np.array_split(random.permutation(np.flatnonzero(free))[:total], len(kinds))
    for kind, part in zip(kinds, parts, strict=True):
        closed = np.ones(len(whole), bool)
        closed[part] = False
        open_to = replace(whole, ignored=closed)
        if kind == "missing":
            planted[kind] = drop(open_to, random, 1.0)[1]
            continue
        changed, places = (
            swap(open_to, random, classes, 1.0) if kind == "class" else shift(open_to, random, 1.0)
        )
        planted[kind] = found = changed.rows(places)
        for row, place in enumerate(found.place):
            rows[place]["category_id"] = content["categories"][found.label[row]]["id"]
            rows[place] |= {"bbox": list(found.xywh(row)), "segmentation": []}
    gone = set(planted["missing"].place.tolist()) if "missing" in planted else set()
    return {**content, "annotations": [r for i, r in enumerate(rows) if i not in gone]}, planted


def on_planted(
    image: np.ndarray, box: np.ndarray, planted: BoxTable, iou: float
) -> tuple[np.ndarray, np.ndarray]:
    """For each box the place of the planted one it overlaps most, from ``iou`` up, or -1."""
    pairs = Pairs.of(image, planted.image)
    found = overlaps(box[pairs.first], planted.box[pairs.second])
    return pairs.best(found, found >= iou)[::-1]


def average_precision(weights: np.ndarray, right: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """AP, precisions, and the recall at precision 0.9, of rows by falling score.

    Args:
        weights: (R, N + L): how often each row counts, then each error that has no row.
        right: (N,), whether a row is an error.
        lost: Number L of errors without a row.

    Returns:
        (R, 2 + len(PRECISIONS)).
    """
    own = weights[:, : len(right)].astype(np.float64)
    hits, seen = (own * right).cumsum(1), own.cumsum(1)
    precision = hits / np.maximum(seen, 1)
    total = hits[:, -1:].sum(1) + weights[:, len(right) :].sum(1)
    columns = [(precision * own * right).sum(1) / np.where(total > 0, total, np.nan)]
    for limit in PRECISIONS:
        counted = np.clip(limit - (seen - own), 0, own)
        columns.append((counted * right).sum(1) / np.maximum(counted.sum(1), 1))
    recall = hits / np.where(total > 0, total, np.nan)[:, None]
    columns.append(np.where(precision >= PRECISE, recall, 0).max(1))
    return np.stack(columns, 1)


@dataclass(frozen=True)
class Figures:
    """What a method finds of one kind of error: the columns of :func:`average_precision`.

    Attributes:
        values: (F,).
        draws: (R, F), of resampled images.
        errors: Number of planted ones.
        rows: Number of scores.
    """

    values: np.ndarray
    draws: np.ndarray
    errors: int
    rows: int

    @classmethod
    def of(
        cls, scores: np.ndarray, wrong: np.ndarray, image: np.ndarray, lost: np.ndarray, images: int
    ) -> Figures:
        """``image`` (N,) and ``lost`` (L,) are the places of rows and of errors without a row."""
        order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")
        right, units = wrong[order], np.concatenate([image[order], lost])

        def figures(weights: np.ndarray) -> np.ndarray:
            return average_precision(weights[:, units], right, lost)

        values = figures(np.ones((1, images)))[0]
        draws = bootstrap(figures, np.arange(images))
        return cls(values, draws, int(wrong.sum() + len(lost)), len(right))

    def shown(self) -> str:
        """One line."""
        values = zip(NAMES, self.values, strict=True)
        line = ", ".join(f"{name} {100 * value:.1f}" for name, value in values)
        return f"{line} ({self.errors} errors, {self.rows} rows)"


def summary(seeds: Sequence[dict[str, Figures]], images: int) -> dict:
    """Mean of each method over the seeds, and that minus cleanlab's on the same predictions.

    Each has a 95 % interval from images and seeds.
    """
    sides = {
        name: Side.of([(one[name].values, one[name].draws) for one in seeds]) for name in seeds[0]
    }
    nothing = Side(np.zeros((1, len(NAMES))), np.zeros((len(seeds[0]["model"].draws), len(NAMES))))
    pairs = {name: (nothing, side) for name, side in sides.items()}
    for name, side in sides.items():
        pairs |= {
            f"{one} - {name}": (side, sides[one])
            for one in ("model", "history", "folds")
            if one in sides and name.startswith("cleanlab")
        }
    found: dict = {"errors": [one["model"].errors for one in seeds]}
    for name, (first, second) in pairs.items():
        one = paired_difference(first, second, images)
        rows = np.stack([one.difference, one.low, one.high], 1)
        if first is nothing:
            rows = rows.clip(0, 1)
        found[name] = dict(zip(NAMES, rows.round(4).tolist(), strict=True))
    return found


def measure(subject: BoxSubject, found: Findings, planted: BoxTable) -> Figures:
    """The figures of one kind of error of boxes."""
    images = len(subject.images)
    if found.kind != "missing":
        truth = subject.truth
        place, _ = on_planted(truth.image, truth.box, planted, 0.95)
        wrong = (place >= 0) & (truth.label == planted.label[place])
        return Figures.of(found.scores, wrong, truth.image, np.zeros(0, np.int64), images)
    rows = [found.suspect(row) for row in range(len(found.scores))]
    names = {name: place for place, name in enumerate(subject.images)}
    box = np.array([one.bbox for one in rows], np.float64).reshape(-1, 4)
    image = np.array([names[one.image] for one in rows], np.int64)
    order = np.argsort(image, kind="stable")
    box[:, 2:] += box[:, :2]
    place, _ = on_planted(image[order], box[order], planted, 0.5)
    # One of several detections of an object finds it, that of the highest score.
    score, taken, wrong = found.scores[order], set(), np.zeros(len(order), bool)
    for row in np.argsort(-score, kind="stable").tolist():
        if place[row] >= 0 and place[row] not in taken:
            taken.add(place[row])
            wrong[row] = True
    lost = np.setdiff1d(np.arange(len(planted)), list(taken)).astype(np.int64)
    return Figures.of(score, wrong, image[order], planted.image[lost], images)


def by_cleanlab(python: str, subject: BoxSubject | LabelSubject, kind: str) -> Findings:
    """The scores of cleanlab for the same labels and predictions, higher is more suspicious."""
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder, "given.pkl"), Path(folder, "found.npy")
        kept = np.zeros(0, np.int64)
        if isinstance(subject, LabelSubject):
            content: dict = {"labels": subject.labels, "probabilities": subject.probabilities}
        else:
            truth = subject.truth.rows(np.flatnonzero(~subject.truth.ignored))
            kept = truth.place
            content = {"kind": kind, "truth": [], "found": []}
            order = []
            columns = np.c_[subject.found.box, subject.found.score]
            for place in range(len(subject.images)):
                own, seen = (np.flatnonzero(one.image == place) for one in (truth, subject.found))
                if not len(own):
                    continue  # ObjectLab takes no image without a label
                boxes = {"bboxes": truth.box[own], "labels": truth.label[own]}
                rows = [
                    seen[subject.found.label[seen] == label]
                    for label in range(len(subject.classes))
                ]
                order += [row for part in rows for row in part.tolist()]
                content["truth"].append(boxes)
                of_image = np.empty(len(rows), object)  # also where all parts have one length
                of_image[:] = [columns[part] for part in rows]
                content["found"].append(of_image)
            if kind == "missing":
                kept = np.array(order, np.int64)
        import pickle

        given.write_bytes(pickle.dumps(content))
        subprocess.run([python, "-c", CLEANLAB, str(given), str(out)], check=True)
        scores = 1 - np.load(out)
    if isinstance(subject, LabelSubject):
        return Findings(kind, scores, lambda row: next(iter(subject.findings())).suspect(row))
    if kind == "missing":
        known = np.flatnonzero(np.isfinite(scores))
        rows = replace(subject, found=subject.found)
        rows.__dict__["scores"] = replace(
            subject.scores, missing=kept[known], missing_score=scores[known]
        )
        return Findings(kind, scores[known], rows._missing)
    # By row of the annotations; cleanlab has no opinion on some, and none on ignored ones.
    every = np.full(len(subject.truth), -np.inf)
    places = {place: row for row, place in enumerate(subject.truth.place.tolist())}
    every[[places[place] for place in kept.tolist()]] = np.nan_to_num(scores, nan=-1.0)
    return Findings(kind, every, lambda row: subject._at(row))


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
            fuller = read("bccd/train_fuller")
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
    if not (run / "last_checkpoint").is_file():
        shutil.rmtree(run, ignore_errors=True)  # what an interruption left
        task = ["--task", "faces"] if name == "lfw112" else []
        length = ["--iters", args.iters, "--patience", 0, "--seed", seed]
        call(folder / "init.log", "init", data, "--work-dir", run, *length, *task)
        with open(run / "config.py", "a", encoding="utf-8") as config:
            config.write('\ncustom_hooks.append(dict(type="negvision.SampleHistoryHook"))\n')
        amp = ["--amp", "bf16"] if args.amp else []
        call(folder / "train.log", "train", run / "config.py", "--work-dir", run, *amp)
    found: dict[str, dict[str, Figures]] = {kind: {} for kind in kinds}
    for (method, (audited, findings)), kind in product(subjects(args, run).items(), kinds):
        subject, images = audited.subject(), len(audited.names)
        methods = {method: next(one for one in findings if one.kind == kind)}
        if args.cleanlab and method != "history" and kind != "identity":
            methods[f"cleanlab on {method}"] = by_cleanlab(args.cleanlab, subject, kind)
        for title, scored in methods.items():
            if planted:
                # The recipe orders the images anew.
                at = {places[Path(one).name]: place for place, one in enumerate(audited.names)}
                moved = np.array([at[place] for place in planted[kind].image.tolist()], np.int64)
                here = replace(planted[kind], image=moved).rows(np.argsort(moved, kind="stable"))
                found[kind][title] = measure(subject, scored, here)
            else:
                names = [Path(one) for one in audited.names]
                wrong = np.array([one.name.partition("__")[0] != one.parent.name for one in names])
                rows, none = np.arange(images), np.zeros(0, np.int64)
                found[kind][title] = Figures.of(scored.scores, wrong, rows, none, images)
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
    parser.add_argument("--iters", type=int, default=600)
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
            "amp": args.amp,
            "images": runs[0][1],
            **{kind: summary([found[kind] for found, _ in runs], runs[0][1]) for kind in kinds},
        }
        write_results("audit", {"settings": settings}, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
