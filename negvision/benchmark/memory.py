"""How much memory a model needs: of each way to run it in a process that does nothing else."""

import gc
import os
import subprocess
import sys
from pathlib import Path

from negvision.benchmark.subjects import Setup, build
from negvision.errors import UserError

# A heap that gives back what is freed: what an earlier call left behind is not to be seen.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def peak_memory(kind: str, setup: Setup) -> int | None:
    """Bytes that a model takes at its worst moment, weights and batch among them.

    On a CPU it is the resident size of the process (Linux) beyond what it has with everything
    imported and no model; of a compiled model what the compiler keeps is in it. On a GPU it is what
    torch's allocator gave out, so None for ONNX Runtime, which has one of its own.

    Raises:
        UserError: The process failed.
    """
    if setup.device != "cpu" and kind == "onnxruntime":
        return None
    done = subprocess.run(
        [sys.executable, "-m", "negvision.benchmark.memory", kind, setup.to_json()],
        env={**os.environ, **_MALLOC},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise UserError(f"memory of {kind} was not measured: {done.stderr.strip()[-500:]}")
    return int(done.stdout.split()[-1])


def _measure(kind: str, setup: Setup) -> int:
    if setup.device != "cpu":
        return _measure_cuda(kind, setup)
    if kind == "onnxruntime":
        import onnxruntime  # noqa: F401  (of the process, not of the model)

        setup.pictures()
    before = _resident("VmRSS")
    subject = build(kind, setup)
    gc.collect()
    if subject.weights:
        # What the components of the config imported is not of the model.
        before = _resident("VmRSS") - subject.weights
    # What happens once: compilation, choice of kernels.
    subject.run(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    for number in range(subject.batches):
        subject.run(number)
    return max(_resident("VmHWM") - before, 0)


def _measure_cuda(kind: str, setup: Setup) -> int:
    import torch

    subject = build(kind, setup)
    subject.run(0)
    torch.cuda.reset_peak_memory_stats()
    for number in range(subject.batches):
        subject.run(number)
    return torch.cuda.max_memory_allocated()


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


if __name__ == "__main__":
    print(_measure(sys.argv[1], Setup.from_json(sys.argv[2])))
