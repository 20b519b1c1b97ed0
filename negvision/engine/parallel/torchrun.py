"""``python -m negvision.engine.parallel.torchrun``: torchrun with exit statuses and time to save.

It takes torchrun's arguments and runs torchrun. Plain torchrun exits with 1 after every failure,
ends by SIGUSR1, sends SIGTERM to the data workers of a rank too, kills ranks that take more than 30
seconds to save, and restarts ranks that were interrupted or found a user error. Exit statuses here:
0; 1 after a failure; 2 after a user error; 75 after SIGTERM or SIGUSR1; 128 + n after signal n from
the keyboard.
"""

import functools
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.run import get_args_parser, run

# MMEngine imports it in each rank. It caches its grammar when it is imported for the first time
# after an installation, and another process may read the half-written file: EOFError.
from yapf.yapflib import yapf_api  # noqa: F401

from negvision.engine.parallel.failures import (
    INTERRUPTED,
    JOB_FOLDER,
    STOPPED,
    USER_ERROR,
    child_processes,
)

_PASSED_ON = (signal.SIGTERM, signal.SIGUSR1)
_NOTHING_SAVED = (
    "interrupted before there was anything to save; run the same command with --resume auto"
)
_HINTS = {
    signal.SIGKILL: ", perhaps out of memory",
    signal.SIGBUS: ", perhaps no room in shared memory (/dev/shm)",
    signal.SIGABRT: "; NCCL ends a rank this way that waited too long for another",
}


def main(argv: list[str] | None = None) -> int:
    """Start the workers and wait for them; the exit status."""
    args = get_args_parser().parse_args(argv)
    # After these torchrun ends the workers.
    args.signals_to_handle = "SIGINT,SIGHUP,SIGQUIT"
    # torchrun does so too, and prints a warning.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A store shared between restarts still has the addresses of ranks that are gone, and gloo
    # connects to whichever it reads first.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    if "LOGLEVEL" not in os.environ:
        # Its errors are worth a line: they report failures that lead to a restart.
        for name in list(logging.root.manager.loggerDict):
            if name.startswith("torch.distributed.elastic"):
                logging.getLogger(name).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="negvision_job_") as folder:
        os.environ[JOB_FOLDER] = folder
        for number in _PASSED_ON:
            signal.signal(number, functools.partial(_pass_on, Path(folder)))
        status, text = _run(args, Path(folder))
    if text:
        print(text, file=sys.stderr, flush=True)
    return status


def _run(args, folder: Path) -> tuple[int, str]:
    """The exit status, and what to print, if anything."""
    try:
        run(args)
    except ChildFailedError as error:
        return _failed(error, folder)
    except SignalException as end:
        if end.sigval in _PASSED_ON:
            return os.EX_TEMPFAIL, _NOTHING_SAVED
        return 128 + end.sigval, f"stopped by {end.sigval.name}"
    except RendezvousError as error:
        return 1, f"no rendezvous at {args.rdzv_endpoint}: {type(error).__name__}: {error}"
    except (AssertionError, ValueError) as error:
        return 2, f"torchrun: {error}"
    return (os.EX_TEMPFAIL if (folder / STOPPED).exists() else 0), ""


def _pass_on(folder: Path, number: int, frame: object) -> None:
    """Handle a signal that is for the ranks, which save and end by themselves.

    Raises:
        SignalException: There is no rank yet; the launcher waits for other machines.
    """
    (folder / INTERRUPTED).touch()
    workers = child_processes(os.getpid())
    if not workers:
        raise SignalException("no workers", signal.Signals(number))
    for pid in workers:
        os.kill(pid, number)


def _failed(error: ChildFailedError, folder: Path) -> tuple[int, str]:
    statuses = {rank: failure.exitcode for rank, failure in error.failures.items()}
    if (folder / INTERRUPTED).exists() and all(status < 0 for status in statuses.values()):
        return os.EX_TEMPFAIL, _NOTHING_SAVED  # before the ranks could handle the signal
    if (folder / USER_ERROR).exists():
        return 2, ""
    # torchrun ends the other ranks by SIGTERM.
    causes = {rank: s for rank, s in statuses.items() if s != -signal.SIGTERM} or statuses
    return 1, "\n".join(f"rank {rank} died: {describe_end(s)}" for rank, s in causes.items())


def describe_end(status: int) -> str:
    """What an exit status, or minus the number of a signal, says.

    Example:
        >>> describe_end(-9)
        'killed by signal 9 (SIGKILL), perhaps out of memory'
    """
    if status >= 0:
        return f"exit status {status}; what it printed is above"
    names = {known.value: known.name for known in signal.Signals}
    return f"killed by signal {-status} ({names.get(-status, 'unnamed')}){_HINTS.get(-status, '')}"


if __name__ == "__main__":
    sys.exit(main())
