"""A worker for test_launcher.py: all-reduces over gloo, and an event on rank 1.

Arguments: the event, and the number of steps.
"""

import datetime
import os
import signal
import sys
import time

import torch
import torch.distributed as dist

from negvision.engine.machine_errors import MachineError
from negvision.engine.parallel.failures import reports_to_launcher
from negvision.errors import ConfigError

FIRST_TRY = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"


def fail(what):
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(3)
    if what == "raise":
        raise ValueError("boom")
    if what == "machine":
        raise MachineError("the mount is gone")
    if what in ("user", "all_users"):
        raise ConfigError("model.x is wrong")
    if what == "hang":
        time.sleep(600)
    if what == "late":
        time.sleep(3)


@reports_to_launcher
def main(argv=None):
    what, steps = sys.argv[1], int(sys.argv[2])
    # On a busy machine ranks begin many seconds apart.
    dist.init_process_group("gloo", timeout=datetime.timedelta(minutes=5))
    rank = dist.get_rank()
    timeout = datetime.timedelta(seconds=5) if what == "hang" else None
    group = dist.new_group(timeout=timeout)
    dist.barrier()
    received = []
    if what == "saves":
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda number, frame: received.append(number))
    for step in range(steps):
        if step == 3 and FIRST_TRY and (rank == 1 or what == "all_users"):
            fail(what)
        count = torch.tensor([len(received)])
        dist.all_reduce(count, group=group)
        if count:
            if rank == 0:
                time.sleep(2)  # the others are gone by then
            print(f"rank {rank} saved {[signal.Signals(n).name for n in received]}", flush=True)
            return os.EX_TEMPFAIL
        if step == 5 and rank == 0:
            print("running", flush=True)
        time.sleep(0.02)
    print(f"rank {rank} finished", flush=True)
    return 0


sys.exit(main())
