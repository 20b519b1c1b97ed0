"""UNPG beside ArcFace on a part of LFW in many settings, on all pairs of people not trained on.

Every setting is trained with the first seeds. Then the settings with metric pairs that have the
highest TAR at a FAR of 1 % are trained for longer with other seeds, beside the ArcFace that each is
compared with. (They are chosen on the people that they are then compared on.) Figures are over all
pairs of the 807 images of 435 people that these trainings do not see. Intervals are of a bootstrap
over people (the pigeonhole bootstrap); those of differences are paired, and with several seeds have
the variance between these too.

A run takes minutes on one thread. Runs that the work dir has are not repeated, so that the command
goes on when it is given again::

    NEGVISION_DATA=... OMP_NUM_THREADS=1 python benchmarks/face_study.py
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from harness import arguments, write_results
from training_runs import ROOT, call

import negvision
from negvision.bootstrap import Side, bootstrap, interval, paired_difference
from negvision.engine.config.reading import load_config
from negvision.face.metrics.verification_metric import pair_figures
from negvision.inference.gallery import embed_files

DATA = Path(os.environ.get("NEGVISION_DATA", "data"))
WEIGHTS = DATA / "weights" / "mobilefacenet" / "mobilefacenet.pt"
SCRATCH = "configs/unpg/lfw112_arcface.py"
PUBLISHED = "configs/unpg/lfw112_mobilefacenet.py"
FARS = (1e-2, 1e-3)
FIGURES = ("AUC", *(f"TAR at FAR {far:g}" for far in FARS), "mean similarity of different people")
RESAMPLES = 500


@dataclass(frozen=True)
class Setting:
    """What is trained.

    Attributes:
        options: Changes to the config, by their dotted paths.
        against: The setting that it is compared with; None for one to compare with.
        config: The config; that of published weights starts from these.
        epochs: Factor of the number of epochs; 0 for weights as they are.
    """

    options: dict[str, Any] = field(default_factory=dict)
    against: str | None = None
    config: str = SCRATCH
    epochs: float = 1


def unpg(**options: Any) -> dict[str, Any]:
    """Options of the head with metric pairs."""
    return {f"model.head.{key}": value for key, value in {"metric_pairs": True, **options}.items()}


def learning(**of_parts: dict) -> dict[str, Any]:
    """Factors of the learning rate and so on by the name of a parameter."""
    return {"optim_wrapper.paramwise_cfg": {"custom_keys": of_parts}}


# The bias of the last normalization starts at 0, and moves all embeddings alike.
CENTERED = learning(**{"neck.features.bias": {"lr_mult": 0.0}})
# Batches of 32 people with 4 images: an epoch has 2,240 images instead of 6,064.
SAMPLER = {"type": "negvision.IdentityBalancedSampler", "_delete_": True}
SAMPLER |= {"identities_per_batch": 32, "images_per_identity": 4}
BALANCED = {"train_dataloader": {"sampler": SAMPLER}}
LARGE = {"model.neck.embedding_size": 512, "model.head.embedding_size": 512}
LATE = {
    "custom_hooks": [
        {"type": "negvision.ChannelsLastHook"},
        {"type": "negvision.PairScoreHook"},
        {"type": "negvision.LatePairsHook", "begin": 0.5},
    ]
}
TRANSFORMED = unpg(type="negvision.TransformedPairsLoss")
NO_MARGIN = {"model.head": {"margin": {"_delete_": True, "type": "negvision.NoMargin"}}}
OWN_SCALE = learning(**{"head.log_scale": {"lr_mult": 0.1, "decay_mult": 0.0}})
TUNED = {"config": PUBLISHED, "epochs": 0.25}
SETTINGS = {
    "ArcFace": Setting(),
    "UNPG": Setting(unpg(), "ArcFace"),
    "UNPG, pairs x 0.1": Setting(unpg(pair_weight=0.1), "ArcFace"),
    "UNPG, pairs x 0.01": Setting(unpg(pair_weight=0.01), "ArcFace"),
    "UNPG, pairs x 0.001": Setting(unpg(pair_weight=0.001), "ArcFace"),
    "ArcFace, bias 0": Setting(CENTERED),
    "UNPG, bias 0": Setting(unpg() | CENTERED, "ArcFace, bias 0"),
    "UNPG, bias 0, pairs x 0.01": Setting(unpg(pair_weight=0.01) | CENTERED, "ArcFace, bias 0"),
    "ArcFace, scale 32": Setting({"model.head.scale": 32.0}),
    "UNPG, scale 32": Setting(unpg(scale=32.0), "ArcFace, scale 32"),
    "ArcFace, scale 16": Setting({"model.head.scale": 16.0}),
    "UNPG, scale 16": Setting(unpg(scale=16.0), "ArcFace, scale 16"),
    "UNPG in the second half": Setting(unpg() | LATE, "ArcFace"),
    "UNPG, transformed pairs": Setting(TRANSFORMED, "ArcFace"),
    "UNPG, transformed pairs, no margin": Setting(TRANSFORMED | NO_MARGIN, "ArcFace"),
    "UNPG, learned scale of pairs": Setting(
        unpg(type="negvision.LearnedPairScaleLoss") | OWN_SCALE, "ArcFace"
    ),
    "ArcFace, 32 x 4": Setting(BALANCED, epochs=2.75),
    "UNPG, 32 x 4": Setting(unpg() | BALANCED, "ArcFace, 32 x 4", epochs=2.75),
    "ArcFace, 512 dimensions": Setting(LARGE),
    "UNPG, 512 dimensions": Setting(unpg() | LARGE, "ArcFace, 512 dimensions"),
    "MobileFaceNet as published": Setting(config=PUBLISHED, epochs=0),
    "MobileFaceNet, ArcFace": Setting({}, "MobileFaceNet as published", **TUNED),
    "MobileFaceNet, UNPG": Setting(unpg(), "MobileFaceNet, ArcFace", **TUNED),
    "MobileFaceNet, UNPG, pairs x 0.01": Setting(
        unpg(pair_weight=0.01), "MobileFaceNet, ArcFace", **TUNED
    ),
}


def test_images() -> list[str]:
    """The images of the pairs of the first fold, whose people are not trained on."""
    lines = (DATA / "lfw112" / "pairs_fold1.txt").read_text().splitlines()
    return sorted({name for line in lines for name in line.split(" ")[:2]})


def write_config(setting: Setting, epochs: float, seed: int, amp: bool, file: Path) -> None:
    """The whole config as a file, which imports the parts that are no part of negvision.

    Raises:
        SystemExit: The file has another config, so that its results are of another setting.
    """
    options = dict(setting.options)
    if setting.epochs:
        last = max(round(epochs * setting.epochs), 1)
        options |= {f"train_cfg.{key}": last for key in ("max_epochs", "val_interval")}
        options |= {"param_scheduler.0.end": last / 4, "param_scheduler.1.begin": last / 4}
        options |= {"param_scheduler.1.end": last, "randomness.seed": seed}
        options |= {"load_from": str(WEIGHTS)} if setting.config == PUBLISHED else {}
        options |= {"optim_wrapper.type": "negvision.BF16OptimWrapper"} if amp else {}
    cfg = load_config(ROOT / setting.config, options)
    cfg.custom_imports = {"imports": ["face_study_parts"]}
    if file.exists() and file.read_text() != cfg.pretty_text:
        sys.exit(f"{file} is of another setting: give another --work-dir, or remove {file.parent}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(cfg.pretty_text)


def run(name: str, epochs: float, seed: int, amp: bool, work: Path) -> dict[str, np.ndarray]:
    """Train, unless it has been done, and the figures with those of the resamples."""
    setting = SETTINGS[name]
    label = f"{re.sub(r'[^a-z0-9.]+', '_', name.lower())}_{epochs:g}_epochs_seed{seed}"
    folder = work / label
    write_config(setting, epochs, seed, amp, folder / "config.py")
    if not (folder / "figures.npz").is_file():
        shutil.rmtree(folder / "train", ignore_errors=True)  # what an interruption left
        before, checkpoint = cpu_seconds(), WEIGHTS
        if setting.epochs:
            call("tools/train.py", folder / "config.py", "--work-dir", folder / "train")
            checkpoint = Path((folder / "train" / "last_checkpoint").read_text().strip())
        seconds = cpu_seconds() - before
        values, draws = evaluate(negvision.Inferencer(folder / "config.py", checkpoint))
        np.savez(folder / "figures.npz", values=values, draws=draws, cpu_seconds=seconds)
        shown = ", ".join(f"{key} {value:.3f}" for key, value in zip(FIGURES, values, strict=True))
        print(f"{label}: {shown} ({seconds:.0f} CPU s)", flush=True)
    with np.load(folder / "figures.npz") as stored:
        return dict(stored)


def cpu_seconds() -> float:
    """Of the processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def evaluate(model: negvision.Inferencer) -> tuple[np.ndarray, np.ndarray]:
    """The figures (F,) of all pairs, and those of the resamples (R, F)."""
    images = test_images()
    vectors, kept = embed_files(model, [str(DATA / "lfw112" / name) for name in images], 64)
    assert len(kept) == len(images)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    people = np.unique([name.split("/")[1] for name in images], return_inverse=True)[1]
    count = people.max() + 1
    first, second = np.triu_indices(len(people), 1)
    scores = (vectors @ vectors.T)[first, second].astype(np.float64)
    pairs = np.stack([people[first], people[second]], 1)
    same = pairs[:, 0] == pairs[:, 1]
    shares = pair_figures(scores, same, pairs, FARS)
    # Sums over the pairs of two people, by their numbers.
    place = pairs[~same].min(1) * count + pairs[~same].max(1)
    sums, numbers = (
        np.bincount(place, weights, count**2).reshape(count, count)
        for weights in (scores[~same], None)
    )

    def figures(weights: np.ndarray) -> np.ndarray:
        drawn = weights.astype(np.float64)
        means = ((drawn @ sums) * drawn).sum(1) / ((drawn @ numbers) * drawn).sum(1)
        return np.column_stack([shares(weights), means])

    draws = bootstrap(figures, np.arange(count), RESAMPLES)
    return figures(np.ones((1, count)))[0], draws


