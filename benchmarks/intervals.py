"""Intervals of AP and AR and of differences: how often they contain the true value, and their time.

Coverage is counted on simulated test sets, each a sample of the same population of images: objects
of three classes differ in how hard they are, and images too, so that errors come together. The true
values are those of one large set. Pairs are two detectors on the same images, of which one is a
little better. Time is that of 1,000 resamples of a set with the size of COCO
val2017 (that of benchmarks/coco_eval.py).

    python benchmarks/intervals.py --sets 50 --images 500          # a short run
    python benchmarks/intervals.py                                 # the values in results/
    python benchmarks/intervals.py --only pairs --out NAME.json    # a part: time, sets or pairs
"""

from __future__ import annotations

import time

import numpy as np
import torch
from coco_eval import draw
from harness import arguments, machine, write_results

from negvision.bootstrap import Side, bootstrap, interval, paired_difference
from negvision.detection.metrics.coco_evaluation import CocoDetections
from negvision.detection.metrics.coco_statistics import CocoStatistics

CLASSES = (1, 2, 3)
# Of the second detector of a pair, in units of the spread of images.
BETTER = 0.1
FIGURES = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l", "AR@1", "AR@100")


def simulate(
    images: int, rng: np.random.Generator, detectors: int = 1
) -> tuple[dict, list[CocoDetections]]:
    """Ground truth of ``images`` images, and detections: objects found well, badly or not.

    Each detector after the first is a little better. Images and objects are as hard for all.
    """
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
    truth = {
        "images": [{"id": int(number)} for number in image_ids],
        "annotations": annotations,
        "categories": [{"id": category} for category in CLASSES],
    }
    hardness = skill[owner] + rng.normal(1, 1, len(owner)) - 0.3 * label
    shared = (image_ids, skill, owner, label, boxes)
    if detectors == 1:
        return truth, [detect(*shared, hardness, rng)]
    own = [hardness + BETTER * one + rng.normal(0, 0.3, len(owner)) for one in range(detectors)]
    return truth, [detect(*shared, ability, rng) for ability in own]


def detect(
    image_ids: np.ndarray,
    skill: np.ndarray,
    owner: np.ndarray,
    label: np.ndarray,
    boxes: np.ndarray,
    ability: np.ndarray,
    rng: np.random.Generator,
) -> CocoDetections:
    """Of one detector."""
    side = boxes[:, 2]
    # Confidence goes up with the skill, and the error of the box down.
    seen = ability > 0
    shift = rng.normal(0, 0.12, (len(owner), 4)) / (1 + np.maximum(ability, 0))[:, None]
    moved = boxes + shift * side[:, None]
    score = 1 / (1 + np.exp(-ability + rng.normal(0, 0.7, len(owner))))
    wrong = np.repeat(image_ids, rng.poisson(3, len(image_ids)))
    wrong_side = np.exp(rng.uniform(np.log(12), np.log(200), len(wrong)))
    wrong_boxes = np.column_stack([rng.uniform(0, 400, (len(wrong), 2)), wrong_side, wrong_side])
    wrong_score = 1 / (1 + np.exp(1.2 + skill[wrong] + rng.normal(0, 1, len(wrong))))
    return CocoDetections(
        np.concatenate([owner[seen], wrong]).astype(object),
        np.concatenate([label[seen], rng.choice(CLASSES, len(wrong))]),
        np.concatenate([moved[seen], wrong_boxes]),
        np.concatenate([score[seen], wrong_score]),
    )


def coverage(sets: int, images: int, resamples: int, seed: int) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(seed)
    truth, [found] = simulate(100_000, rng)
    big = CocoStatistics(truth, found, CLASSES)
    chosen = [big.names.index(name) for name in FIGURES]
    exact = big.figures(np.ones((1, 100_000)))[0, chosen]
    inside, widths, values = [], [], []
    for number in range(sets):
        truth, [found] = simulate(images, rng)
        statistics = CocoStatistics(truth, found, CLASSES)
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


def paired_coverage(
    sets: int, images: int, resamples: int, seed: int
) -> dict[str, dict[str, float]]:
    """How often the interval of a difference contains the true one, and how wide it is."""
    rng = np.random.default_rng(seed)
    truth, both = simulate(100_000, rng, 2)
    big = [CocoStatistics(truth, found, CLASSES) for found in both]
    chosen = [big[0].names.index(name) for name in FIGURES]
    values = [one.figures(np.ones((1, 100_000)))[0, chosen] for one in big]
    exact = values[1] - values[0]
    inside, paired, alone, different = [], [], [], []
    for number in range(sets):
        truth, both = simulate(images, rng, 2)
        sides = []
        for found in both:
            statistics = CocoStatistics(truth, found, CLASSES)
            drawn = bootstrap(statistics.figures, np.arange(images), resamples, seed=number)
            value = statistics.figures(np.ones((1, images)))[0, chosen]
            sides.append(Side.of([(value, drawn[:, chosen])]))
        gap = paired_difference(*sides, images)
        inside.append((gap.low <= exact) & (exact <= gap.high))
        paired.append(gap.high - gap.low)
        different.append(gap.p_value < 0.05)
        # As if the two had been tested on different images.
        alone.append(2 * 1.96 * np.sqrt(sum(np.nanvar(side.draws, 0, ddof=1) for side in sides)))
    columns = [np.mean(column, 0) for column in (inside, paired, alone, different)]
    keys = ("coverage", "mean_width", "mean_width_unpaired", "seen")
    return {
        name: {"true": exact[place], **{k: c[place] for k, c in zip(keys, columns, strict=True)}}
        for place, name in enumerate(FIGURES)
    }


def timing(images: int) -> dict:
    """Time of 1,000 resamples of a set like COCO val2017."""
    case = draw(images, 100)
    found = CocoDetections(case.image_ids, case.category_ids, case.boxes, case.scores)
    start, used = time.perf_counter(), time.process_time()
    statistics = CocoStatistics(case.truth, found, range(1, 81))
    matched, matched_cpu = time.perf_counter() - start, time.process_time() - used
    start, used = time.perf_counter(), time.process_time()
    bootstrap(statistics.figures, np.arange(images))
    return {
        "set": case.facts,
        "resamples": 1000,
        "threads": torch.get_num_threads(),
        "matching_s": matched,
        "matching_cpu_s": matched_cpu,
        "resampling_s": time.perf_counter() - start,
        "resampling_cpu_s": time.process_time() - used,
    }


def main() -> None:
    parser = arguments(__doc__, "intervals")
    parser.add_argument("--sets", type=int, default=500, help="simulated test sets")
    parser.add_argument("--set-images", type=int, default=500, help="images of each")
    parser.add_argument("--resamples", type=int, default=400, help="for the coverage")
    parser.add_argument("--images", type=int, default=5000, help="of the set that is timed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["time", "sets", "pairs"], help="measure a part alone")
    args = parser.parse_args()
    parts = [args.only] if args.only else ["time", "sets", "pairs"]
    simulated = (args.sets, args.set_images, args.resamples, args.seed)
    payload = {"sets": args.sets, "images": args.set_images, "resamples": args.resamples}
    if "time" in parts:
        payload["time"] = timing(args.images)
        print(machine()["cpu"], payload["time"], flush=True)
    for part, key, measured in (
        ("sets", "coverage", coverage),
        ("pairs", "pairs", paired_coverage),
    ):
        if part in parts:
            payload[key] = measured(*simulated)
            for name, one in payload[key].items():
                print(f"{name:<8} {'  '.join(f'{key} {value:.4f}' for key, value in one.items())}")
    write_results("intervals", payload, args.out)


if __name__ == "__main__":
    main()
