"""Fine-tuning a published recognizer on 50 new people with 4 images each: is it better at them?

For each seed, 50 people of ``lfw112`` with eight images or more are drawn. ``negvision train``
trains on four images of each as the recipe of ``docs/faces.md`` says. All pairs of up to six
other images of each are compared before and after, and all pairs of four images of each of 50
other people, whom the training does not know. ``--face-detector`` aligns all images before.

Intervals are of a bootstrap over people (the pigeonhole bootstrap); that of a difference is
paired, the same people are drawn for both, and has the variance between the seeds too. Runs that
the work dir has are not repeated, so that the command goes on when it is given again::

    NEGVISION_DATA=... python benchmarks/face_finetune.py mobilefacenet.pt --seeds 1 2 3 4 5
"""

from __future__ import annotations

import collections
import os
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
from harness import arguments, write_results
from training_runs import ROOT

import negvision
from negvision.bootstrap import Side, bootstrap, interval, paired_difference
from negvision.face.metrics.verification_metric import pair_figures
from negvision.inference.gallery import embed_files, people_in

PEOPLE, TRAINED, MOST = 50, 4, 6
FARS = (1e-2, 1e-3)
FIGURES = ("AUC", *(f"TAR at FAR {far:g}" for far in FARS))
RESAMPLES = 500
RECIPE = {"freeze": 5, "iters": 50, "lr": 0.005, "batch": 32}


def write_people(seed: int, folder: Path, detector: negvision.FaceDetector | None) -> None:
    """Folders of people: ``faces/train``, ``faces/val`` (the strangers) and ``others``."""
    data = Path(os.environ.get("NEGVISION_DATA", "data")) / "lfw112"
    images: dict[str, list[str]] = collections.defaultdict(list)
    for line in (data / "train.txt").read_text().splitlines():
        name = line.rpartition(" ")[0]
        images[name.split("/")[1]].append(name)
    rng = np.random.default_rng(seed)
    many = sorted(person for person, names in images.items() if len(names) >= 2 * TRAINED)
    shutil.rmtree(folder, ignore_errors=True)
    for place, person in enumerate(rng.permutation(many)[: 2 * PEOPLE].tolist()):
        names = rng.permutation(sorted(images[person])).tolist()
        parts = {"faces/val": names[:TRAINED]}
        if place < PEOPLE:
            parts = {"faces/train": names[:TRAINED], "others": names[TRAINED : TRAINED + MOST]}
        for part, chosen in parts.items():
            target = folder / part / person
            target.mkdir(parents=True)
            for name in chosen:
                pixels = cv2.imread(str(data / name))
                if detector is not None:
                    pixels = detector.crop(pixels, name)
                cv2.imwrite(str(target / f"{Path(name).stem}.png"), pixels)


def embedded(model: negvision.Inferencer, folder: Path) -> dict[str, np.ndarray]:
    """Names of the people and unit embeddings of both parts that are compared."""
    found = {}
    for part in ("others", "faces/val"):
        names, files = people_in(folder / part)
        vectors, kept = embed_files(model, files, 32)
        assert len(kept) == len(files)
        found[f"{part}_names"] = np.array(names)
        found[part] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def run(weights: str, seed: int, folder: Path, detector: negvision.FaceDetector | None) -> None:
    """Train once and keep the embeddings in ``folder.npz``."""
    write_people(seed, folder, detector)
    before = embedded(negvision.load(weights), folder)
    start = time.process_time()
    shutil.rmtree(folder / "run", ignore_errors=True)
    trained = negvision.train(
        folder / "faces", work_dir=folder / "run", task="faces", weights=weights, seed=seed,
        **RECIPE,
    )  # fmt: skip
    seconds = time.process_time() - start
    after = embedded(negvision.load(trained), folder)
    columns = {f"before {name}": value for name, value in before.items()}
    columns |= {f"after {name}": value for name, value in after.items()}
    np.savez(folder.with_suffix(".npz"), cpu_seconds=seconds, **columns)


def compare(runs: list[dict[str, np.ndarray]], part: str) -> dict:
    """The figures of each run before and after, means with intervals, and the difference."""
    known = sorted({name for one in runs for name in one[f"before {part}_names"].tolist()})
    number = {name: row for row, name in enumerate(known)}
    sides, values = [], {}
    for side in ("before", "after"):
        found, draws = [], []
        for one in runs:
            people = np.array([number[name] for name in one[f"{side} {part}_names"].tolist()])
            first, second = np.triu_indices(len(people), 1)
            scores = (one[f"{side} {part}"] @ one[f"{side} {part}"].T)[first, second]
            pairs = np.stack([people[first], people[second]], 1)
            figures = pair_figures(scores, pairs[:, 0] == pairs[:, 1], pairs, FARS)
            found.append(figures(np.ones((1, len(known))))[0])
            draws.append(bootstrap(figures, np.arange(len(known)), RESAMPLES))
        sides.append(Side(np.array(found), np.mean(draws, axis=0)))
        low, high = interval(sides[-1].values.mean(0), sides[-1].draws)
        values[side] = {
            name: {"mean": mean, "low": least, "high": most, "seeds": seeds}
            for name, mean, least, most, seeds in zip(
                FIGURES, sides[-1].values.mean(0), low, high, sides[-1].values.T, strict=True
            )
        }
    # Before is another value for each seed, since its people are others: only changes compare.
    before, after = sides
    none = Side(0 * before.values, 0 * before.draws)
    gain = Side(after.values - before.values, after.draws - before.draws)
    change = paired_difference(none, gain, units=len(known))
    columns = change.difference, change.low, change.high, change.p_value
    values["difference"] = {
        name: dict(zip(("mean", "low", "high", "p_value"), column, strict=True))
        for name, *column in zip(FIGURES, *columns, strict=True)
    }
    return {"people": len(known), **values}


def main() -> None:
    """Run what is missing, print a table and write the results."""
    parser = arguments(__doc__, "face_finetune")
    parser.add_argument("weights", help="published weights of MobileFaceNet")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--face-detector", metavar="FILE", help="align by this ONNX file of YuNet")
    parser.add_argument("--work-dir", type=Path, default=ROOT / "work_dirs" / "face_finetune")
    args = parser.parse_args()
    detector, kind = None, "as they are"
    if args.face_detector:
        detector = negvision.FaceDetector(args.face_detector, main_only=True)
        kind = "aligned"
    runs = []
    for seed in args.seeds:
        folder = args.work_dir / f"{kind.replace(' ', '_')}_{seed}"
        if not folder.with_suffix(".npz").is_file():
            run(args.weights, seed, folder, detector)
        with np.load(folder.with_suffix(".npz")) as stored:
            runs.append(dict(stored))
    found = {"new people": compare(runs, "others"), "strangers": compare(runs, "faces/val")}
    for who, values in found.items():
        for name in FIGURES:
            cells = []
            for side in ("before", "after", "difference"):
                mean, low, high = (100 * values[side][name][key] for key in ("mean", "low", "high"))
                cells.append(f"{side} {mean:.2f} ({low:.2f} to {high:.2f})")
            print(f"{who}, {name}: {', '.join(cells)}")
    payload = {"images": kind, "recipe": RECIPE, "seeds": args.seeds, **found}
    payload["cpu_seconds"] = [float(one["cpu_seconds"]) for one in runs]
    write_results("face_finetune" + "_aligned" * bool(detector), payload, args.out)


if __name__ == "__main__":
    main()
