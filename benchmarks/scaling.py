"""Images a second of one and two processes of this machine, and the bytes they exchange a step.

A slim ATSS (configs/quickstart/atss_digits.py) and a slim IResNet under UNPG with shared-out
centres, on random images already in memory: forward, backward and an SGD update, one thread a
process, gloo. Numbers of processes alternate, round after round; medians over the steps of all
rounds. The ideal is the number of processes times the rate of one, each on a core of its own. Bytes
are counted in a run that is not timed, at DistributedDataParallel's buckets and at functions of
torch.distributed. The run fails where they are not what negvision.engine.parallel.scaling computes.

    python benchmarks/scaling.py               # results/scaling.json
    python benchmarks/scaling.py --model-only  # what many GPUs would give, by the model
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import negvision.ops

# isort: split
# mmdet asks for mmcv._ext, which negvision serves.
import torch
import torch.distributed as dist
import torch.multiprocessing
from harness import machine, write_results
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from train_step import batch_of, total

from negvision.engine.parallel import scaling
from negvision.engine.parallel.scaling import Exchange
from negvision.engine.parallel.shards import find_shards, keep_shards_from_ddp
from negvision.registry import MODELS

CONFIGS = Path(__file__).parents[1] / "configs"
CLASSES = 20_000
TASKS = ("atss", "unpg")


class Detector(nn.Module):
    """The loss of a batch of images and boxes."""

    def __init__(self, images: int) -> None:
        super().__init__()
        init_default_scope("mmdet")
        self.model = MODELS.build(Config.fromfile(CONFIGS / "quickstart/atss_digits.py").model)
        self.batch = batch_of(images, 10, 160, 160, "cpu")
        for sample in self.batch[1]:
            sample.gt_instances.labels %= self.model.bbox_head.num_classes

    def forward(self) -> Tensor:
        return total(self.model.loss(*self.batch))

    def exchanges(self, ranks: int) -> list[Exchange]:
        """The averages over ranks of what losses are divided by."""
        return [Exchange("all_reduce", 4), Exchange("all_reduce", 4)]


class Recogniser(nn.Module):
    """The UNPG loss of a batch of faces; its centres are shared out over the ranks."""

    def __init__(self, images: int) -> None:
        super().__init__()
        config = Config.fromfile(CONFIGS / "_base_/models/face_slim.py").model
        config.head.update(num_classes=CLASSES, sharded=True, metric_pairs=True)
        self.model = MODELS.build(config)
        generator = torch.Generator().manual_seed(torch.initial_seed())
        self.images = torch.randn(images, 3, 48, 48, generator=generator)
        self.labels = torch.randint(CLASSES, (images,), generator=generator)

    def forward(self) -> Tensor:
        return self.model.head(self.model.embed(self.images), self.labels)

    def exchanges(self, ranks: int) -> list[Exchange]:
        batch = ranks * len(self.labels)
        return list(scaling.unpg_exchanges(batch, ranks, self.model.head.embedding_size))


@contextlib.contextmanager
def counted(counts: dict[str, list[int]]) -> Iterator[None]:
    """While it lasts, collective operations are counted: kind -> bytes of each call's result."""
    functions = {"all_reduce": dist.all_reduce, "all_gather": dist.all_gather}

    def counting(kind: str, function: Callable) -> Callable:
        def call(result, *args, **kwargs):
            tensors = result if isinstance(result, list) else [result]
            counts.setdefault(kind, []).append(sum(t.numel() * t.element_size() for t in tensors))
            return function(result, *args, **kwargs)

        return call

    for kind, function in functions.items():
        setattr(dist, kind, counting(kind, function))
    try:
        yield
    finally:
        for kind, function in functions.items():
            setattr(dist, kind, function)


def count_buckets(wrapped: DistributedDataParallel, ranks: int) -> list[int]:
    """A list to which the bytes of each bucket are added, as it is exchanged."""
    sizes: list[int] = []
    all_reduce = dist.all_reduce  # as it is before it counts

    def hook(state, bucket):
        mean = bucket.buffer().div_(ranks)
        sizes.append(mean.numel() * mean.element_size())
        all_reduce(mean)
        # Not that of all_reduce with a callback in Python: gloo's thread waits for the interpreter
        # to let go of it, and at the end the interpreter for that thread.
        done = torch.futures.Future()
        done.set_result(mean)
        return done

    wrapped.register_comm_hook(None, hook)
    return sizes


