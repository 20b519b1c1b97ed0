"""What benchmarks share: options, a fair timer, peak memory, the machine, and the results file.

Benchmarks compare implementations side by side in one process. Runs alternate, so that other load
and throttling affect all of them alike, and the median is reported.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from negvision.benchmark.memory import MALLOC, peak_cuda, peak_resident, resident
from negvision.compat.versions import installed_distributions
from negvision.ops import extension_info

RESULTS = Path(__file__).resolve().parent / "results"

_DISTRIBUTIONS = (
    "torch", "torchvision", "numpy", "onedl-mmengine", "mmengine", "onedl-mmcv", "mmcv",
    "onedl-mmdetection", "mmdet", "pycocotools", "ultrafast-pycocotools", "onedl-mmsegmentation",
    "mmsegmentation", "pytorch-metric-learning", "scikit-learn", "onnx", "onnxruntime",
)  # fmt: skip


def arguments(
    doc: str | None,
    default: str,
    repeats: int | None = None,
    devices: bool = False,
) -> argparse.ArgumentParser:
    """A parser with the options that benchmarks share.

    Args:
        doc: Docstring of the benchmark, shown as its help.
        default: Stem of the file that ``--out`` writes by default, for the help.
        repeats: Default of ``--repeats``; None leaves out the option.
        devices: Add ``--device``.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if devices:
        parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats, help=f"default: {repeats}")
    suffix = "[_cuda]" if devices else ""
    parser.add_argument("--out", help=f"JSON file (default: results/{default}{suffix}.json)")
    return parser


def require_operators() -> None:
    """Exit with a message unless negvision's operators are compiled."""
    info = extension_info()
    if not info["loaded"]:
        sys.exit(f"the operators are {info['error']}")


def waiter(device: str) -> Callable[[], Any] | None:
    """What waits for the work of a device; None for the CPU."""
    return torch.cuda.synchronize if device != "cpu" else None


def machine() -> dict[str, Any]:
    """The hardware and software a benchmark runs on.

    Returns:
        ``cpu`` (model name), ``cores`` (those this process may use), ``ram_gib``, ``gpus`` (names,
        empty without CUDA), ``driver`` (of the GPUs, or None), ``os``, ``python`` and ``versions``
        (distributions that are installed).
    """
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    installed = installed_distributions()
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "ram_gib": round(ram / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "driver": _driver(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: installed[name] for name in _DISTRIBUTIONS if name in installed},
    }


def alternate(
    functions: Mapping[str, Callable[[], Any]],
    repeats: int,
    warmup: int = 1,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, Any]]:
    """Time functions in turns: a b c, a b c, ...

    Args:
        functions: Name to a function without arguments.
        repeats: Timed rounds, at least 1.
        warmup: Untimed rounds before them.
        device: On a GPU, runs are timed until the device has done their work.
        clock: ``time.process_time`` counts the CPU seconds of this process alone.

    Returns:
        Name to ``median_s``, ``min_s`` and ``runs`` (seconds, in the order they were taken).
    """
    wait = waiter(device) or (lambda: None)
    runs: dict[str, list[float]] = {name: [] for name in functions}
    for round_index in range(warmup + repeats):
        for name, function in functions.items():
            wait()
            start = clock()
            function()
            wait()
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


def write_results(name: str, payload: Mapping[str, Any], path: str | Path | None = None) -> None:
    """Write a benchmark's values as JSON, with the machine and the date, and print the path.

    Args:
        name: The benchmark, and the stem of the file in ``benchmarks/results``.
        payload: Values. Arrays and NumPy scalars are written by their ``tolist``, anything else
            that JSON does not know as text.
        path: Another file to write.
    """
    target = Path(path or RESULTS / f"{name}.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    document = {"benchmark": name, "date": date, "machine": machine(), **payload}
    text = json.dumps(document, indent=2, default=_plain)
    target.write_text(text + "\n", encoding="utf-8")
    print(f"written to {target}")


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(errors="replace") if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*: *(.+)$", text, re.MULTILINE | re.IGNORECASE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _driver() -> str | None:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.check_output(command, text=True).split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None
