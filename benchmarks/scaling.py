"""Images per second of one and two processes of this machine.

A slim ATSS (configs/quickstart/atss_digits.py) and a slim IResNet under UNPG with sharded centers,
on random images already in memory: forward, backward and an SGD update, one thread per process,
gloo. Numbers of processes alternate, round after round; medians over the steps of all rounds. The
ideal is the number of processes times the rate of one.

    python benchmarks/scaling.py  # results/scaling.json
"""

from __future__ import annotations

import datetime
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing

# Before mmdet, which needs the mmcv._ext that negvision provides.
from harness import arguments, machine, require_operators, write_results

# isort: split
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from train_step import batch_of, total

from negvision.engine.parallel.sharded import keep_shards_from_ddp
from negvision.registry import MODELS

CONFIGS = Path(__file__).parents[1] / "configs"
CLASSES = 20_000
IMAGES = {"atss": 8, "unpg": 64}  # per process


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


class Recognizer(nn.Module):
    """The UNPG loss of a batch of faces; its centers are sharded over the ranks."""

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


def run_rank(rank: int, ranks: int, task: str, images: int, steps: int, folder: str) -> None:
    """Take the steps of one process; the first writes how many seconds each took."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks))
    torch.set_num_threads(1)
    if ranks > 1:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/store",
            rank=rank,
            world_size=ranks,
            timeout=datetime.timedelta(minutes=2),
        )
    torch.manual_seed(rank)
    model = wrapped = {"atss": Detector, "unpg": Recognizer}[task](images).train()
    if ranks > 1:
        keep_shards_from_ddp(model)
        wrapped = DistributedDataParallel(model, broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    seconds = []
    for _ in range(steps + 2):  # two to warm up: DDP orders its buckets in the first
        start = time.perf_counter()
        optimizer.zero_grad()
        wrapped().backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    if rank == 0:
        Path(folder, "seconds.json").write_text(json.dumps(seconds[2:]))
    if ranks > 1:
        dist.destroy_process_group()


def measure(task: str, images: int, steps: int, rounds: int) -> dict:
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for ranks in seconds:
            with tempfile.TemporaryDirectory() as folder:
                arguments = (ranks, task, images, steps, folder)
                torch.multiprocessing.spawn(run_rank, arguments, nprocs=ranks)
                seconds[ranks] += json.loads(Path(folder, "seconds.json").read_text())
    rates = {ranks: ranks * images / statistics.median(taken) for ranks, taken in seconds.items()}
    share = rates[2] / (2 * rates[1])
    print(
        f"{task}: {rates[1]:.1f} images/s with one process, {rates[2]:.1f} with two, "
        f"{share:.0%} of the ideal"
    )
    return {
        "images_a_process": images,
        "images_per_s": rates,
        "of_the_ideal": share,
        "seconds": seconds,
    }


def main() -> None:
    parser = arguments(__doc__, "scaling")
    parser.add_argument("--tasks", nargs="+", choices=list(IMAGES), default=list(IMAGES))
    parser.add_argument("--images", type=int, help="per process; default: 8, for UNPG 64")
    parser.add_argument("--steps", type=int, default=20, help="in each round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    require_operators()
    host = machine()
    print(f"{host['cpu']}, {host['cores']} cores; one thread per process, gloo")
    if host["cores"] < 2:
        sys.exit("two processes need two cores to be compared with one")
    rows = {
        task: measure(task, options.images or IMAGES[task], options.steps, options.rounds)
        for task in options.tasks
    }
    payload = {"threads_a_process": 1, "backend": "gloo", "tasks": rows}
    write_results("scaling", payload, options.out)


if __name__ == "__main__":
    main()
