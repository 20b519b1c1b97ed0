"""Assigners of positives: mmdet's against negvision's, through the public ``assign``.

The priors are those of an 800 x 1344 image on five levels, 22,400 anchors, or of 640 x 640 on
three, 8,400; predictions are boxes and scores of 80 classes about the objects, as a detector in
training makes them. Both assigners alternate in one process: the other runs once per turn,
negvision's 31 times, of which the median without the first counts; then the median over turns. In a
training, other work empties the caches before each call: given are also the time of calls after a
pass over 16 MiB of memory each, and of the first call after the other's. The
floor of ATSS is the kernel alone on one thread (CPU). Where mmdet's would need more than 6 GiB or
much more than half a minute, it is left out. ``yolo`` is Ultralytics' task-aligned assigner beside
``task_aligned_targets``, a batch in one call, with the Python of an environment that has
ultralytics (AGPL).

    python benchmarks/assign.py                          # ATSS; writes results/assign.json
    python benchmarks/assign.py --assigners tal sim_ota soft_label max_iou \\
        --anchors 8400 22400 --boxes 10 100 1000 5000 --out assigners.json
    python benchmarks/assign.py --assigners yolo --anchors 8400 --boxes 10 100 1000
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
from negvision.ops import task_aligned_targets

# Height, width and strides, by the number of anchors.
IMAGES = {22400: (800, 1344, (8, 16, 32, 64, 128)), 8400: (640, 640, (8, 16, 32))}
CLASSES = 80
# Of all costs of a batch: what mmdet's computes in half a minute or less.
_MOST_TERMS = 600_000_000
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


def priors_on(device: str, anchors: int = 22400) -> tuple[torch.Tensor, list[int]]:
    height, width, strides = IMAGES[anchors]
    generator = AnchorGenerator(
        strides=list(strides), ratios=[1.0], octave_base_scale=8, scales_per_octave=1
    )
    shapes = [(-(-height // s), -(-width // s)) for s in strides]
    levels = generator.grid_priors(shapes, device="cpu")
    return torch.cat(levels).to(device), [len(level) for level in levels]


def truth(count: int, seed: int, device: str, anchors: int = 22400) -> InstanceData:
    """Boxes of 4 to 404 pixels a side, most of them small."""
    g = torch.Generator().manual_seed(seed)
    center = torch.rand(count, 2, generator=g) * torch.tensor(
        [IMAGES[anchors][1], IMAGES[anchors][0]]
    )
    half = (torch.rand(count, 2, generator=g) ** 2 * 400 + 4) / 2
    return InstanceData(
        bboxes=torch.cat([center - half, center + half], 1).to(device),
        labels=torch.randint(80, (count,), generator=g).to(device),
    )


def predictions(name: str, gt: InstanceData, seed: int, device: str, anchors: int) -> InstanceData:
    """Priors as the assigner takes them, and what a network might predict there."""
    squares, counts = priors_on("cpu", anchors)
    g = torch.Generator().manual_seed(seed)
    middle, box = (squares[:, :2] + squares[:, 2:]) / 2, squares
    found = torch.zeros(len(squares), dtype=torch.bool)
    label = torch.zeros(len(squares), dtype=torch.int64)
    bboxes, labels = gt.bboxes.cpu(), gt.labels.cpu()
    area = (bboxes[:, 2:] - bboxes[:, :2]).prod(1)
    for some in torch.arange(len(squares)).split(1024):  # the smallest box around each
        place = middle[some, None]
        inside = ((place > bboxes[:, :2]) & (place < bboxes[:, 2:])).all(2)
        smallest, of = torch.where(inside, area, torch.inf).min(1)
        found[some], label[some] = smallest < torch.inf, labels[of]
        box = box.index_copy(0, some, torch.where(found[some, None], bboxes[of], squares[some]))
    size = (box[:, 2:] - box[:, :2]).repeat(1, 2)
    logits = torch.randn(len(squares), CLASSES, generator=g) - 4
    logits[found, label[found]] += 3
    priors = squares
    if name in ("sim_ota", "soft_label"):
        stride = torch.tensor(
            [s for s, n in zip(IMAGES[anchors][2], counts, strict=True) for _ in range(n)]
        )
        priors = torch.cat([middle, stride[:, None].expand(-1, 2)], 1)
    return InstanceData(
        priors=priors.to(device),
        bboxes=(box + torch.randn(box.shape, generator=g) * size * 0.1).to(device),
        scores=(logits if name == "soft_label" else logits.sigmoid()).to(device),
    )


def yolo_functions(batch: int, boxes: int, device: str, anchors: int) -> dict:
    """Ultralytics' assigner, and ours with its arguments: a batch in one call."""
    from ultralytics.utils.tal import TaskAlignedAssigner

    gts = [truth(boxes, seed, device, anchors) for seed in range(batch)]
    preds = [predictions("tal", gt, seed, device, anchors) for seed, gt in enumerate(gts)]
    priors = preds[0].priors
    arguments = (
        torch.stack([pred.scores for pred in preds]),
        torch.stack([pred.bboxes for pred in preds]),
        (priors[:, :2] + priors[:, 2:]) / 2,
        torch.stack([gt.labels[:, None] for gt in gts]),
        torch.stack([gt.bboxes for gt in gts]),
        torch.ones(batch, boxes, 1, device=device),
    )
    theirs = TaskAlignedAssigner(topk=10, num_classes=CLASSES, alpha=0.5, beta=6.0)
    return {
        "ultralytics": lambda: theirs(*arguments)[3].long(),
        "negvision": lambda: task_aligned_targets(*arguments)[3].long(),
    }