def compared(runs: dict[str, list[dict[str, np.ndarray]]]) -> dict[str, dict]:
    """Figures with limits, and the difference to the setting that each is compared with."""
    sides = {name: Side.of([(r["values"], r["draws"]) for r in rs]) for name, rs in runs.items()}
    people = len(np.unique([name.split("/")[1] for name in test_images()]))
    # Similarities reach from -1 to 1, the other figures from 0.
    least = np.array([0.0] * (len(FIGURES) - 1) + [-1.0])
    found = {}
    for name, side in sides.items():
        mean, span = side.values.mean(0), 1 - least
        limits = span * interval((mean - least) / span, (side.draws - least) / span) + least
        against = SETTINGS[name].against
        row = {
            "against": against,
            "cpu_seconds": [float(one["cpu_seconds"]) for one in runs[name]],
            "figures": by_figure(("mean", "low", "high"), mean, *limits),
        }
        for key, seeds in zip(FIGURES, side.values.T, strict=True):
            row["figures"][key]["seeds"] = seeds
        if against in sides:
            change = paired_difference(sides[against], side, units=people)
            keys = ("difference", "low", "high", "p_value")
            row["difference"] = by_figure(keys, *(getattr(change, key) for key in keys))
        found[name] = row
    return found


def by_figure(keys: Sequence[str], *columns: np.ndarray) -> dict[str, dict[str, float]]:
    """The values of each figure by their names."""
    rows = zip(*columns, strict=True)
    return {
        name: dict(zip(keys, row, strict=True)) for name, row in zip(FIGURES, rows, strict=True)
    }


