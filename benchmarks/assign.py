"""ATSS assignment: mmdet's assigner against negvision's, through the public ``assign``.

The priors are those of an 800 x 1344 image on five levels, 22,400 anchors. Both assigners alternate
in one process: mmdet's runs once per turn, negvision's 31 times, of which the median without the
first counts; then the median over turns. The floor is the kernel alone on one thread (CPU).

    python benchmarks/assign.py                          # writes results/assign.json
    python benchmarks/assign.py --boxes 10 100 --batches 1 --repeats 3
    python benchmarks/assign.py --device cuda            # results/assign_cuda.json
"""

from __future__ import annotations

import argparse
import statistics

import torch

# Before mmdet, which needs the mmcv._ext that negvision provides.
from harness import (
    alternate,
    arguments,
    in_process_of_its_own,
    machine,
    peak_memory,
    require_operators,
    write_results,
)

# isort: split
from mmdet.models.task_modules.assigners import ATSSAssigner as MMDetATSSAssigner
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmengine.structures import InstanceData
from torch.utils._python_dispatch import TorchDispatchMode

from negvision.detection.assigners import ATSSAssigner

HEIGHT, WIDTH = 800, 1344
STRIDES = (8, 16, 32, 64, 128)
NAMES = ("mmdet", "negvision")


