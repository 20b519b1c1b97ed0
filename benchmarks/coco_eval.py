"""Evaluators of COCO's AP and AR on the same detections: seconds, memory, and equal entries.

Compares pycocotools, faster-coco-eval, hotcoco, vernier and ultrafast-pycocotools, of which
negvision uses the first and the last; those that are not installed are left out. Each gets ground
truth as a dictionary and detections as arrays, in memory, by the fastest way its interface offers,
and returns precision and recall by IoU, recall, class, size and limit. Each runs in a process of
its own, in turns.

The set `boxes` has the size of COCO val2017: 80 classes, about 7.3 objects per image of which 1 %
are crowds, and 100 detections per image, two thirds of them near an object.

    python benchmarks/coco_eval.py --images 200 --repeats 1    # a short run
    python benchmarks/coco_eval.py                             # the values in results/
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import io
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from harness import arguments, machine, write_results

from negvision.benchmark.memory import peak_resident, resident

WIDTH, HEIGHT = 640, 480
AREAS = [[0.0, 1e10], [0.0, 32.0**2], [32.0**2, 96.0**2], [96.0**2, 1e10]]


@dataclass(frozen=True)
class Case:
    """Ground truth, and detections as columns sorted by image."""

    truth: dict[str, Any]
    image_ids: np.ndarray  # (N,)
    category_ids: np.ndarray  # (N,)
    boxes: np.ndarray  # (N, 4), x y width height
    scores: np.ndarray  # (N,)
    masks: list[dict] | None = None  # compressed RLE
    limits: tuple[int, ...] = (1, 10, 100)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def iou_type(self) -> str:
        return "bbox" if self.masks is None else "segm"

    def rows(self) -> np.ndarray:
        """(N, 7): image, box, score, class."""
        ids = self.image_ids[:, None], self.category_ids[:, None]
        return np.hstack([ids[0], self.boxes, self.scores[:, None], ids[1]]).astype(np.float64)

    def dictionaries(self) -> list[dict[str, Any]]:
        """A result in COCO's format for each detection, with id, area and iscrowd."""
        from pycocotools import mask as mask_api

        found = [
            {"image_id": image, "category_id": label, "bbox": box, "score": score}
            for image, label, box, score in zip(
                self.image_ids.tolist(),
                self.category_ids.tolist(),
                self.boxes.tolist(),
                self.scores.tolist(),
                strict=True,
            )
        ]
        for number, one in enumerate(found):
            area = one["bbox"][2] * one["bbox"][3]
            if self.masks is not None:
                one["segmentation"] = self.masks[number]
                area = float(mask_api.area(self.masks[number]))
            one |= {"id": number + 1, "iscrowd": 0, "area": area}
        return found


