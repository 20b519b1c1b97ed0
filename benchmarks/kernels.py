"""How close each compiled operator comes to the limits of the device.

Each operator must move some bytes (every input read once, every output written once) and do some
operations. Two ceilings are measured in the same run: bytes per second of a large copy, operations
per second of a large float32 matrix product. The share of the nearer ceiling is reported. Sizes
exceed the caches, except for the assignment, whose data are small.

With ``--busy``: how long they take with two threads while another process keeps one of two cores
busy, as data-loading workers do in a training on a CPU, against one thread alone. The calling
thread stays on the free core, where the system puts it sooner or later.

    python benchmarks/kernels.py                    # results/kernels.json
    python benchmarks/kernels.py --device cuda      # results/kernels_cuda.json
    python benchmarks/kernels.py --busy             # results/kernels_busy.json
    python benchmarks/kernels.py --busy --before OLD.json   # beside those of another version
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from assign import ASSIGNERS, functions, priors_on, truth
from harness import alternate, arguments, machine, require_operators, write_results

from negvision.ops import class_logsumexp

# One overlap: 4 comparisons for the corners of the intersection, 6 subtractions, 2 clamps, 3
# products, a sum, a difference, a comparison with eps and a division. Its gradient: the same, and
# four derivatives of about ten operations for each box.
IOU, IOU_GRADIENT = 19, 60
# One exponential: about ten, a polynomial in single precision, and the work around it.
EXPONENTIAL = 15
# One similarity in a histogram: made sortable, compared, shifted, masked, counted.
COUNTED = 6
SHORTEST_RUN = 0.02  # seconds; shorter calls are repeated
# Long against the few milliseconds in which the scheduler takes turns.
SHORTEST_RUN_BESIDE = 0.2
SPIN = "import os; os.sched_setaffinity(0, {%d})\nwhile True: pass"


@dataclass
class Work:
    """One operator at one size, with the bytes and operations that it needs at least."""

    size: str
    run: Callable[[], object]
    bytes: int
    operations: int


def overlaps(device: str, generator: torch.Generator) -> dict[str, Work]:
    """Box IoU, pairwise and aligned, and the gradients of the former."""

    def boxes(count: int) -> torch.Tensor:
        corner = torch.rand(count, 2, generator=generator) * 800
        return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 200], 1)

    n, m, aligned = 1_000, 22_400, 4_000_000
    a, b = boxes(n).to(device), boxes(m).to(device)
    c, d = boxes(aligned).to(device), boxes(aligned).to(device)
    grad = torch.rand(n, m, generator=generator).to(device)
    operators = torch.ops.negvision
    pairs = f"{n:,} x {m:,}"
    return {
        "pairwise IoU": Work(
            pairs, lambda: operators.pairwise_box_iou(a, b, 0, 1e-6),
            4 * n * m + 16 * (n + m), IOU * n * m,
        ),
        "its gradients": Work(
            pairs, lambda: operators.pairwise_box_iou_backward(grad, a, b, 0, 1e-6),
            4 * n * m + 32 * (n + m), IOU_GRADIENT * n * m,
        ),
        "aligned IoU": Work(
            f"{aligned:,}", lambda: operators.aligned_box_iou(c, d, 0, 1e-6),
            36 * aligned, IOU * aligned,
        ),
    }  # fmt: skip


def assignment(device: str) -> dict[str, Work]:
    """ATSS of 16 images of 800 x 1344 with 100 boxes each."""
    images, boxes, topk = 16, 100, 9
    priors, counts = priors_on(device)
    gts = torch.cat([truth(boxes, seed, device).bboxes for seed in range(images)])
    arguments = (priors[None], counts, gts, [boxes] * images, topk, None, None, [0] * images, -1.0)
    return {
        "assignment": Work(
            f"{images} images, {len(priors):,} anchors, {boxes} boxes",
            lambda: torch.ops.negvision.atss_assign(*arguments, None, None, None, 1.0),
            # Anchors and boxes; of each anchor its index, overlap and label.
            16 * (len(priors) + len(gts)) + 20 * images * len(priors),
            # The overlaps of the candidates alone: finding them takes as few as one looks at.
            IOU * images * boxes * topk * len(counts),
        )
    }


def negatives(device: str, generator: torch.Generator) -> dict[str, Work]:
    """Log-sums and softmax over class centers, and the counting of pairs."""
    n, classes, batch = 512, 100_000, 8_192
    similarities = (torch.rand(n, classes, generator=generator) * 2 - 1).to(device)
    rows = torch.randint(classes, (n,), generator=generator).int().to(device)
    columns = torch.arange(classes, dtype=torch.int32, device=device)
    operators = torch.ops.negvision
    logsumexp, _ = operators.negatives_logsumexp(similarities, rows, columns, -n, None, 64.0)
    ones = torch.ones(n, device=device)
    # Overwritten at each call; the values do not change the time.
    weights = similarities.clone()
    pairs = (torch.rand(batch, batch, generator=generator) * 2 - 1).to(device)
    labels = torch.randint(batch // 8, (batch,), generator=generator).int().to(device)
    none = torch.zeros(2, dtype=torch.int64, device=device)
    upper = batch * (batch - 1) // 2
    size = f"{n} x {classes:,}"
    given = rows, columns, -n, None, 64.0
    return {
        "filtered logsumexp": Work(
            size, lambda: operators.negatives_logsumexp(similarities, *given),
            4 * n * classes + 4 * classes, EXPONENTIAL * n * classes,
        ),
        "its softmax": Work(
            size, lambda: operators.negatives_softmax_(weights, *given, logsumexp, ones),
            8 * n * classes + 4 * classes, EXPONENTIAL * n * classes,
        ),
        "histogram of pairs": Work(
            f"{batch:,} samples, one byte of four",
            lambda: operators.negatives_histogram(pairs, labels, labels, 0, none, 24),
            4 * upper, COUNTED * upper,
        ),
    }  # fmt: skip


def pixels(generator: torch.Generator) -> dict[str, Work]:
    """Planes and colors of an image, which have kernels for the CPU alone."""
    height, width = 800, 1333
    image = torch.randint(256, (height, width, 3), generator=generator, dtype=torch.uint8)
    area = height * width
    operators = torch.ops.negvision
    arguments = (image, False, True, [0, 1, 2, 3], [8.0, 1.1, 0.9, 5.0])
    return {
        "planes": Work(
            f"{height} x {width}", lambda: operators.image_planes(image, False, True), 6 * area, 0
        ),
        "colors": Work(
            f"{height} x {width}, four steps", lambda: operators.distort_colors(*arguments),
            # Brightness and contrast of three channels: 6 each. To HSV and back, twice: 35 and 45.
            6 * area, (2 * 3 * 6 + 2 * (35 + 45)) * area,
        ),
    }  # fmt: skip


def ceilings(device: str, repeats: int) -> dict[str, float]:
    """Bytes per second of a copy, read and written, and operations per second of a product."""
    cuda = device == "cuda"
    values = torch.rand(1 << 28 if cuda else 1 << 26).to(device)
    target = torch.empty_like(values)
    side = 8192 if cuda else 2048
    a, b = torch.rand(side, side).to(device), torch.rand(side, side).to(device)
    out = torch.empty_like(a)
    taken = alternate(
        {"copy": lambda: target.copy_(values), "product": lambda: torch.mm(a, b, out=out)},
        repeats,
        device=device,
    )
    return {
        "bytes_per_s": 2 * 4 * values.numel() / taken["copy"]["median_s"],
        "operations_per_s": 2 * side**3 / taken["product"]["median_s"],
    }


def measure(work: Work, device: str, repeats: int) -> list[float]:
    """Seconds per call, from several runs that are long enough to time."""
    once = alternate({"call": work.run}, 1, 2, device)["call"]["min_s"]
    calls = max(1, round(SHORTEST_RUN / max(once, 1e-7)))

    def run() -> None:
        for _ in range(calls):
            work.run()

    runs = alternate({"run": run}, repeats, 1, device)["run"]["runs"]
    return [taken / calls for taken in runs]


def composed(generator: torch.Generator) -> dict[str, Callable[[], object]]:
    """What makes several calls of operators or matrix products: log-sums and assigners."""
    rows, classes, boxes = 512, 10_000, 100
    embeddings, centers = (
        torch.nn.functional.normalize(torch.randn(n, 512, generator=generator)).requires_grad_()
        for n in (rows, classes)
    )
    labels = torch.randint(classes, (rows,), generator=generator)

    def logsumexp() -> None:
        value = class_logsumexp(embeddings, centers, labels, 64.0)
        torch.autograd.grad(value.sum(), (embeddings, centers))

    found: dict[str, Callable[[], object]] = {
        f"class_logsumexp, {rows} x {classes:,}, and gradients": logsumexp
    }
    for name, (_, own, _) in ASSIGNERS.items():
        run = functions(name, 1, boxes, "cpu", 22_400)["negvision"]
        found[f"{own.__name__}, {boxes} boxes"] = run
    return found


def beside(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict]:
    """Seconds a call with one and two threads, and with two beside a process on the first core."""
    core, free = sorted(os.sched_getaffinity(0))[:2]
    busy = subprocess.Popen([sys.executable, "-c", SPIN % core])
    torch.set_num_threads(2)
    for run in works.values():
        run()  # starts threads, which may run on both cores
    os.sched_setaffinity(0, {free})
    states = {
        "one_thread_s": (1, signal.SIGSTOP),
        "two_threads_s": (2, signal.SIGSTOP),
        "two_threads_beside_s": (2, signal.SIGCONT),
    }
    rows = {}
    try:
        time.sleep(0.5)  # until it spins
        for title, run in works.items():
            runs: dict[str, list[float]] = {state: [] for state in states}
            for _ in range(repeats):
                for state, (threads, signal_of_busy) in states.items():
                    torch.set_num_threads(threads)
                    busy.send_signal(signal_of_busy)
                    run()
                    calls, start = 0, time.perf_counter()
                    while time.perf_counter() - start < SHORTEST_RUN_BESIDE:
                        run()
                        calls += 1
                    runs[state].append((time.perf_counter() - start) / calls)
            row = {state: statistics.median(taken) for state, taken in runs.items()}
            ratio = row["two_threads_beside_s"] / row["one_thread_s"]
            rows[title] = {**row, "beside_to_one_thread": ratio, "runs_s": runs}
            show_beside(title, rows[title])
    finally:
        busy.kill()
        busy.wait()
        os.sched_setaffinity(0, {core, free})
    return rows


def show_beside(title: str, row: dict) -> None:
    print(
        f"{title:<48} {row['one_thread_s'] * 1e3:>9.3f} {row['two_threads_s'] * 1e3:>9.3f} "
        f"{row['two_threads_beside_s'] * 1e3:>9.3f} {row['beside_to_one_thread']:>6.2f}",
        flush=True,
    )


def busy_main(works: dict[str, Work], options: argparse.Namespace) -> None:
    generator = torch.Generator().manual_seed(0)
    runs = {f"{title}, {work.size}": work.run for title, work in works.items()}
    print(
        f"{machine()['cpu']}, milliseconds a call; the last two beside a busy core\n"
        f"{'':<48} {'1 thread':>9} {'2 threads':>9} {'2, busy':>9} {'to 1':>6}"
    )
    payload: dict = {}
    if options.before:
        payload["before"] = json.loads(Path(options.before).read_text())["operators"]
    payload["operators"] = beside(runs | composed(generator), options.repeats)
    if options.before:
        print("before")
        for title, row in payload["before"].items():
            show_beside(title, row)
    write_results("kernels_busy", payload, options.out)


def main() -> None:
    parser = arguments(__doc__, "kernels", repeats=9, devices=True)
    parser.add_argument(
        "--busy", action="store_true", help="beside a process that keeps a core busy"
    )
    parser.add_argument("--before", help="JSON of --busy of another version, to be shown and kept")
    options = parser.parse_args()
    require_operators()
    if options.busy:
        cores = sorted(os.sched_getaffinity(0))
        if options.device != "cpu" or len(cores) < 2:
            parser.error("--busy needs --device cpu and two cores")
        os.sched_setaffinity(0, cores[:2])
    generator = torch.Generator().manual_seed(0)
    works = overlaps(options.device, generator) | assignment(options.device)
    works |= negatives(options.device, generator)
    if options.device == "cpu":
        works |= pixels(generator)
    if options.busy:
        busy_main(works, options)
        return
    most = ceilings(options.device, options.repeats)
    name = (machine()["gpus"] or [machine()["cpu"]])[0] if options.device == "cuda" else ""
    print(
        f"{name or machine()['cpu']}, {torch.get_num_threads()} threads; a copy moves "
        f"{most['bytes_per_s'] / 1e9:,.0f} GB/s, a product does "
        f"{most['operations_per_s'] / 1e9:,.0f} GFLOP/s\n"
        f"{'':<19} {'':<38} {'ms':>9} {'GB/s':>7} {'of it':>6} {'Gop/s':>7} {'of it':>6}"
    )
    rows = {}
    for title, work in works.items():
        runs = measure(work, options.device, options.repeats)
        median = sorted(runs)[len(runs) // 2]
        moved, done = work.bytes / median, work.operations / median
        of_bytes = moved / most["bytes_per_s"]
        of_operations = done / most["operations_per_s"]
        rows[title] = {
            "size": work.size,
            "bytes": work.bytes,
            "operations": work.operations,
            "median_s": median,
            "runs_s": runs,
            "share_of_bandwidth": of_bytes,
            "share_of_arithmetic": of_operations,
            "share_of_nearer_ceiling": max(of_bytes, of_operations),
        }
        print(
            f"{title:<19} {work.size:<38} {median * 1e3:>9.3f} {moved / 1e9:>7,.1f} "
            f"{of_bytes:>6.1%} {done / 1e9:>7,.1f} {of_operations:>6.1%}",
            flush=True,
        )
    write_results(
        "kernels" if options.device == "cpu" else "kernels_cuda",
        {"threads": torch.get_num_threads(), "ceilings": most, "kernels": rows},
        options.out,
    )


if __name__ == "__main__":
    main()