def priors_on(device: str) -> tuple[torch.Tensor, list[int]]:
    generator = AnchorGenerator(
        strides=list(STRIDES), ratios=[1.0], octave_base_scale=8, scales_per_octave=1
    )
    shapes = [(-(-HEIGHT // s), -(-WIDTH // s)) for s in STRIDES]
    levels = generator.grid_priors(shapes, device="cpu")
    return torch.cat(levels).to(device), [len(level) for level in levels]


def truth(count: int, seed: int, device: str) -> InstanceData:
    """Boxes of 4 to 404 pixels a side, most of them small."""
    g = torch.Generator().manual_seed(seed)
    center = torch.rand(count, 2, generator=g) * torch.tensor([WIDTH, HEIGHT])
    half = (torch.rand(count, 2, generator=g) ** 2 * 400 + 4) / 2
    return InstanceData(
        bboxes=torch.cat([center - half, center + half], 1).to(device),
        labels=torch.randint(80, (count,), generator=g).to(device),
    )


def functions(batch: int, boxes: int, device: str) -> dict:
    """What is timed: one call for an image, or all images of a batch."""
    priors, counts = priors_on(device)
    gts = [truth(boxes, seed, device) for seed in range(batch)]
    instances = InstanceData(priors=priors)
    mmdet, ours = MMDetATSSAssigner(9), ATSSAssigner(9)
    if batch == 1:
        both = {"mmdet": mmdet, "negvision": ours}
        return {n: lambda a=a: a.assign(instances, counts, gts[0]).gt_inds for n, a in both.items()}
    return {
        "mmdet": lambda: torch.stack([mmdet.assign(instances, counts, g).gt_inds for g in gts]),
        "negvision": lambda: ours.assign_batch(priors, counts, gts)[0],
    }


class CountOperators(TorchDispatchMode):
    """Counts the operators that reach a backend."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def operators(function) -> int:
    with CountOperators() as counter:
        function()
    return counter.count


def floor_of(batch: int, boxes: int, repeats: int) -> float:
    """Median seconds of the compiled operator alone, on one thread."""
    priors, counts = priors_on("cpu")
    gts = torch.cat([truth(boxes, seed, "cpu").bboxes for seed in range(batch)])
    arguments = (priors[None], counts, gts, [boxes] * batch, 9, None, None, [0] * batch, -1.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    kernel = torch.ops.negvision.atss_assign
    taken = alternate({"f": lambda: kernel(*arguments, None, None, None, 1.0)}, repeats)
    torch.set_num_threads(threads)
    return taken["f"]["median_s"]


def compare(batch: int, boxes: int, device: str, repeats: int) -> dict:
    pair = functions(batch, boxes, device)
    different = int((pair["mmdet"]() != pair["negvision"]()).sum())
    # mmdet's runs leave cold caches and sleeping threads behind, so the fast assigner is timed in
    # groups, and the median of each group counts.
    group = 30
    runs: dict[str, list[float]] = {"mmdet": [], "negvision": []}
    for _ in range(repeats):
        runs["mmdet"] += alternate({"f": pair["mmdet"]}, 1, 0, device)["f"]["runs"]
        timed = alternate({"f": pair["negvision"]}, group, 1, device)["f"]
        runs["negvision"].append(timed["median_s"])
    if device == "cpu":
        case = str(batch), str(boxes)
        memory = {n: int(in_process_of_its_own(__file__, "--memory-of", n, *case)) for n in NAMES}
    else:
        memory = {name: peak_memory(pair[name], device) for name in NAMES}
    row = {
        "batch": batch,
        "boxes": boxes,
        "median_s": {name: statistics.median(runs[name]) for name in NAMES},
        "runs_s": runs,
        "peak_memory_bytes": memory,
        "operators": {name: operators(pair[name]) for name in NAMES},
        "anchors_assigned_differently": different,
    }
    if device == "cpu":
        row["kernel_on_one_thread_s"] = floor_of(batch, boxes, 30)
    row["times_faster"] = row["median_s"]["mmdet"] / row["median_s"]["negvision"]
    row["share_of_memory"] = memory["negvision"] / max(memory["mmdet"], 1)
    return row


def show(row: dict) -> None:
    seconds, memory, count = row["median_s"], row["peak_memory_bytes"], row["operators"]
    floor = row.get("kernel_on_one_thread_s")
    print(
        f"{row['batch']:>5} {row['boxes']:>5}   {seconds['mmdet'] * 1e3:>10.1f} "
        f"{seconds['negvision'] * 1e3:>9.3f} {row['times_faster']:>7,.0f} x   "
        f"{f'{floor * 1e3:.3f}' if floor else '-':>7}   "
        f"{memory['mmdet'] / 2**20:>8.1f} {memory['negvision'] / 2**20:>6.1f} "
        f"{row['share_of_memory']:>6.1%}   {count['mmdet']:>6,} {count['negvision']:>4}",
        flush=True,
    )


def main() -> None:
    parser = arguments(__doc__, "assign", repeats=5, devices=True)
    parser.add_argument("--boxes", type=int, nargs="+", default=[10, 100, 500, 1000])
    parser.add_argument("--batches", type=int, nargs="+", help="default: 1 8, with a GPU also 16")
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        name, batch, boxes = options.memory_of
        print(peak_memory(functions(int(batch), int(boxes), "cpu")[name], "cpu"))
        return
    require_operators()
    batches = options.batches or ([1, 8] if options.device == "cpu" else [1, 8, 16])
    print(f"{machine()['cpu']}, {torch.get_num_threads()} threads; device {options.device}")
    print(
        f"{'':>11}   {'milliseconds an assignment':^30}   {'kernel':>7}   "
        f"{'peak memory, MiB':^22}   {'operators':^11}\n"
        f"{'batch':>5} {'boxes':>5}   {'mmdet':>10} {'negvision':>9} {'ratio':>9}   "
        f"{'1 thr.':>7}   {'mmdet':>8} {'ours':>6} {'share':>6}   {'mmdet':>6} {'ours':>4}"
    )
    rows = []
    for batch in batches:
        for boxes in options.boxes:
            rows.append(compare(batch, boxes, options.device, options.repeats))
            show(rows[-1])
    name = "assign" if options.device == "cpu" else "assign_cuda"
    payload = {"priors": sum(priors_on("cpu")[1]), "threads": torch.get_num_threads()}
    write_results(name, {**payload, "rows": rows}, options.out)


if __name__ == "__main__":
    main()
