"""Assigners of positives: mmdet's against negvision's, through the public ``assign``.

The priors are those of an 800 x 1344 image on five levels, 22,400 anchors; predictions are boxes
and scores of 80 classes about the objects, as a detector in training makes them. Both assigners
alternate in one process: mmdet's runs once per turn, negvision's 31 times, of which the median
without the first counts; then the median over turns. In a training, other work empties the caches
before each call: given are also the time of calls after a pass over 16 MiB of memory each, and of
the first call after mmdet's. The floor of ATSS is the kernel alone on one
thread (CPU). Where mmdet's would need more than 6 GiB it is left out.

    python benchmarks/assign.py                          # ATSS; writes results/assign.json
    python benchmarks/assign.py --assigners tal sim_ota soft_label max_iou --out assigners.json
    python benchmarks/assign.py --boxes 10 100 --batches 1 --repeats 3
    python benchmarks/assign.py --device cuda            # results/assign_cuda.json
"""

from __future__ import annotations

import argparse
import itertools
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
import mmdet.models.task_modules.assigners as stock
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmengine.structures import InstanceData
from torch.utils._python_dispatch import TorchDispatchMode

from negvision.detection import assigners, prediction_assigners

HEIGHT, WIDTH = 800, 1344
STRIDES = (8, 16, 32, 64, 128)
CLASSES = 80
ASSIGNERS = {
    "atss": (stock.ATSSAssigner, assigners.ATSSAssigner, {"topk": 9}),
    "tal": (stock.TaskAlignedAssigner, prediction_assigners.TaskAlignedAssigner, {"topk": 13}),
    "sim_ota": (stock.SimOTAAssigner, prediction_assigners.SimOTAAssigner, {}),
    "soft_label": (
        stock.DynamicSoftLabelAssigner,
        prediction_assigners.DynamicSoftLabelAssigner,
        {},
    ),
    "max_iou": (
        stock.MaxIoUAssigner,
        assigners.MaxIoUAssigner,
        {"pos_iou_thr": 0.5, "neg_iou_thr": 0.4, "min_pos_iou": 0},
    ),
}


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


def predictions(name: str, gt: InstanceData, seed: int, device: str) -> InstanceData:
    """Priors as the assigner takes them, and what a network might predict there."""
    squares, counts = priors_on("cpu")
    g = torch.Generator().manual_seed(seed)
    middle, box = (squares[:, :2] + squares[:, 2:]) / 2, squares
    found = torch.zeros(len(squares), dtype=torch.bool)
    label = torch.zeros(len(squares), dtype=torch.int64)
    bboxes, labels = gt.bboxes.cpu(), gt.labels.cpu()
    for i in (bboxes[:, 2:] - bboxes[:, :2]).prod(1).argsort(descending=True):  # small ones last
        inside = ((middle > bboxes[i, :2]) & (middle < bboxes[i, 2:])).all(1)
        box = torch.where(inside[:, None], bboxes[i], box)
        label = torch.where(inside, labels[i], label)
        found |= inside
    size = (box[:, 2:] - box[:, :2]).repeat(1, 2)
    logits = torch.randn(len(squares), CLASSES, generator=g) - 4
    logits[found, label[found]] += 3
    priors = squares
    if name in ("sim_ota", "soft_label"):
        stride = torch.tensor([s for s, n in zip(STRIDES, counts, strict=True) for _ in range(n)])
        priors = torch.cat([middle, stride[:, None].expand(-1, 2)], 1)
    return InstanceData(
        priors=priors.to(device),
        bboxes=(box + torch.randn(box.shape, generator=g) * size * 0.1).to(device),
        scores=(logits if name == "soft_label" else logits.sigmoid()).to(device),
    )


def functions(name: str, batch: int, boxes: int, device: str) -> dict:
    """What is timed: one call for an image, or all images of a batch."""
    theirs, own, arguments = ASSIGNERS[name]
    both = {"mmdet": theirs(**arguments), "negvision": own(**arguments)}
    priors, counts = priors_on(device)
    gts = [truth(boxes, seed, device) for seed in range(batch)]
    preds, levels = [InstanceData(priors=priors)] * batch, (counts,)
    if name != "atss":
        preds = [predictions(name, gt, seed, device) for seed, gt in enumerate(gts)]
        levels = ()
        classes = CLASSES if name in ("sim_ota", "soft_label") else 1
        if boxes * len(priors) * classes * 4 * 6 > 6 << 30:
            del both["mmdet"]

    def run(assigner):
        each = zip(preds, gts, strict=True)
        found = [assigner.assign(pred, *levels, gt).gt_inds for pred, gt in each]
        return torch.stack(found) if batch > 1 else found[0]

    timed = {n: lambda a=a: run(a) for n, a in both.items()}
    if name == "atss" and batch > 1:
        timed["negvision"] = lambda: both["negvision"].assign_batch(priors, counts, gts)[0]
    return timed


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


