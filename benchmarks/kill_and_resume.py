"""Kill the ATSS quick start with -9 again and again; it ends with the bits of one left alone.

    python benchmarks/kill_and_resume.py            # 20 kills, some six minutes on two cores

A shortened run (120 iterations, a checkpoint every 5) is started with ``--resume auto``, killed at
a random moment with all its processes, and started again, until the kills are spent.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from harness import write_results

ROOT = Path(__file__).resolve().parents[1]
ITERATIONS, INTERVAL = 120, 5


def start(work_dir: Path) -> subprocess.Popen:
    """One attempt, which goes on from the newest whole checkpoint."""
    options = [
        f"train_cfg.max_iters={ITERATIONS}",
        f"default_hooks.checkpoint.interval={INTERVAL}",
        "default_hooks.checkpoint.max_keep_ckpts=2",
        "val_cfg=None",
        "val_dataloader=None",
        "val_evaluator=None",
    ]
    command = [sys.executable, "tools/train.py", "configs/quickstart/atss_digits.py"]
    command += ["--work-dir", str(work_dir), "--resume", "auto", "--cfg-options", *options]
    with work_dir.with_suffix(".log").open("a") as log:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def weights(work_dir: Path) -> dict[str, torch.Tensor]:
    """Those of the last iteration, and the optimizer's state."""
    checkpoint = torch.load(work_dir / f"iter_{ITERATIONS}.pth", weights_only=False)
    state = checkpoint["optimizer"]["state"]
    return checkpoint["state_dict"] | {
        f"{key} of parameter {number}": torch.as_tensor(value)
        for number, values in state.items()
        for key, value in values.items()
    }


def main() -> int:
    """Run, print and write the result; 1 where a bit differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    folder = Path(tempfile.mkdtemp(prefix="negvision_kills_"))
    alone, killed = folder / "alone", folder / "killed"
    begun = time.monotonic()
    if start(alone).wait():
        sys.exit((folder / "alone.log").read_text()[-3000:])
    seconds = time.monotonic() - begun
    expected = weights(alone)
    done, runs, in_writing, same = 0, 0, 0, True
    while same:
        process = start(killed)
        try:
            # At the longest somewhat beyond the start and a few checkpoints.
            limit = None if done == args.kills else rng.uniform(0.05, 0.7) * seconds
            if process.wait(limit):
                sys.exit(killed.with_suffix(".log").read_text()[-3000:])
            found = weights(killed)
            same = expected.keys() == found.keys() and all(
                torch.equal(expected[key], found[key]) for key in expected
            )
            runs += 1
            if done == args.kills:
                break
            # It ended before the next kill, which is another run's.
            shutil.rmtree(killed)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
            in_writing += bool(list(killed.glob(".*.partial")))
            newest = max((int(f.stem.partition("_")[2]) for f in killed.glob("*.pth")), default=0)
            print(f"kill {done}: the newest checkpoint is of iteration {newest}", flush=True)
    shutil.rmtree(folder)
    print(
        f"{done} kills ({in_writing} while a checkpoint was being written), {runs} runs: "
        f"{len(expected)} tensors {'are the same bits in each' if same else 'DIFFER'}"
    )
    payload = {"kills": done, "in_writing": in_writing, "runs": runs, "same_bits": same}
    print(f"written to {write_results('kill_and_resume', payload)}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