def draw(
    images: int,
    detections: int,
    classes: int = 80,
    objects: float = 7.3,
    crowds: float = 0.01,
    ignored: float = 0.0,
    score_digits: int | None = None,
    whole: bool = False,
    long_tail: bool = False,
    masks: bool = False,
    limits: tuple[int, ...] = (1, 10, 100),
    seed: int = 0,
) -> Case:
    """A random set; ``objects`` and ``detections`` are per image.

    Args:
        images, detections, classes, objects, seed: As said.
        crowds: Share of the objects that are crowds.
        ignored: Share of the objects with ``ignore: 1``, which pycocotools does not read.
        score_digits: Round scores, so that many are equal.
        whole: Boxes of whole pixels, so that overlaps meet the thresholds exactly.
        long_tail: The frequency of the n-th class is proportional to 1 / n.
        masks: Objects and detections are ellipses in their boxes.
        limits: Of detections per image and class.
    """
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, classes + 1) if long_tail else np.ones(classes)
    shares /= shares.sum()
    annotations: list[dict] = []
    columns: list[tuple] = []
    for image_id in range(1, images + 1):
        count = int(rng.poisson(objects))
        truth = _boxes(rng, count)
        labels = rng.choice(classes, count, p=shares) + 1
        boxes = _boxes(rng, detections)
        guesses = rng.choice(classes, detections, p=shares) + 1
        if count and detections:
            near = rng.random(detections) < 2 / 3
            source = rng.integers(0, count, detections)
            # Shifted by a tenth of width and height, so that small boxes are found too.
            scale = np.tile(truth[source, 2:], 2)
            shifted = truth[source] + scale * rng.normal(0, 0.1, (detections, 4))
            shifted[:, 2:] = np.maximum(shifted[:, 2:], 1)
            boxes[near] = shifted[near]
            right = near & (rng.random(detections) < 0.8)
            guesses[right] = labels[source][right]
        if whole:
            truth, boxes = (np.maximum(values.round(), 1) for values in (truth, boxes))
        crowd, left_out = rng.random(count) < crowds, rng.random(count) < ignored
        for number in range(count):
            box = truth[number].tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(labels[number]),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(crowd[number]),
                    **({"ignore": 1} if left_out[number] else {}),
                }
            )
        columns.append((np.full(detections, image_id), guesses, boxes, rng.random(detections)))
    ids, guesses, boxes, scores = (np.concatenate(part) for part in zip(*columns, strict=True))
    if score_digits is not None:
        scores = scores.round(score_digits)
    shapes = None
    if masks:
        shapes = _ellipses(boxes)
        own = _ellipses(np.array([one["bbox"] for one in annotations]))
        for one, shape in zip(annotations, own, strict=True):
            one["segmentation"] = shape
    ground_truth = {
        "info": {},
        "images": [{"id": n, "width": WIDTH, "height": HEIGHT} for n in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": n, "name": f"class {n}"} for n in range(1, classes + 1)],
    }
    facts = {"images": images, "objects": len(annotations), "detections": len(scores)}
    facts |= {"classes": classes, "iou_type": "segm" if masks else "bbox"}
    return Case(ground_truth, ids, guesses, boxes, scores, shapes, limits, facts)


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """``(count, 4)`` boxes x, y, width, height: sizes log-uniform from 8 to 400 pixels."""
    sizes = np.exp(rng.uniform(np.log(8), np.log(400), (count, 2)))
    corners = rng.uniform(0, 0.8, (count, 2)) * (WIDTH, HEIGHT)
    return np.concatenate([corners, sizes], axis=1)


def _ellipses(boxes: np.ndarray) -> list[dict]:
    """Ellipses of 16 corners in boxes, as RLE with text, which every evaluator reads."""
    from pycocotools import mask as mask_api

    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    unit = np.stack([np.cos(angles), np.sin(angles)], 1) / 2 + 0.5
    corners = boxes[:, None, :2] + unit * boxes[:, None, 2:]
    runs = mask_api.frPyObjects(corners.reshape(len(boxes), -1).tolist(), HEIGHT, WIDTH)
    return [{"size": one["size"], "counts": one["counts"].decode()} for one in runs]


def _cases(images: int) -> dict[str, Callable[[], Case]]:
    few = max(images // 25, 8)
    return {
        "boxes": lambda: draw(images, 100),
        "masks": lambda: draw(images, 100, masks=True),
        "LVIS": lambda: draw(
            max(images // 5, 8), 300, 1203, 11, long_tail=True, limits=(1, 10, 300)
        ),
        "crowds": lambda: draw(few, 100, 10, crowds=0.4, seed=1),
        "crowds, masks": lambda: draw(few, 100, 10, crowds=0.4, masks=True, seed=1),
        "ignores": lambda: draw(few, 100, 10, crowds=0.1, ignored=0.4, seed=2),
        "ties": lambda: draw(few, 100, 10, score_digits=1, whole=True, seed=3),
        "one class": lambda: draw(few, 100, 1, whole=True, seed=4),
        "no detections": lambda: draw(few, 0, 10, seed=5),
        "no objects": lambda: draw(few, 100, 10, objects=0, seed=6),
    }


def _tuned(evaluation: Any, case: Case) -> Any:
    """Run an evaluator with pycocotools' interface."""
    evaluation.params.maxDets = list(case.limits)
    evaluation.params.areaRng = AREAS
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _indexed(api: type, case: Case, annotations: list[dict]) -> Any:
    handle = api()
    handle.dataset = {**case.truth, "annotations": annotations}
    handle.createIndex()
    return handle


def _like_pycocotools(case: Case, api: type, evaluator: type) -> Any:
    truth = _indexed(api, case, [dict(one) for one in case.truth["annotations"]])
    return _tuned(evaluator(truth, _indexed(api, case, case.dictionaries()), case.iou_type), case)


def pycocotools(case: Case) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return _like_pycocotools(case, COCO, COCOeval)


def faster_coco_eval(case: Case) -> Any:
    from faster_coco_eval import COCO, COCOeval_faster

    return _like_pycocotools(case, COCO, COCOeval_faster)


def hotcoco(case: Case) -> Any:
    from hotcoco import COCO, COCOeval

    truth = COCO(case.truth)
    if case.masks is None:
        found = truth.load_res(case.rows())
    else:
        # Without boxes, so that areas are those of the masks.
        rows = case.dictionaries()
        found = truth.load_res([{k: v for k, v in one.items() if k != "bbox"} for one in rows])
    return _tuned(COCOeval(truth, found, case.iou_type), case)


def vernier(case: Case) -> Any:
    from vernier import _core
    from vernier.instance import Breakdown, CocoDataset

    objects = case.truth["annotations"]
    columns = {
        name: np.array([one[name] for one in objects], dtype)
        for name, dtype in (
            ("id", np.int64),
            ("image_id", np.int64),
            ("category_id", np.int64),
            ("area", np.float64),
            ("iscrowd", np.int64),
        )
    }
    columns["bbox"] = np.array([one["bbox"] for one in objects], np.float64).reshape(-1, 4)
    options: dict[str, Any] = {}
    if case.masks is not None:
        columns["segmentation"] = [one["segmentation"] for one in objects]
        found: Any = case.dictionaries()
        options["dt_area"] = "supplied"
    else:
        starts = np.flatnonzero(np.diff(case.image_ids, prepend=-1))
        ends = np.append(starts, len(case.scores))[1:]
        labels = case.category_ids.astype(np.int64)
        found = [
            {
                "image_id": int(case.image_ids[start]),
                "boxes": case.boxes[start:end],
                "scores": case.scores[start:end],
                "labels": labels[start:end],
            }
            for start, end in zip(starts, ends, strict=True)
        ]
    images = {
        key: np.array([image[key] for image in case.truth["images"]])
        for key in ("id", "width", "height")
    }
    names = ("all", "small", "medium", "large")
    ranges = [(name, low, high) for name, (low, high) in zip(names, AREAS, strict=True)]
    run = getattr(_core, f"evaluate_{case.iou_type}_grid")
    grid = run(
        CocoDataset.from_arrays(images, columns, case.truth["categories"]),
        found,
        parity_mode="strict",
        max_dets_per_image=max(case.limits),
        use_cats=True,
        area_ranges=Breakdown.from_ranges("area", ranges),
        **options,
    )
    result = grid.accumulate(list(case.limits))
    return result.precision, result.recall


def ultrafast(case: Case) -> Any:
    from ultrafast_pycocotools import COCO, COCOeval

    truth = COCO(case.truth, verbose=False)
    if case.masks is None:
        found = truth.loadRes(case.rows())
    else:
        found = COCO({**case.truth, "annotations": case.dictionaries()}, verbose=False)
    return _tuned(COCOeval(truth, found, case.iou_type), case)


EVALUATORS: dict[str, tuple[str, Callable[[Case], Any]]] = {
    "pycocotools": ("pycocotools", pycocotools),
    "faster-coco-eval": ("faster_coco_eval", faster_coco_eval),
    "hotcoco": ("hotcoco", hotcoco),
    "vernier": ("vernier", vernier),
    "ultrafast-pycocotools": ("ultrafast_pycocotools", ultrafast),
}


def _measured(connection: Any, case: Case, name: str, out: str) -> None:
    """Evaluate in this process, write precision and recall to ``out``, send seconds and bytes."""
    package, run = EVALUATORS[name]
    importlib.import_module(package)
    taken = []

    def timed() -> Any:
        start, used = time.perf_counter(), time.process_time()
        result = run(case)
        taken.append((time.perf_counter() - start, time.process_time() - used))
        return result

    kept: list[Any] = []
    problem = ""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            before = resident()
            peak = peak_resident(lambda: kept.append(timed())) - before
        precision, recall = (np.asarray(values) for values in kept[0])
        np.savez(out, precision=precision, recall=recall)
    except Exception as error:
        problem, peak = f"{type(error).__name__}: {error}", 0
    connection.send((*(taken[0] if taken else (float("nan"),) * 2), peak, problem))


def _compared(reference: Path, path: Path) -> dict[str, Any]:
    with np.load(reference) as expected, np.load(path) as found:
        if any(found[key].shape != expected[key].shape for key in expected):
            return {"shapes": {key: list(found[key].shape) for key in expected}}
        gaps = np.concatenate([np.abs(found[k] - expected[k]).ravel() for k in expected])
    return {
        "entries": gaps.size,
        "entries_that_differ": int((gaps > 0).sum()),
        "largest_difference": float(gaps.max(initial=0)),
    }


def main() -> None:
    parser = arguments(__doc__, "coco_eval", repeats=3)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--case", action="append", help="only these sets")
    args = parser.parse_args()
    names = [name for name, (package, _) in EVALUATORS.items() if importlib.util.find_spec(package)]
    fork = multiprocessing.get_context("fork")
    cases = {}
    for title, build in _cases(args.images).items():
        if args.case and title not in args.case:
            continue
        case = build()
        # Else the processes would fill memory that is free here, and seem to need less.
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        runs: dict[str, list] = {name: [] for name in names}
        with tempfile.TemporaryDirectory() as folder:
            files = {name: Path(folder) / f"{name}.npz" for name in names}
            # The first two take a minute on the large sets.
            for turn in range(args.repeats):
                for name in names if turn == 0 else names[2:]:
                    here, there = fork.Pipe()
                    task = (there, case, name, str(files[name]))
                    process = fork.Process(target=_measured, args=task)
                    process.start()
                    runs[name].append(here.recv())
                    process.join()
            found = {}
            for name in names:
                seconds, of_cpu, peaks, problems = zip(*runs[name], strict=True)
                found[name] = {
                    "median_s": statistics.median(seconds),
                    "median_cpu_s": statistics.median(of_cpu),
                    "runs": seconds,
                    "peak_mib": max(peaks) / 2**20,
                }
                if problems[0]:
                    found[name]["problem"] = problems[0]
                else:
                    found[name] |= _compared(files["pycocotools"], files[name])
                print(f"{title:<14} {name:<22} {found[name]}", flush=True)
        cases[title] = {"set": case.facts, "evaluators": found}
    payload = {"versions": {name: version(name) for name in names}, "cases": cases}
    print(machine()["cpu"])
    write_results("coco_eval", payload, args.out)


if __name__ == "__main__":
    main()