def run_rank(
    rank: int, ranks: int, task: str, images: int, steps: int, counting: bool, folder: str
) -> None:
    """The steps of one process; the first writes how long each took, or what was exchanged."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks))
    torch.set_num_threads(1)
    if ranks > 1:
        store = f"file://{folder}/store"
        dist.init_process_group(
            "gloo",
            init_method=store,
            rank=rank,
            world_size=ranks,
            timeout=datetime.timedelta(minutes=2),
        )
    torch.manual_seed(rank)
    model = {"atss": Detector, "unpg": Recogniser}[task](images).train()
    wrapped, buckets = model, []
    if ranks > 1:
        keep_shards_from_ddp(model)
        wrapped = DistributedDataParallel(model, broadcast_buffers=False)
        if counting:
            buckets = count_buckets(wrapped, ranks)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    seconds, counts = [], {}
    for step in range(steps + 2):  # two to warm up: DDP orders its buckets in the first
        buckets.clear()
        counts.clear()
        start = time.perf_counter()
        with counted(counts) if counting else contextlib.nullcontext():
            optimizer.zero_grad()
            wrapped().backward()
            optimizer.step()
        if step >= 2:
            seconds.append(time.perf_counter() - start)
    if rank == 0:
        sharded = {shard.parameter for shard in find_shards(model)}
        gradients = [p for p in model.parameters() if p.requires_grad and p not in sharded]
        found = {
            "seconds": seconds,
            "buckets": list(buckets),
            "counted": counts,
            "gradient_bytes": sum(p.numel() * p.element_size() for p in gradients),
            "exchanges": model.exchanges(ranks),
        }
        Path(folder, "found.json").write_text(json.dumps(found))
    if ranks > 1:
        dist.destroy_process_group()


def run(ranks: int, task: str, images: int, steps: int, counting: bool = False) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        arguments = (ranks, task, images, steps, counting, folder)
        torch.multiprocessing.spawn(run_rank, arguments, nprocs=ranks)
        return json.loads(Path(folder, "found.json").read_text())


def traffic(found: dict, ranks: int) -> dict:
    """Counted beside computed.

    Raises:
        SystemExit: They differ.
    """
    computed: dict[str, list[int]] = {}
    for kind, size in found["exchanges"]:
        computed.setdefault(kind, []).append(size)
    same = sum(found["buckets"]) == found["gradient_bytes"]
    for kind in set(computed) | set(found["counted"]):
        same &= sorted(computed.get(kind, [])) == sorted(found["counted"].get(kind, []))
    if not same:
        raise SystemExit(f"counted and computed bytes differ: {found | {'seconds': []}}")
    exchanges = [Exchange("all_reduce", size) for size in found["buckets"]]
    gradients = sum(exchange.sent(ranks) for exchange in exchanges)
    others = sum(Exchange(*exchange).sent(ranks) for exchange in found["exchanges"])
    return {
        "buckets": found["buckets"],
        "exchanges": found["counted"],
        "sent_by_each_rank": {"gradients": gradients, "loss": others},
    }


def measure(task: str, images: int, steps: int, rounds: int) -> dict:
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for ranks in seconds:
            seconds[ranks] += run(ranks, task, images, steps)["seconds"]
    rates = {ranks: ranks * images / statistics.median(taken) for ranks, taken in seconds.items()}
    row = {
        "images_a_process": images,
        "images_per_s": rates,
        "of_the_ideal": rates[2] / (2 * rates[1]),
        "seconds": seconds,
        "bytes_a_step": traffic(run(2, task, images, 1, counting=True), 2),
    }
    sent = row["bytes_a_step"]["sent_by_each_rank"]
    print(
        f"{task}: {rates[1]:.1f} images/s with one process, {rates[2]:.1f} with two, "
        f"{row['of_the_ideal']:.0%} of the ideal; each sends {sent['gradients'] / 1e6:.2f} MB of "
        f"gradients and {sent['loss'] / 1e6:.3f} MB for the loss a step"
    )
    return row


def show_model() -> None:
    for work in (scaling.atss_r50, scaling.unpg_r50):
        for cluster in (scaling.INFINIBAND, scaling.ETHERNET):
            print(f"{work.__name__}, {cluster.name}, by the model\n")
            print(scaling.table(work, cluster, (1, 8, 64, 512)), end="\n\n")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--images", type=int, help="a process; default: 8, for UNPG 64")
    parser.add_argument("--steps", type=int, default=20, help="in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model-only", action="store_true", help="measure nothing")
    parser.add_argument("--out", help="JSON file (default: results/scaling.json)")
    options = parser.parse_args(argv)
    if options.model_only:
        show_model()
        return 0
    if not negvision.ops.extension_info()["loaded"]:
        print(f"the operators are {negvision.ops.extension_info()['error']}", file=sys.stderr)
        return 1
    host = machine()
    print(f"{host['cpu']}, {host['cores']} cores; one thread a process, gloo")
    if host["cores"] < 2:
        print("two processes need two cores to be compared with one", file=sys.stderr)
        return 1
    sizes = {"atss": options.images or 8, "unpg": options.images or 64}
    rows = {
        task: measure(task, sizes[task], options.steps, options.rounds) for task in options.tasks
    }
    payload = {"threads_a_process": 1, "backend": "gloo", "tasks": rows}
    print(f"written to {write_results('scaling', payload, options.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
