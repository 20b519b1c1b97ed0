"""Peak memory of functions, and of ways to run a model."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negvision.errors import UserError

if TYPE_CHECKING:
    from negvision.benchmark.subjects import Setup

# Environment of a heap that returns freed memory, so that earlier calls do not hide later ones.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def resident() -> int:
    """Resident size of this process in bytes (Linux)."""
    return _status("VmRSS")


def peak_resident(function: Callable[[], Any]) -> int:
    """Largest resident size of this process in bytes (Linux) during a call, its result included."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
    kept = function()
    peak = _status("VmHWM")
    del kept
    return peak


def peak_cuda(function: Callable[[], Any]) -> int:
    """Largest number of bytes that torch's allocator holds while ``function`` runs."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def peak_memory(kind: str, setup: Setup) -> int | None:
    """Bytes that a model needs at its peak, weights and batch included, in its own process.

    On a CPU this is the resident size beyond that of a process with all imports and no model; for
    compiled models it includes what the compiler keeps. On a GPU it is what torch's allocator
    holds, so it is None for ONNX Runtime, which has an allocator of its own. On a CPU it is None
    except on Linux.

    Raises:
        UserError: The process failed.
    """
    unknown = sys.platform != "linux" if setup.device == "cpu" else kind == "onnxruntime"
    if unknown:
        return None
    done = subprocess.run(
        [sys.executable, "-m", "negvision.benchmark.memory", kind],
        input=pickle.dumps(setup),
        env={**os.environ, **MALLOC},
        capture_output=True,
    )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()[-500:]
        raise UserError(f"memory of {kind} was not measured: {reason}")
    return int(done.stdout.split()[-1])


def _measure(kind: str, setup: Setup) -> int:
    from negvision.benchmark import subjects

    if kind == "onnxruntime":
        import onnxruntime  # noqa: F401  (loaded before the baseline)

        subjects.images_of(setup)
    before = resident()
    subject = subjects.build(kind, setup)
    gc.collect()
    if subject.weights:
        # Imports by the components of the config are not part of the model.
        before = resident() - subject.weights
    # Compilation and the choice of kernels happen once.
    subject.run(0)
    if setup.device != "cpu":
        return peak_cuda(subject.run_all)
    return max(peak_resident(subject.run_all) - before, 0)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


if __name__ == "__main__":
    print(_measure(sys.argv[1], pickle.load(sys.stdin.buffer)))
