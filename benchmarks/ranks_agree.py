"""Do two and three processes train the same model as one? The quick starts, on the CPU with gloo.

Each part is trained by one, two and three processes on the same global batches, and once more by
one process with each batch in reverse order, which shows the effect of rounding alone. Runs of
several processes are repeated and their weights compared bit by bit. BN is synchronized.

    python benchmarks/ranks_agree.py --steps          # weights after 1, 5 and 20 iterations
    python benchmarks/ranks_agree.py                  # metrics, after a share of each schedule
    python benchmarks/ranks_agree.py --share 1 --parts detection
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from harness import write_results

from negvision.engine.config.reading import load_config
from negvision.report.train_log import read_train_log

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Part:
    """A quick start, and the global batch that one, two and three processes can share."""

    config: str
    batch: int
    metrics: tuple[str, ...]
    needs: str | None = None


PARTS = {
    "detection": Part("atss_digits", 12, ("coco/bbox_mAP", "coco/bbox_mAP_50")),
    "face": Part("unpg_glyphs", 126, ("accuracy",)),
    "boxes": Part("abet_boxes", 12, ("bbox_mAP", "auroc")),
    "pixels": Part("abet_pixels", 12, ("mIoU", "auroc"), needs="boxes"),
    "images": Part("abet_images", 66, ("accuracy", "auroc")),
}


STEPS = (1, 5, 20)
SHORT = """
_base_ = "{base}"
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters={steps})
val_cfg = val_dataloader = val_evaluator = None
param_scheduler = None
model = dict(backbone=dict({init}))
train_dataloader = dict(batch_size={batch}, drop_last=True)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1, max_keep_ckpts=-1))
log_processor = dict(by_epoch=False)
custom_hooks = [dict(type="negvision.ChannelsLastHook")]
"""


def options_of(part: Part, share: float, processes: int, backbone: Path | None) -> list[str]:
    """The changes to a quick start's config, as --cfg-options."""
    cfg = load_config(ROOT / f"configs/quickstart/{part.config}.py")
    options = {"train_dataloader.batch_size": part.batch // processes}
    options["train_dataloader.drop_last"] = True
    by_epoch = "max_epochs" in cfg.train_cfg
    key = "max_epochs" if by_epoch else "max_iters"
    whole = cfg.train_cfg[key]
    length = max(1, round(whole * share))
    options |= {f"train_cfg.{key}": length, "train_cfg.val_interval": length}
    for index, schedule in enumerate(cfg.param_scheduler):
        for name in ("begin", "end", "total_steps"):
            if name in schedule:
                scaled = max(int(name != "begin"), round(schedule[name] * length / whole))
                options[f"param_scheduler.{index}.{name}"] = scaled
    if backbone is not None:
        options["model.backbone.init_cfg.checkpoint"] = str(backbone)
    return [f"{key}={value}" for key, value in options.items()]


def train(
    config: str | Path, processes: int, folder: Path, options: list[str], backwards: bool
) -> Path:
    """Train in processes of one thread each; the last checkpoint."""
    arguments = [str(config), "--work-dir", str(folder)]
    arguments += ["--sync-bn"] if processes > 1 else []
    arguments += ["--cfg-options", *options] if options else []
    if processes > 1:
        command = ["tools/dist_train.sh", arguments[0], str(processes), *arguments[1:]]
    else:
        command = [sys.executable, __file__] if backwards else [sys.executable, "tools/train.py"]
        command += ["--backwards"] if backwards else []
        command += arguments
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
    log = folder.with_suffix(".log")
    with log.open("w") as output:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text()[-3000:]}")
    return max(folder.glob("*.pth"), key=lambda file: file.stat().st_mtime)


def metrics_of(folder: Path, wanted: tuple[str, ...]) -> dict[str, float]:
    """The last value of each metric whose name ends in one of those that are wanted."""
    evaluations = read_train_log(folder).evaluations
    found = {}
    for name, (_, values) in evaluations.items():
        if any(name == end or name.endswith("/" + end) for end in wanted):
            found[name] = values[-1]
    return found


