"""Intervals of AP and AR: how often they contain the true value, and how long they take.

Coverage is counted on simulated test sets, each a sample of the same population of images: objects
of three classes differ in how hard they are, and images too, so that errors come together. The true
values are those of one large set. Time is that of 1,000 resamples of a set with the size of COCO
val2017 (that of benchmarks/coco_eval.py).

    python benchmarks/intervals.py --sets 50 --images 500    # a short run
    python benchmarks/intervals.py                           # the values in results/
"""

from __future__ import annotations

import time

import numpy as np
import torch
from coco_eval import draw
from harness import arguments, machine, write_results

from negvision.bootstrap import bootstrap, interval
from negvision.detection.metrics.coco_evaluation import CocoDetections
from negvision.detection.metrics.coco_statistics import CocoStatistics

CLASSES = (1, 2, 3)
FIGURES = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l", "AR@1", "AR@100")


def simulate(images: int, rng: np.random.Generator) -> tuple[dict, CocoDetections]:
    """Ground truth and detections of ``images`` images: objects found well, badly or not."""
    image_ids = np.arange(images)
    skill = rng.normal(0, 0.5, images)  # of the detector on each image
    owner = np.repeat(image_ids, rng.poisson(4, images))
    label = rng.choice(CLASSES, len(owner), p=(0.6, 0.3, 0.1))
    side = np.exp(rng.uniform(np.log(12), np.log(200), len(owner)))
    corner = rng.uniform(0, 400, (len(owner), 2))
    boxes = np.column_stack([corner, side, side])
    annotations = [
        {
            "id": number,
            "image_id": int(image),
            "category_id": int(category),
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for number, (image, category, box) in enumerate(
            zip(owner, label, boxes.tolist(), strict=True), start=1
        )
    ]
    # Confidence goes up with the skill, and the error of the box down.
    ability = skill[owner] + rng.normal(1, 1, len(owner)) - 0.3 * label
    seen = ability > 0
    shift = rng.normal(0, 0.12, (len(owner), 4)) / (1 + np.maximum(ability, 0))[:, None]
    moved = boxes + shift * side[:, None]
    score = 1 / (1 + np.exp(-ability + rng.normal(0, 0.7, len(owner))))
    wrong = np.repeat(image_ids, rng.poisson(3, images))
    wrong_side = np.exp(rng.uniform(np.log(12), np.log(200), len(wrong)))
    wrong_boxes = np.column_stack([rng.uniform(0, 400, (len(wrong), 2)), wrong_side, wrong_side])
    wrong_score = 1 / (1 + np.exp(1.2 + skill[wrong] + rng.normal(0, 1, len(wrong))))
    found = CocoDetections(
        np.concatenate([owner[seen], wrong]).astype(object),
        np.concatenate([label[seen], rng.choice(CLASSES, len(wrong))]),
        np.concatenate([moved[seen], wrong_boxes]),
        np.concatenate([score[seen], wrong_score]),
    )
    truth = {
        "images": [{"id": int(number)} for number in image_ids],
        "annotations": annotations,
        "categories": [{"id": category} for category in CLASSES],
    }
    return truth, found


def coverage(sets: int, images: int, resamples: int, seed: int) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(seed)
    big = CocoStatistics(*simulate(100_000, rng), CLASSES)
    chosen = [big.names.index(name) for name in FIGURES]
    exact = big.figures(np.ones((1, 100_000)))[0, chosen]
    inside, widths, values = [], [], []
    for number in range(sets):
        statistics = CocoStatistics(*simulate(images, rng), CLASSES)
        draws = bootstrap(statistics.figures, np.arange(images), resamples, seed=number)[:, chosen]
        value = statistics.figures(np.ones((1, images)))[0, chosen]
        low, high = interval(value, draws)
        inside.append((low <= exact) & (exact <= high))
        widths.append(high - low)
        values.append(value)
    columns = (
        np.mean(inside, 0),
        np.mean(widths, 0),
        np.std(values, 0),
        np.mean(values, 0) - exact,
    )
    keys = ("coverage", "mean_width", "spread_of_sets", "mean_minus_true")
    return {
        name: {"true": exact[place], **{k: c[place] for k, c in zip(keys, columns, strict=True)}}
        for place, name in enumerate(FIGURES)
    }


def main() -> None:
    parser = arguments(__doc__, "intervals")
    parser.add_argument("--sets", type=int, default=500, help="simulated test sets")
    parser.add_argument("--set-images", type=int, default=500, help="images of each")
    parser.add_argument("--resamples", type=int, default=400, help="for the coverage")
    parser.add_argument("--images", type=int, default=5000, help="of the set that is timed")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    case = draw(args.images, 100)
    found = CocoDetections(case.image_ids, case.category_ids, case.boxes, case.scores)
    start, used = time.perf_counter(), time.process_time()
    statistics = CocoStatistics(case.truth, found, range(1, 81))
    matched, matched_cpu = time.perf_counter() - start, time.process_time() - used
    start, used = time.perf_counter(), time.process_time()
    bootstrap(statistics.figures, np.arange(args.images))
    timed = {
        "set": case.facts,
        "resamples": 1000,
        "threads": torch.get_num_threads(),
        "matching_s": matched,
        "matching_cpu_s": matched_cpu,
        "resampling_s": time.perf_counter() - start,
        "resampling_cpu_s": time.process_time() - used,
    }
    print(machine()["cpu"], timed, flush=True)
    covered = coverage(args.sets, args.set_images, args.resamples, args.seed)
    for name, one in covered.items():
        print(f"{name:<8} {'  '.join(f'{key} {value:.4f}' for key, value in one.items())}")
    payload = {
        "time": timed,
        "sets": args.sets,
        "images": args.set_images,
        "resamples": args.resamples,
        "coverage": covered,
    }
    write_results("intervals", payload, args.out)


if __name__ == "__main__":
    main()
