"""Images per second that one core prepares for training: the floor, the usual way, negvision's.

Real images go through the pipelines of ``configs/_base_/datasets`` and through the same steps of
mmdet, mmcv and mmseg, alternating in one process on one core; medians. The floor is what every
pipeline must do: decode and resize. Both pipelines must give equal tensors, with flips forced off
and on, or the run fails; photometric distortion may differ by two gray levels on average. Times
are CPU seconds of this process, with files cached after the first round. ``--workers`` also
measures, in wall-clock seconds, what reaches the training process through workers on all cores.

    NEGVISION_DATA=data python benchmarks/dataloader.py       # results/dataloader.json
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable

from dataloader_cases import Case, detection, faces, segmentation

# isort: split
import cv2
import numpy as np
import torch
from harness import alternate, arguments, machine, write_results
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader, Subset

CASES: dict[str, Callable[[], Case]] = {
    "detection": detection,
    "faces": faces,
    "segmentation": segmentation,
    "segmentation_without_photometric": lambda: segmentation(photometric=False),
    "segmentation_half_size": lambda: segmentation(zoom=1),
}
# Rounds take half a second to a second.
IMAGES = {"detection": 128, "faces": 3000}
OTHER_IMAGES = 200


def same_tensors(case: Case, count: int) -> int:
    """Compare both pipelines under equal seeds, without and with flips.

    Returns:
        How many tensors were compared.

    Raises:
        AssertionError: Two differ, on average by more than ``case.tolerance``.
    """
    compared = 0
    for flip in (0.0, 1.0):
        usual, ours = case.build(False, flip), case.build(True, flip)
        for index in range(count):
            packed = []
            for dataset in (usual, ours):
                np.random.seed(index)  # noqa: NPY002
                packed.append(dataset[index])
            pairs = [[p["inputs"], *case.tensors(p)] for p in packed]
            for theirs, mine in zip(*pairs, strict=True):
                apart = (theirs.double() - mine.double()).abs()
                equal = torch.equal(theirs, mine) or apart.mean() <= case.tolerance
                assert equal, f"{case.title}: image {index}, flip {flip}"
                compared += 1
    return compared


def on_one_core(case: Case, count: int, repeats: int) -> dict[str, dict]:
    """Time the plain steps and both pipelines, alternating."""
    usual, ours = case.build(False, None), case.build(True, None)
    infos = [ours.get_data_info(index) for index in range(count)]
    timed = [(name, step, infos) for name, step in case.plain.items()]
    timed += [(case.usual, usual.__getitem__, range(count))]
    timed += [("negvision", ours.__getitem__, range(count))]
    functions = {
        name: lambda function=function, samples=samples: deque(map(function, samples), 0)
        for name, function, samples in timed
    }
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        return alternate(functions, repeats, clock=time.process_time)
    finally:
        os.sched_setaffinity(0, cores)


def through_workers(case: Case, count: int, repeats: int) -> dict[str, dict]:
    """Time one pass over a DataLoader with 0, 1 and 2 workers, started before."""
    functions = {}
    for workers in (0, 1, 2):
        for name, negvision_one in ((case.usual, False), ("negvision", True)):
            loader = DataLoader(
                Subset(case.build(negvision_one, None), range(count)),
                batch_size=case.batch,
                num_workers=workers,
                persistent_workers=workers > 0,
                collate_fn=case.collate if negvision_one else pseudo_collate,
                worker_init_fn=one_thread,
            )
            functions[f"{name}, workers {workers}"] = lambda loader=loader: deque(loader, 0)
    return alternate(functions, repeats)


def one_thread(_worker: int = 0) -> None:
    """Use one thread in this process."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def speeds(times: dict[str, dict], count: int) -> dict[str, dict[str, float]]:
    """Images per second: ``median``, and the slowest and the fastest round."""
    return {
        name: {
            "median": count / taken["median_s"],
            "slowest": count / max(taken["runs"]),
            "fastest": count / taken["min_s"],
        }
        for name, taken in times.items()
    }


def show(rows: dict[str, dict[str, float]]) -> None:
    for name, row in rows.items():
        print(
            f"  {name:<22} {row['median']:>7.0f} images/s   "
            f"({row['slowest']:.0f} ... {row['fastest']:.0f})"
        )


def main() -> None:
    parser = arguments(__doc__, "dataloader", repeats=9)
    parser.add_argument("--case", choices=list(CASES), action="append", help="default: all")
    parser.add_argument("--images", type=int, help="a round; default: about a second's")
    parser.add_argument("--workers", action="store_true", help="measure worker processes too")
    options = parser.parse_args()
    one_thread()
    logging.disable(logging.INFO)

    print(f"{machine()['cpu']}, one core")
    results, left_out = {}, {}
    for name in options.case or CASES:
        try:
            case = CASES[name]()
        except (FileNotFoundError, ImportError) as error:
            print(f"{name}: left out, {error}")
            left_out[name] = str(error)
            continue
        count = min(options.images or IMAGES.get(name, OTHER_IMAGES), len(case.build(True, None)))
        compared = same_tensors(case, min(count, 128))
        rows = speeds(on_one_core(case, count, options.repeats), count)
        ours = rows["negvision"]["median"]
        share = ours / rows[case.floor]["median"]
        times = ours / rows[case.usual]["median"]
        print(f"{case.title}: {count} images, {compared} tensors equal")
        show(rows)
        print(f"  negvision: {times:.2f} x {case.usual}, {share:.2f} of {case.floor}")
        results[name] = {
            "title": case.title,
            "images": count,
            "batch": case.batch,
            "tensors_compared": compared,
            "floor": case.floor,
            "usual": case.usual,
            "images_per_second": rows,
            "negvision_over_usual": times,
            "negvision_over_floor": share,
        }
        if options.workers:
            measured = through_workers(case, count, options.repeats)
            results[name]["through_workers"] = speeds(measured, count)
            show(results[name]["through_workers"])
    if not results:
        sys.exit("nothing was measured")
    write_results("dataloader", {"cases": results, "left_out": left_out}, options.out)


if __name__ == "__main__":
    main()
