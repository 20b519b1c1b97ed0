"""ATSS on small objects by IoU, NWD and SimD, and large images with and without tiles.

Three sets, made from the data and seen at their own size:

- ``coco128``: coco128 downscaled 4 times, so that most of its objects are a few pixels large, as
  one class: 128 photographs do not teach 80 classes.
- ``digits``: the embedded handwriting at 6 to 14 pixels on photographs of 160 x 160, as one class:
  to tell ten apart at that size takes longer than to find them.
- ``bccd``: pictures of bccd joined 3 x 3 to 1,920 x 1,440, resized to 640 x 480 as a whole, or in
  tiles of 640 x 480.

Each run is a training of ``negvision train`` with one thread, of coco128 from weights of ImageNet
and else from scratch, evaluated on the validation set at its end; ``without`` is the share of boxes
without a positive in the last iterations. Runs that the file of results has are not repeated, so
that the command can be stopped and goes on when it is given again::

    NEGVISION_DATA=... python benchmarks/small_objects.py --iters 600 --seeds 0 1 2
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from folder_budgets import run
from harness import RESULTS, arguments, write_results
from training_runs import ROOT, last_evaluation, markdown_table, summarize

from negvision.toy.photos import contrasting_color, random_crop
from negvision.toy.scene import load_glyphs

SPLITS = {"train": 1, "val": 2}
DIGITS = {"train": 400, "val": 100}
# Config, and the similarity with the least size of a box of each kind, or the tiles.
ASSIGNERS = {
    "IoU": ("iou", 0),
    "NWD": ("nwd", 0),
    "SimD": ("simd", 0),
    "IoU, min_size 9": ("iou", 9),
    "NWD, min_size 9": ("nwd", 9),
    "SimD, min_size 9": ("simd", 9),
}
TILES = {"whole": "none", "tiles": "640x480:100"}

# coco128 on the pretrained backbone.
PRETRAINED = """
_base_ = [
    "{root}/configs/_base_/models/atss_lite0.py",
    "{root}/configs/_base_/datasets/coco128_detection.py",
    "{root}/configs/_base_/schedules/schedule_finetune.py",
    "{root}/configs/_base_/iteration_runtime.py",
]
model = dict(
    neck=dict(add_extra_convs="on_output", num_outs=4),
    bbox_head=dict(anchor_generator=dict(strides=[8, 16, 32, 64])),
)
"""

Sample = tuple[np.ndarray, list[dict]]


def downscaled(split: str) -> Iterator[Sample]:
    """coco128 at a quarter of its size."""
    root = Path(os.environ["NEGVISION_DATA"]) / "coco128"
    content = json.loads((root / f"annotations/instances_{split}.json").read_text())
    for image in content["images"]:
        pixels = cv2.imread(str(root / split / image["file_name"]))
        size = (max(1, round(image["width"] / 4)), max(1, round(image["height"] / 4)))
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        scale = np.array([size[0] / image["width"], size[1] / image["height"]] * 2)
        found = moved(content, image, lambda box, scale=scale: box * scale)
        yield small, [{**one, "category_id": 0} for one in found]


def digits(split: str) -> Iterator[Sample]:
    """Digits of 6 to 14 pixels, apart from each other, on pieces of photographs."""
    glyphs = load_glyphs(split)
    for index in range(DIGITS[split]):
        rng = np.random.default_rng([SPLITS[split], index])
        image, found = random_crop(rng, split, 160, 160), []
        for _ in range(int(rng.integers(4, 16))):
            digit, side = int(rng.integers(10)), int(rng.integers(8, 24))
            ink = glyphs.ink[digit][rng.integers(len(glyphs.ink[digit]))]
            stamp = cv2.resize(ink, (side, side), interpolation=cv2.INTER_AREA)
            drawn = np.argwhere(stamp > stamp.max() / 2)
            (top, left), (bottom, right) = drawn.min(0), drawn.max(0) + 1
            if not 6 <= max(bottom - top, right - left) <= 14:
                continue
            x, y = (int(n) for n in rng.integers(0, 160 - side, 2))
            box = np.array([x + left, y + top, right - left, bottom - top], float)
            if any(overlapping(box, one["bbox"]) for one in found):
                continue
            window = image[y : y + side, x : x + side]
            color = contrasting_color(rng, window)
            window += stamp[..., None] * (color - window)
            found.append({"bbox": box, "category_id": 0, "iscrowd": 0})
        yield image.clip(0, 255).astype(np.uint8), found


def overlapping(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.all(one[:2] < other[:2] + other[2:]) and np.all(other[:2] < one[:2] + one[2:]))


def joined(split: str) -> Iterator[Sample]:
    """Nine pictures of bccd as one; what does not fill the last one is left out."""
    root = Path(os.environ["NEGVISION_DATA"]) / "bccd"
    content = json.loads((root / f"annotations/{split}.json").read_text())
    images = content["images"]
    for first in range(0, len(images) - 8, 9):
        canvas, found = np.zeros((1440, 1920, 3), np.uint8), []
        for place, image in enumerate(images[first : first + 9]):
            x, y = place % 3 * 640, place // 3 * 480
            pixels = cv2.imread(str(root / "images" / Path(image["file_name"]).name))
            canvas[y : y + 480, x : x + 640] = pixels
            found += moved(content, image, lambda box, x=x, y=y: box + [x, y, 0, 0])
        yield canvas, found


def moved(content: dict, image: dict, move: Callable) -> list[dict]:
    """Annotations of an image with other boxes."""
    own = [one for one in content["annotations"] if one["image_id"] == image["id"]]
    return [{**one, "bbox": move(np.array(one["bbox"]))} for one in own]


def categories_of(name: str) -> list[dict]:
    if name != "bccd":
        return [{"id": 0, "name": "object"}]
    path = Path(os.environ["NEGVISION_DATA"]) / "bccd" / "annotations" / "train.json"
    return json.loads(path.read_text())["categories"]


SETS: dict[str, Callable[[str], Iterator[Sample]]] = {
    "coco128": downscaled,
    "digits": digits,
    "bccd": joined,
}


def make_set(name: str, work: Path) -> Path:
    """The set as COCO files and images, with the layout of coco128."""
    root = work / "data" / name
    for split in SPLITS:
        file = root / "annotations" / f"instances_{split}.json"
        if file.is_file():
            continue
        (root / split).mkdir(parents=True, exist_ok=True)
        file.parent.mkdir(exist_ok=True)
        content: dict[str, list] = {"images": [], "annotations": []}
        for number, (pixels, found) in enumerate(SETS[name](split)):
            size = {"height": pixels.shape[0], "width": pixels.shape[1]}
            content["images"].append({"id": number, "file_name": f"{number}.png", **size})
            cv2.imwrite(str(root / split / f"{number}.png"), pixels)
            for one in found:
                ids = {"id": len(content["annotations"]) + 1, "image_id": number}
                box = {"bbox": one["bbox"].tolist(), "area": float(np.prod(one["bbox"][2:]))}
                kept = {"category_id": one["category_id"], "iscrowd": one["iscrowd"]}
                content["annotations"].append({**ids, **box, **kept})
        file.write_text(json.dumps({**content, "categories": categories_of(name)}))
    return root


def train(name: str, kind: str, iters: int, seed: int, work: Path, root: Path) -> dict[str, Any]:
    """Train; the metrics of the last validation, and what was counted."""
    side = (640, 480) if name == "bccd" else (160, 160)
    classes = len(categories_of(name))
    options = {
        "model.bbox_head.num_classes": classes,
        "train_cfg.max_iters": iters,
        "train_cfg.val_interval": iters,
        "param_scheduler.1.end": iters,
        "train_dataloader.dataset.pipeline.2.scale": side,
        "val_dataloader.dataset.pipeline.1.scale": side,
        "test_dataloader.dataset.pipeline.1.scale": side,
        "randomness.seed": seed,
    }
    config = ROOT / "configs/atss/coco128_atss.py"
    if name == "coco128":
        config = root.parent / "pretrained.py"
        config.write_text(PRETRAINED.format(root=ROOT))
    command = [sys.executable, "-m", "negvision", "train", config]
    command += ["--data-root", root, "--work-dir", work]
    if name == "bccd":
        command += ["--tiles", TILES[kind]]
        # A picture has more than the hundred objects that detectors and COCO's AP stop at.
        options["model.test_cfg.max_per_img"] = 300
        options["val_evaluator.max_dets"] = (1, 10, 300)
    else:
        similarity, least = ASSIGNERS[kind]
        options["model.train_cfg.assigner.similarity"] = similarity
        options["model.train_cfg.assigner.min_size"] = least
    command += ["--cfg-options", *(f"{key}={value}" for key, value in options.items())]
    shutil.rmtree(work, ignore_errors=True)  # of a run that was stopped
    seconds, cpu = run(command, work.with_suffix(".log"))
    metrics = last_evaluation(work, "vis_data/scalars.json", "coco/bbox_mAP")
    counted = last_evaluation(work, "vis_data/scalars.json", "boxes/without")
    values = {"AP": metrics["coco/bbox_mAP"], "AP50": metrics["coco/bbox_mAP_50"]}
    values |= {"AP small": metrics["coco/bbox_mAP_s"], "without": counted["boxes/without"]}
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "val": {key: round(100 * value, 2) for key, value in values.items()},
    }


def main(args: Namespace) -> None:
    out = Path(args.out or RESULTS / "small_objects.json")
    runs: dict[str, list[dict]] = json.loads(out.read_text())["runs"] if out.is_file() else {}
    for seed, name in itertools.product(args.seeds, args.sets):
        root = make_set(name, args.work_dir).resolve()
        for kind in TILES if name == "bccd" else ASSIGNERS:
            if args.kinds and kind not in args.kinds:
                continue
            done = runs.setdefault(f"{name}, {args.iters} iterations, {kind}", [])
            if any(one["seed"] == seed for one in done):
                continue
            stem = re.sub(r"\W+", "_", f"{name} {args.iters} {kind} seed{seed}")
            done.append(train(name, kind, args.iters, seed, args.work_dir / stem, root))
            print(name, kind, done[-1], flush=True)
            write_results("small_objects", {"runs": runs, "summary": summary_of(runs)}, out)
    print(f"\n{markdown_table(summary_of(runs), 'val', 'val, percent')}\n")


def summary_of(runs: dict[str, list[dict]]) -> dict[str, dict]:
    return {kind: summarize(entries, ["val"]) for kind, entries in runs.items() if entries}


if __name__ == "__main__":
    parser = arguments(__doc__, "small_objects")
    parser.add_argument("--iters", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--kinds", nargs="+", choices=[*ASSIGNERS, *TILES], help="default: all")
    parser.add_argument("--work-dir", type=Path, default=ROOT / "work_dirs" / "small_objects")
    main(parser.parse_args())
