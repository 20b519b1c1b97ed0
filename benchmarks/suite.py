"""All tests and benchmarks of a device within a time limit, and a table of them.

Each part runs in its own process and writes its own results; this script writes the outcome and
duration of each. At the time limit, the running part is cut off and the others are not run.

    make gpu                       # results/suite_cuda.json and those of the parts
    make gpu PART=assign           # or several: PART="kernels assign"
    python benchmarks/suite.py --device cpu --part kernels
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import RESULTS, arguments, machine, write_results

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


@dataclass
class Part:
    """A command, and what to show of its results.

    Attributes:
        command: Arguments of Python; ``{device}`` is filled in.
        results: Stem of the file it writes, without ``_cuda``; "" if it writes none.
        figure: Makes the text for the table from the content of that file.
        needs: A program that must be installed; it is run in place of Python.
    """

    command: list[str]
    results: str = ""
    figure: Callable[[dict], str] = lambda content: ""
    needs: str = ""


def _benchmark(name: str, figure: Callable[[dict], str], *options: str) -> Part:
    # The precision of the products is part of the file name.
    results = f"{name}_{options[-1]}" if "--products" in options else name
    return Part([str(HERE / f"{name}.py"), "--device", "{device}", *options], results, figure)


def _kernels(content: dict) -> str:
    shares = {n: row["share_of_nearer_ceiling"] for n, row in content["kernels"].items()}
    lowest = min(shares, key=shares.get)
    return f"of the nearer ceiling: {max(shares.values()):.0%} ... {shares[lowest]:.0%} ({lowest})"


def _assign(content: dict) -> str:
    row = max(content["rows"], key=lambda row: (row["batch"], row["boxes"] == 100))
    return (
        f"batch {row['batch']}, {row['boxes']} boxes: {row['median_s']['negvision'] * 1e3:.3f} ms, "
        f"{row['times_faster']:.0f} x mmdet, {row['anchors_assigned_differently']} anchors differ"
    )


def _train_step(content: dict) -> str:
    step = content["step"]["negvision"]["median_s"]
    images = content["batch"] / step
    return f"{images:.1f} images/s, {content['mmdet_over_negvision']['step']:.2f} x mmdet"


def _unpg(content: dict) -> str:
    row = max(content["rows"], key=lambda row: row["samples"] * row["classes"])
    ms, peak = row["ms"], row["peak_mib"]["negvision"]
    return (
        f"{row['samples']:,} x {row['classes']:,}: {ms['negvision']:.0f} ms, "
        f"{ms['negvision'] / ms['products']:.2f} x the products, {peak:,.0f} MiB"
    )


def _sanitizer(tool: str) -> Part:
    tests = ["-m", "pytest", "-q", "-m", "gpu", "tests/ops/test_cuda.py"]
    return Part(["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", sys.executable,
                 *tests], needs="compute-sanitizer")  # fmt: skip


PARTS = {
    "tests": Part(["-m", "pytest", "-q", "-m", "gpu"]),
    "kernels": _benchmark("kernels", _kernels),
    "assign": _benchmark("assign", _assign, "--boxes", "10", "100", "1000", "--repeats", "3"),
    "unpg": _benchmark("unpg", _unpg, "--samples", "512", "4096"),
    "unpg_bfloat16": _benchmark("unpg", _unpg, "--samples", "512", "--products", "bfloat16"),
    "train_step": _benchmark("train_step", _train_step),
    "abet": _benchmark("abet_overhead", lambda content: ""),
    "memcheck": _sanitizer("memcheck"),
    "racecheck": _sanitizer("racecheck"),
}


def run(name: str, device: str, seconds: float) -> dict:
    """Run a part for at most ``seconds``, and pass on its output.

    Returns:
        ``outcome`` ("ok", "failed", "cut off" or "not run"), ``seconds``, ``figure``.
    """
    part = PARTS[name]
    if part.needs and not shutil.which(part.needs):
        return {"outcome": "not run", "seconds": 0.0, "figure": f"{part.needs} is not installed"}
    command = [argument.format(device=device) for argument in part.command]
    if not part.needs:
        command = [sys.executable, *command]
    start = time.perf_counter()
    # Its own session, so that its child processes end with it.
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    cut_off = threading.Event()

    def end() -> None:
        cut_off.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(seconds, end)
    timer.start()
    lines = []
    try:
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.strip():
                lines.append(line.strip())
        outcome = "failed" if process.wait() else "ok"
    finally:
        timer.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    if cut_off.is_set():
        outcome = "cut off"
    figure = lines[-1].strip("= ") if lines else ""
    if outcome == "ok" and part.results:
        suffix = "" if device == "cpu" else f"_{device}"
        figure = part.figure(json.loads((RESULTS / f"{part.results}{suffix}.json").read_text()))
    return {"outcome": outcome, "seconds": time.perf_counter() - start, "figure": figure}


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__, "suite_DEVICE")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--part", choices=list(PARTS), nargs="+", default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=9.5, help="for all parts (default: 9.5)")
    options = parser.parse_args(argv)
    end = time.perf_counter() + 60 * options.minutes
    rows: dict[str, dict] = {}
    for name in options.part:
        left = end - time.perf_counter()
        if left < 1:
            rows[name] = {"outcome": "not run", "seconds": 0.0, "figure": "the time was up"}
            continue
        print(f"--- {name}", flush=True)
        rows[name] = run(name, options.device, left)
    of = machine()
    device = of["gpus"][0] if options.device == "cuda" and of["gpus"] else of["cpu"]
    width = max(map(len, rows))
    print(f"\n{device}, driver {of['driver'] or '-'}, torch {of['versions']['torch']}")
    for name, row in rows.items():
        print(f"{name:<{width}} {row['outcome']:<8} {row['seconds']:>6.0f} s   {row['figure']}")
    write_results(f"suite_{options.device}", {"parts": rows}, options.out)
    return int(any(row["outcome"] in ("failed", "cut off") for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