def compare(name: str, batch: int, boxes: int, device: str, repeats: int) -> dict:
    pair = functions(name, batch, boxes, device)
    # mmdet's runs leave cold caches and sleeping threads behind, so the fast assigner is timed in
    # groups, and the median of each group counts.
    group = 30
    runs: dict[str, list[float]] = {n: [] for n in pair}
    cold: dict[str, list[float]] = {"after_16_mib": []}
    memory_to_pass = torch.zeros(16 << 20, dtype=torch.uint8, device=device)
    for _ in range(repeats):
        own = {"f": pair["negvision"]}
        if "mmdet" in pair:
            runs["mmdet"] += alternate({"f": pair["mmdet"]}, 1, 0, device)["f"]["runs"]
            cold.setdefault("after_mmdet", []).extend(alternate(own, 1, 0, device)["f"]["runs"])
        runs["negvision"].append(alternate(own, group, 1, device)["f"]["median_s"])
        passed = alternate({"pass": lambda: memory_to_pass.add_(1), **own}, group, 1, device)
        cold["after_16_mib"].append(passed["f"]["median_s"])
    if device == "cpu":
        case = name, str(batch), str(boxes)
        memory = {n: int(in_process_of_its_own(__file__, "--memory-of", n, *case)) for n in pair}
    else:
        memory = {n: peak_memory(pair[n], device) for n in pair}
    row = {
        "assigner": name,
        "batch": batch,
        "boxes": boxes,
        "median_s": {n: statistics.median(runs[n]) for n in pair},
        "runs_s": runs,
        "cold_s": {when: statistics.median(taken) for when, taken in cold.items()},
        "cold_runs_s": cold,
        "peak_memory_bytes": memory,
        "operators": {n: operators(pair[n]) for n in pair},
    }
    if device == "cpu" and name == "atss":
        row["kernel_on_one_thread_s"] = floor_of(batch, boxes, 30)
    if "mmdet" in pair:
        row["anchors_assigned_differently"] = int((pair["mmdet"]() != pair["negvision"]()).sum())
        row["times_faster"] = row["median_s"]["mmdet"] / row["median_s"]["negvision"]
        row["cold_times_faster"] = {
            when: row["median_s"]["mmdet"] / seconds for when, seconds in row["cold_s"].items()
        }
        row["share_of_memory"] = memory["negvision"] / max(memory["mmdet"], 1)
    return row


def show(row: dict) -> None:
    seconds, memory, count = row["median_s"], row["peak_memory_bytes"], row["operators"]
    floor = row.get("kernel_on_one_thread_s")

    def of(values: dict, scale: float, digits: int) -> str:
        return f"{values['mmdet'] * scale:,.{digits}f}" if "mmdet" in values else "-"

    def cold(when: str) -> str:
        if when not in row["cold_s"]:
            return f"{'-':>8} {'-':>8}"
        times = f"{row['cold_times_faster'][when]:,.0f} x" if "cold_times_faster" in row else "-"
        return f"{row['cold_s'][when] * 1e3:>8.3f} {times:>8}"

    ratio = f"{row['times_faster']:,.0f} x" if "times_faster" in row else "-"
    share = f"{row['share_of_memory']:.1%}" if "share_of_memory" in row else "-"
    print(
        f"{row['assigner']:>10} {row['batch']:>5} {row['boxes']:>5}   {of(seconds, 1e3, 1):>10} "
        f"{seconds['negvision'] * 1e3:>9.3f} {ratio:>9} "
        f"{cold('after_16_mib')} {cold('after_mmdet')}   "
        f"{f'{floor * 1e3:.3f}' if floor else '-':>7}   "
        f"{of(memory, 2**-20, 1):>8} {memory['negvision'] / 2**20:>6.1f} "
        f"{share:>6}   {of(count, 1, 0):>6} {count['negvision']:>4}",
        flush=True,
    )


def main() -> None:
    parser = arguments(__doc__, "assign", repeats=5, devices=True)
    parser.add_argument("--boxes", type=int, nargs="+", default=[10, 100, 500, 1000])
    parser.add_argument("--batches", type=int, nargs="+", help="default: 1 8, with a GPU also 16")
    parser.add_argument("--assigners", nargs="+", choices=ASSIGNERS, default=["atss"])
    parser.add_argument("--memory-of", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        who, name, batch, boxes = options.memory_of
        print(peak_memory(functions(name, int(batch), int(boxes), "cpu")[who], "cpu"))
        return
    require_operators()
    batches = options.batches or ([1, 8] if options.device == "cpu" else [1, 8, 16])
    print(f"{machine()['cpu']}, {torch.get_num_threads()} threads; device {options.device}")
    print(
        f"{'':>22}   {'milliseconds an assignment':^30} {'after 16 MiB':^17} {'after mmdet':^17}   "
        f"{'kernel':>7}   "
        f"{'peak memory, MiB':^22}   {'operators':^11}\n"
        f"{'assigner':>10} {'batch':>5} {'boxes':>5}   "
        f"{'mmdet':>10} {'negvision':>9} {'ratio':>9} "
        f"{'ms':>8} {'ratio':>8} {'ms':>8} {'ratio':>8}   "
        f"{'1 thr.':>7}   {'mmdet':>8} {'ours':>6} {'share':>6}   {'mmdet':>6} {'ours':>4}"
    )
    rows = []
    for name, batch, boxes in itertools.product(options.assigners, batches, options.boxes):
        rows.append(compare(name, batch, boxes, options.device, options.repeats))
        show(rows[-1])
    name = "assign" if options.device == "cpu" else "assign_cuda"
    payload = {"priors": sum(priors_on("cpu")[1]), "threads": torch.get_num_threads()}
    write_results(name, {**payload, "rows": rows}, options.out)


if __name__ == "__main__":
    main()
