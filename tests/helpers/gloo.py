"""Starts gloo processes that run one function each; they are forks of one that imported torch."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing

from helpers import ROOT

# The server of which the processes are forks imports these; it has no threads that a fork loses.
# The first serves mmcv._ext to the others; after it, what a training imports only as it runs, in
# two seconds.
_IMPORTED = [
    *("negvision", "mmengine.runner", "mmdet.models.detectors.retinanet", "torch._dynamo"),
    *("matplotlib.pyplot", "scipy.optimize", "torchvision", "yapf.yapflib.yapf_api"),
]


def run_on_ranks(function: Callable, world_size: int, folder: Path, *arguments: object) -> None:
    """Run ``function(*arguments)`` on all ranks; raises what any of them raises."""
    multiprocessing.set_forkserver_preload([*_IMPORTED, function.__module__])
    before = os.environ.copy()
    path = [str(ROOT), str(ROOT / "tests"), before.get("PYTHONPATH", "")]
    os.environ.update(PYTHONPATH=os.pathsep.join(path), OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    try:
        store = folder / f"store_of_{function.__name__}_{world_size}"
        torch.multiprocessing.start_processes(
            _enter, (function, world_size, store, arguments), world_size, start_method="forkserver"
        )
    finally:
        os.environ.clear()
        os.environ.update(before)


def _enter(rank: int, function: Callable, world_size: int, store: Path, arguments: tuple) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    function(*arguments)
    dist.destroy_process_group()
