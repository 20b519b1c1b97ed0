"""What every benchmark shares: the machine it ran on, a fair timer, and a place for results.

Benchmarks compare implementations side by side in one process. Runs alternate, so that a busy
neighbor or a throttled core touches all of them alike, and the median is reported.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from negvision.benchmark.memory import MALLOC, peak_cuda, peak_resident, resident

RESULTS = Path(__file__).resolve().parent / "results"

_DISTRIBUTIONS = (
    "torch",
    "torchvision",
    "numpy",
    "onedl-mmengine",
    "mmengine",
    "onedl-mmcv",
    "mmcv",
    "onedl-mmdetection",
    "mmdet",
    "pycocotools",
    "faster-coco-eval",
    "onedl-mmsegmentation",
    "mmsegmentation",
    "pytorch-metric-learning",
    "scikit-learn",
    "onnx",
    "onnxruntime",
)


def machine() -> dict[str, Any]:
    """The hardware and software a benchmark runs on.

    Returns:
        ``cpu`` (model name), ``cores`` (those this process may use), ``ram_gib``, ``gpus`` (names,
        empty without CUDA), ``driver`` (theirs, or None), ``os``, ``python`` and ``versions``
        (distributions that are installed).
    """
    return {
        "cpu": _cpu_model(),
        "cores": _usable_cores(),
        "ram_gib": _ram_gib(),
        "gpus": _gpus(),
        "driver": _driver(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "versions": _versions(),
    }


def alternate(
    functions: Mapping[str, Callable[[], Any]],
    repeats: int,
    warmup: int = 1,
    synchronize: Callable[[], Any] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, Any]]:
    """Time functions in turns: a b c, a b c, ...

    Args:
        functions: Name to a function without arguments.
        repeats: Timed rounds, at least 1.
        warmup: Untimed rounds before them.
        synchronize: Called before and after each timed run, inside the timed span; pass
            ``torch.cuda.synchronize`` for work that a GPU does asynchronously.
        clock: Seconds; ``time.process_time`` counts those that a core worked for this process,
            for work that waits for nothing on a machine that others use.

    Returns:
        Name to ``median_s``, ``min_s`` and ``runs`` (seconds, in the order they were taken).

    Raises:
        ValueError: ``repeats`` below 1, ``warmup`` below 0, or no function.

    Example:
        >>> times = alternate({"sum": lambda: sum(range(1000))}, repeats=3)
        >>> len(times["sum"]["runs"])
        3
    """
    if not functions:
        raise ValueError("no function to time")
    if repeats < 1 or warmup < 0:
        raise ValueError(f"repeats must be >= 1 and warmup >= 0, got {repeats} and {warmup}")
    runs: dict[str, list[float]] = {name: [] for name in functions}
    for round_index in range(warmup + repeats):
        for name, function in functions.items():
            if synchronize is not None:
                synchronize()
            start = clock()
            function()
            if synchronize is not None:
                synchronize()
            elapsed = clock() - start
            if round_index >= warmup:
                runs[name].append(elapsed)
    return {
        name: {"median_s": statistics.median(taken), "min_s": min(taken), "runs": taken}
        for name, taken in runs.items()
    }


def peak_memory(function: Callable[[], Any], device: str = "cpu") -> int:
    """Bytes above what was held before the second call of ``function``, at its worst moment.

    What the call returns is alive at the end and counts. On a CPU it is the resident size of the
    process (Linux), so call it through :func:`in_process_of_its_own`.
    """
    function()
    if device != "cpu":
        import torch

        return peak_cuda(function) - torch.cuda.memory_allocated()
    before = resident()
    return max(peak_resident(function) - before, 0)


def in_process_of_its_own(script: str, *arguments: str) -> str:
    """The last word that ``script`` prints, run with a heap that gives back what is freed."""
    done = subprocess.run(
        [sys.executable, script, *arguments],
        env={**os.environ, **MALLOC},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()[-1]


def write_results(name: str, payload: Mapping[str, Any], path: str | Path | None = None) -> Path:
    """Write a benchmark's figures as JSON with the machine and the date beside them.

    Args:
        name: The benchmark, and the file's stem where ``path`` is not given.
        payload: Figures; what JSON does not know (arrays, numpy scalars) is written by its
            ``tolist``, anything else as text.
        path: File to write; by default ``benchmarks/results/<name>.json``.

    Returns:
        The file written.
    """
    target = Path(path) if path is not None else RESULTS / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    document = {
        "benchmark": name,
        "date": now.isoformat(timespec="seconds"),
        "machine": machine(),
        **payload,
    }
    text = json.dumps(document, indent=2, default=_plain)
    target.write_text(text + "\n", encoding="utf-8")
    return target


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _ram_gib() -> float | None:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return round(size / 2**30, 1)


def _gpus() -> list[str]:
    try:
        import torch
    except ImportError:
        return []
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _driver() -> str | None:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.check_output(command, text=True).split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def _versions() -> dict[str, str]:
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