def table(found: dict[str, dict]) -> str:
    """Percent, but for similarities; differences to what stands beside them."""
    lines = [f"| setting | {' | '.join(FIGURES)} | {FIGURES[1]}, difference |"]
    lines.append("| --- |" + " --- |" * (len(FIGURES) + 1))
    for name, row in found.items():
        cells = []
        for key, of in row["figures"].items():
            factor, digits = (1, 2) if key == FIGURES[-1] else (100, 1)
            mean, low, high = (f"{factor * of[k]:.{digits}f}" for k in ("mean", "low", "high"))
            cells.append(f"{mean} ({low} to {high})")
        cells.append("")
        if "difference" in row:
            of = row["difference"][FIGURES[1]]
            mean, low, high = (f"{100 * of[k]:+.1f}" for k in ("difference", "low", "high"))
            cells[-1] = f"{mean} ({low} to {high}) to {row['against']}"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def finalists(found: dict[str, dict], count: int) -> list[str]:
    """The best settings with pairs that begin at random, and what they are compared with."""
    fit = [n for n in found if SETTINGS[n].against and SETTINGS[n].config == SCRATCH]
    best = sorted(fit, key=lambda name: -found[name]["figures"][FIGURES[1]]["mean"])[:count]
    wanted = {*best, *(SETTINGS[name].against for name in best), *["ArcFace"] * bool(best)}
    return [name for name in SETTINGS if name in wanted]


def options() -> argparse.Namespace:
    """The options of the command."""
    parser = arguments(__doc__, "face_study")
    add = parser.add_argument
    add("--only", nargs="+", choices=SETTINGS, metavar="SETTING", help="and what they are beside")
    add("--epochs", type=float, default=8)
    add("--seeds", type=int, nargs="+", default=[0])
    add("--finalists", type=int, default=2, help="settings with metric pairs")
    add("--final-epochs", type=float, default=24)
    add("--final-seeds", type=int, nargs="+", default=[1, 2, 3])
    add("--amp", action="store_true", help="train in bfloat16")
    add("--work-dir", type=Path, default=ROOT / "work_dirs" / "face_study")
    return parser.parse_args()


def main() -> None:
    """Run what is missing, print tables and write the results."""
    args = options()
    # Where trainings find the parts that are no part of negvision.
    folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    only = set(args.only or SETTINGS)
    for _ in range(2):  # the published weights are two steps away
        only |= {SETTINGS[name].against for name in only} - {None}
    payload: dict[str, Any] = {"amp": args.amp}
    payload["options"] = {n: SETTINGS[n].options for n in SETTINGS if n in only}

    def stage(title: str, names: Sequence[str], epochs: float, seeds: Sequence[int]) -> dict:
        runs = {
            name: [run(name, epochs, seed, args.amp, args.work_dir) for seed in seeds]
            for name in names
        }
        found = compared(runs)
        payload[title] = {"epochs": epochs, "seeds": seeds, "settings": found}
        write_results("face_study", payload, args.out)
        print(f"\n{title}, {epochs:g} epochs, seeds {seeds}\n\n{table(found)}\n", flush=True)
        return found

    found = stage("all", [n for n in SETTINGS if n in only], args.epochs, args.seeds)
    if args.finalists:
        chosen = finalists(found, args.finalists)
        stage("finalists", chosen, args.final_epochs, args.final_seeds)


if __name__ == "__main__":
    main()