def same_bits(first: Path, second: Path) -> bool:
    """Whether two checkpoints hold the same weights, bit for bit."""
    one, other = (torch.load(path, weights_only=False)["state_dict"] for path in (first, second))
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def weights_after(part: Part, processes: int, folder: Path, backwards: bool) -> dict:
    """The weights after each of ``STEPS``; the rate is constant, or little would be learned."""
    config = folder.with_suffix(".py")
    config.write_text(
        SHORT.format(
            base=ROOT / f"configs/quickstart/{part.config}.py",
            steps=STEPS[-1],
            batch=part.batch // processes,
            init="init_cfg=None" if part.needs else "",
        )
    )
    train(config, processes, folder, [], backwards)
    return {
        step: torch.load(folder / f"iter_{step}.pth", weights_only=False)["state_dict"]
        for step in STEPS
    }


def compare_steps(name: str, ranks: list[int], folder: Path) -> dict:
    """How far weights are from those of one process, relative to how far those have come."""
    part = PARTS[name]
    expected = weights_after(part, 1, folder / f"{name}-1", False)
    result = {}
    runs = [("1, batches reversed", 1, True)] + [(str(count), count, False) for count in ranks]
    for label, processes, backwards in runs:
        work_dir = folder / f"{name}-{processes}-{backwards}"
        found = weights_after(part, processes, work_dir, backwards)
        result[label] = {step: _distance(found[step], expected[step]) for step in STEPS}
        shown = "  ".join(f"{step}: {value:.1e}" for step, value in result[label].items())
        print(f"{name:<10} {label:<22} {shown}", flush=True)
    return result


def _distance(found: dict, expected: dict) -> float:
    """|found - expected| / |expected|, over all weights together."""
    weights = [key for key, value in expected.items() if value.is_floating_point()]
    apart = sum(float((found[key].double() - expected[key]).square().sum()) for key in weights)
    whole = sum(float(expected[key].double().square().sum()) for key in weights)
    return (apart / whole) ** 0.5


def measure(name: str, share: float, ranks: list[int], folder: Path, backbones: dict) -> dict:
    """All runs of a part; their metrics by name of the run."""
    part = PARTS[name]
    metrics: dict[str, dict[str, float]] = {}
    repeated: dict[str, bool] = {}
    runs = [("1", 1, False), ("1, batches reversed", 1, True)]
    runs += [(str(count), count, False) for count in ranks]
    for label, processes, backwards in runs:
        options = options_of(part, share, processes, backbones.get(part.needs))
        # Named like the run that `pixels` begins with, wherever that lies.
        work_dir = folder / f"{name}-{label.replace(', ', '-').replace(' ', '-')}"
        config = f"configs/quickstart/{part.config}.py"
        last = train(config, processes, work_dir, options, backwards)
        metrics[label] = metrics_of(work_dir, part.metrics)
        backbones.setdefault(name, last)
        if processes > 1:
            again = train(config, processes, folder / f"{work_dir.name}-again", options, backwards)
            repeated[label] = same_bits(last, again)
        print(f"{name:<10} {label:<22} {metrics[label]}  repeats: {repeated.get(label, '-')}")
    return {"metrics": metrics, "same bits when repeated": repeated}


def main() -> None:
    """Train all parts and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--ranks", nargs="+", type=int, default=[2, 3], choices=[2, 3])
    parser.add_argument("--steps", action="store_true", help="weights after a few iterations")
    parser.add_argument("--share", type=float, default=0.2, help="of each schedule (default 0.2)")
    args = parser.parse_args()
    if not args.steps and "pixels" in args.parts and "boxes" not in args.parts:
        parser.error("pixels begin with the backbone of boxes: name both")
    folder = Path(tempfile.mkdtemp(prefix="negvision_ranks_"))
    backbones: dict[str, Path] = {}
    try:
        if args.steps:
            result = {name: compare_steps(name, args.ranks, folder) for name in args.parts}
            write_results("ranks_agree_steps", {"distance of weights after": result})
            return
        result = {
            name: measure(name, args.share, args.ranks, folder, backbones) for name in args.parts
        }
    finally:
        shutil.rmtree(folder)
    write_results("ranks_agree", {"share of the schedule": args.share, "parts": result})


def train_backwards(argv: list[str]) -> int:
    """Train as tools/train.py does, with the samples of each batch in reverse order."""
    from negvision.cli.main import main as negvision
    from negvision.engine.data_order import SeededBatches

    in_order = SeededBatches._with_seeds
    SeededBatches._with_seeds = lambda *args: in_order(*args)[::-1]
    return negvision(["train", *argv])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--backwards"]:
        sys.exit(train_backwards(sys.argv[2:]))
    main()
