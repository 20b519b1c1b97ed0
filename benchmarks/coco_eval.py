"""COCO evaluation by faster-coco-eval and by pycocotools: time and difference of the metrics.

The random set has the size of COCO val2017: 80 classes, about 7.3 objects per image of which 1 %
are crowds, and 100 detections per image, two thirds of them near an object.

    python benchmarks/coco_eval.py --images 200 --repeats 1    # a short run
    python benchmarks/coco_eval.py                             # the values in results/
"""

from __future__ import annotations

import numpy as np
from harness import alternate, arguments, machine, write_results

from negvision.detection.metrics.coco_evaluation import BACKENDS, CocoResult, evaluate_coco

CLASSES = 80
WIDTH, HEIGHT = 640, 480


def draw_set(images: int, detections: int, objects: float, seed: int) -> tuple[dict, list[dict]]:
    """Ground truth and detections in COCO's format."""
    rng = np.random.default_rng(seed)
    annotations: list[dict] = []
    found: list[dict] = []
    for image_id in range(1, images + 1):
        count = int(rng.poisson(objects))
        truth = draw_boxes(rng, count)
        labels = rng.integers(1, CLASSES + 1, count)
        crowds = rng.random(count) < 0.01
        for box, label, crowd in zip(truth.tolist(), labels.tolist(), crowds, strict=True):
            item = {"id": len(annotations) + 1, "image_id": image_id, "category_id": label}
            annotations.append(
                {**item, "bbox": box, "area": box[2] * box[3], "iscrowd": int(crowd)}
            )
        boxes = draw_boxes(rng, detections)
        guesses = rng.integers(1, CLASSES + 1, detections)
        if count:
            near = rng.random(detections) < 2 / 3
            source = rng.integers(0, count, detections)
            # Shifted by a tenth of width and height, so that small boxes are found too.
            scale = np.tile(truth[source, 2:], 2)
            shifted = truth[source] + scale * rng.normal(0, 0.1, (detections, 4))
            shifted[:, 2:] = np.maximum(shifted[:, 2:], 1)
            boxes[near] = shifted[near]
            right = near & (rng.random(detections) < 0.8)
            guesses[right] = labels[source][right]
        scores = rng.random(detections).tolist()
        found += [
            {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
            for box, label, score in zip(boxes.tolist(), guesses.tolist(), scores, strict=True)
        ]
    ground_truth = {
        "images": [{"id": n, "width": WIDTH, "height": HEIGHT} for n in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": n, "name": f"class {n}"} for n in range(1, CLASSES + 1)],
    }
    return ground_truth, found


def draw_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """``(count, 4)`` boxes x, y, width, height: sizes log-uniform from 8 to 400 pixels."""
    sizes = np.exp(rng.uniform(np.log(8), np.log(400), (count, 2)))
    corners = rng.uniform(0, 0.8, (count, 2)) * (WIDTH, HEIGHT)
    return np.concatenate([corners, sizes], axis=1)


def main() -> None:
    parser = arguments(__doc__, "coco_eval", repeats=3)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="per image")
    parser.add_argument("--objects", type=float, default=7.3, help="per image, on average")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    truth, detections = draw_set(args.images, args.detections, args.objects, args.seed)
    drawn = {
        "images": args.images,
        "objects": len(truth["annotations"]),
        "detections": len(detections),
        "classes": CLASSES,
        "seed": args.seed,
    }
    print(f"{machine()['cpu']}\n{drawn}", flush=True)
    results: dict[str, CocoResult] = {}

    def run(backend: str) -> None:
        ids = range(1, CLASSES + 1)
        results[backend] = evaluate_coco(truth, detections, ids, backend=backend)

    times = alternate(
        {backend: lambda backend=backend: run(backend) for backend in BACKENDS},
        repeats=args.repeats,
        warmup=0,
    )
    ratio = times["pycocotools"]["median_s"] / times["faster"]["median_s"]
    fast, slow = results["faster"], results["pycocotools"]
    metrics = {name: np.array(list(one.metrics().values())) for name, one in results.items()}
    difference = float(np.abs(metrics["faster"] - metrics["pycocotools"]).max())
    of_entries = max(
        float(np.abs(fast.precision - slow.precision).max()),
        float(np.abs(fast.recall - slow.recall).max()),
    )
    for backend in BACKENDS:
        print(f"{backend:<12} {times[backend]['median_s']:8.2f} s (median of {args.repeats})")
    print(
        f"faster-coco-eval is {ratio:.1f} times as fast; largest difference of the 12 metrics "
        f"{difference:.1e}, of the entries of precision and recall {of_entries:.1e}"
    )
    payload = {
        "set": drawn,
        "times": times,
        "pycocotools_over_faster": ratio,
        "largest_difference": difference,
        "largest_difference_of_entries": of_entries,
        "entries": fast.precision.size + fast.recall.size,
        "figures": metrics,
    }
    write_results("coco_eval", payload, args.out)


if __name__ == "__main__":
    main()