def functions(name: str, batch: int, boxes: int, device: str, anchors: int) -> dict:
    """What is timed: one call for an image, or all images of a batch."""
    if name == "yolo":
        return yolo_functions(batch, boxes, device, anchors)
    theirs, own, arguments = ASSIGNERS[name]
    both = {"mmdet": theirs(**arguments), "negvision": own(**arguments)}
    priors, counts = priors_on(device, anchors)
    gts = [truth(boxes, seed, device, anchors) for seed in range(batch)]
    preds, levels = [InstanceData(priors=priors)] * batch, (counts,)
    if name != "atss":
        preds = [predictions(name, gt, seed, device, anchors) for seed, gt in enumerate(gts)]
        levels = ()
        classes = CLASSES if name in ("sim_ota", "soft_label") else 1
        terms = boxes * len(priors) * classes
        if terms * 4 * 6 > 6 << 30 or terms * batch > _MOST_TERMS:
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


def operators(function) -> tuple[int, torch.Tensor]:
    """How many operators a call takes, and its result."""
    with CountOperators() as counter:
        result = function()
    return counter.count, result


def floor_of(batch: int, boxes: int, repeats: int, anchors: int) -> float:
    """Median seconds of the compiled operator alone, on one thread."""
    priors, counts = priors_on("cpu", anchors)
    gts = torch.cat([truth(boxes, seed, "cpu", anchors).bboxes for seed in range(batch)])
    arguments = (priors[None], counts, gts, [boxes] * batch, 9, None, None, [0] * batch, -1.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    kernel = torch.ops.negvision.atss_assign
    taken = alternate({"f": lambda: kernel(*arguments, None, None, None, 1.0)}, repeats)
    torch.set_num_threads(threads)
    return taken["f"]["median_s"]


def compare(name: str, batch: int, boxes: int, device: str, repeats: int, anchors: int) -> dict:
    pair = functions(name, batch, boxes, device, anchors)
    other = next((n for n in pair if n != "negvision"), None)
    # mmdet's runs leave cold caches and sleeping threads behind, so the fast assigner is timed in
    # groups, and the median of each group counts.
    group = 30
    runs: dict[str, list[float]] = {n: [] for n in pair}
    cold: dict[str, list[float]] = {"after_16_mib": []}
    memory_to_pass = torch.zeros(16 << 20, dtype=torch.uint8, device=device)
    for _ in range(repeats):
        own = {"f": pair["negvision"]}
        if other:
            runs[other] += alternate({"f": pair[other]}, 1, 0, device)["f"]["runs"]
            cold.setdefault(f"after_{other}", []).extend(alternate(own, 1, 0, device)["f"]["runs"])
        runs["negvision"].append(alternate(own, group, 1, device)["f"]["median_s"])
        passed = alternate({"pass": lambda: memory_to_pass.add_(1), **own}, group, 1, device)
        cold["after_16_mib"].append(passed["f"]["median_s"])
    if device == "cpu":
        case = name, str(batch), str(boxes), str(anchors)
        memory = {n: int(in_process_of_its_own(__file__, "--memory-of", n, *case)) for n in pair}
    else:
        memory = {n: peak_memory(pair[n], device) for n in pair}
    counted = {n: operators(pair[n]) for n in pair}
    row = {
        "assigner": name,
        "anchors": anchors,
        "batch": batch,
        "boxes": boxes,
        "median_s": {n: statistics.median(runs[n]) for n in pair},
        "runs_s": runs,
        "cold_s": {when: statistics.median(taken) for when, taken in cold.items()},
        "cold_runs_s": cold,
        "peak_memory_bytes": memory,
        "operators": {n: count for n, (count, _) in counted.items()},
    }
    if device == "cpu" and name == "atss":
        row["kernel_on_one_thread_s"] = floor_of(batch, boxes, 30, anchors)
    if other:
        row["anchors_assigned_differently"] = int(
            (counted[other][1] != counted["negvision"][1]).sum()
        )
        row["times_faster"] = row["median_s"][other] / row["median_s"]["negvision"]
        row["cold_times_faster"] = {
            when: row["median_s"][other] / seconds for when, seconds in row["cold_s"].items()
        }
        row["share_of_memory"] = memory["negvision"] / max(memory[other], 1)
    return row


def show(row: dict) -> None:
    seconds, memory, count = row["median_s"], row["peak_memory_bytes"], row["operators"]
    floor = row.get("kernel_on_one_thread_s")

    def of(values: dict, scale: float, digits: int) -> str:
        theirs = [value for name, value in values.items() if name != "negvision"]
        return f"{theirs[0] * scale:,.{digits}f}" if theirs else "-"

    def cold(when: str | None) -> str:
        if when is None:
            return f"{'-':>8} {'-':>8}"
        times = f"{row['cold_times_faster'][when]:,.0f} x" if "cold_times_faster" in row else "-"
        return f"{row['cold_s'][when] * 1e3:>8.3f} {times:>8}"

    after = next((when for when in row["cold_s"] if when != "after_16_mib"), None)
    ratio = f"{row['times_faster']:,.0f} x" if "times_faster" in row else "-"
    share = f"{row['share_of_memory']:.1%}" if "share_of_memory" in row else "-"
    print(
        f"{row['assigner']:>10} {row['anchors']:>7} {row['batch']:>5} {row['boxes']:>5}   "
        f"{of(seconds, 1e3, 1):>10} "
        f"{seconds['negvision'] * 1e3:>9.3f} {ratio:>9} "
        f"{cold('after_16_mib')} {cold(after)}   "
        f"{f'{floor * 1e3:.3f}' if floor else '-':>7}   "
        f"{of(memory, 2**-20, 1):>8} {memory['negvision'] / 2**20:>6.1f} "
        f"{share:>6}   {of(count, 1, 0):>6} {count['negvision']:>4}",
        flush=True,
    )


def main() -> None:
    parser = arguments(__doc__, "assign", repeats=5, devices=True)
    parser.add_argument("--boxes", type=int, nargs="+", default=[10, 100, 500, 1000])
    parser.add_argument("--batches", type=int, nargs="+", help="default: 1 8, with a GPU also 16")
    parser.add_argument("--anchors", type=int, nargs="+", choices=IMAGES, default=[22400])
    names = [*ASSIGNERS, "yolo"]
    parser.add_argument("--assigners", nargs="+", choices=names, default=["atss"])
    parser.add_argument("--memory-of", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        who, name, *numbers = options.memory_of
        batch, boxes, anchors = map(int, numbers)
        print(peak_memory(functions(name, batch, boxes, "cpu", anchors)[who], "cpu"))
        return
    require_operators()
    batches = options.batches or ([1, 8] if options.device == "cpu" else [1, 8, 16])
    print(f"{machine()['cpu']}, {torch.get_num_threads()} threads; device {options.device}")
    print(
        f"{'':>30}   {'milliseconds an assignment':^30} {'after 16 MiB':^17} {'after other':^17}   "
        f"{'kernel':>7}   "
        f"{'peak memory, MiB':^22}   {'operators':^11}\n"
        f"{'assigner':>10} {'anchors':>7} {'batch':>5} {'boxes':>5}   "
        f"{'other':>10} {'negvision':>9} {'ratio':>9} "
        f"{'ms':>8} {'ratio':>8} {'ms':>8} {'ratio':>8}   "
        f"{'1 thr.':>7}   {'other':>8} {'ours':>6} {'share':>6}   {'other':>6} {'ours':>4}"
    )
    rows = []
    cases = itertools.product(options.assigners, options.anchors, batches, options.boxes)
    for name, anchors, batch, boxes in cases:
        rows.append(compare(name, batch, boxes, options.device, options.repeats, anchors))
        show(rows[-1])
    name = "assign" if options.device == "cpu" else "assign_cuda"
    payload = {"threads": torch.get_num_threads()}
    write_results(name, {**payload, "rows": rows}, options.out)


if __name__ == "__main__":
    main()
