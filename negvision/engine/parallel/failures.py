"""A rank that fails says so in the file that torchrun reads, the cause before what follows it."""

import faulthandler
import functools
import json
import logging
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from negvision.engine.faults import MachineError
from negvision.engine.parallel.launch import leave_processes
from negvision.errors import is_user_error

# Set by negvision's launcher, which prints what is in the files; torchrun's own prints too late.
LAUNCHER_PRINTS = "NEGVISION_LAUNCHER_PRINTS"
# Where each thread is, on stderr; the launcher asks a rank that hangs for it.
STACK_SIGNAL = signal.SIGUSR2
# The rank that is the cause has this long to end before those that only miss it.
_COURTESY = 3.0

# What gloo, NCCL and the store say of a peer; each is the text of a RuntimeError.
_GONE = re.compile(
    r"Connection closed by peer|Connection reset by peer|Connection was likely closed|Broken pipe"
    r"|Connection refused|ncclRemoteError|remote process exited|Socket Timeout.*peer",
    re.IGNORECASE,
)
_SILENT = re.compile(
    r"Timed out waiting|wait timeout after|Watchdog caught collective operation timeout"
    r"|timed out after \d+ ?(ms|seconds)|Application timeout caused pair closure",
    re.IGNORECASE,
)


class LostContactError(RuntimeError):
    """Another rank is gone; its own error is the cause."""


class SilentRankError(LostContactError):
    """Another rank did not come to a collective operation within the group's timeout."""


def as_lost_contact(error: BaseException) -> LostContactError | None:
    """What ``error`` says of another rank; None where it is about this one.

    Example:
        >>> as_lost_contact(RuntimeError("[pair.cc:553] Connection closed by peer [::1]:4242"))
        LostContactError('lost contact with another rank; see its error')
    """
    if not isinstance(error, RuntimeError):
        return None
    text = str(error)
    if _SILENT.search(text):
        return SilentRankError(
            "waited in vain for another rank, which hangs or is very slow "
            "(env_cfg.dist_cfg.timeout, in seconds, is how long a rank waits)"
        )
    if _GONE.search(text):
        return LostContactError("lost contact with another rank; see its error")
    return None


def reports_to_launcher(command: Callable[..., int]) -> Callable[..., int]:
    """Make a command's ``main``, as a worker of torchrun, leave its error where the launcher looks.

    Elsewhere the command is as it was. A worker ends at once, without the interpreter's usual end:
    threads of gloo and NCCL can hang or abort it, those of a rank that has succeeded as well. An
    error that only says that another rank is gone is one line, some seconds later, so that it is
    not the first.
    """

    @functools.wraps(command)
    def run(argv: list[str] | None = None) -> int:
        if not os.environ.get("TORCHELASTIC_ERROR_FILE"):
            return command(argv)
        faulthandler.enable()
        faulthandler.register(STACK_SIGNAL, all_threads=True)
        try:
            status = command(argv)
            leave_processes()
        except KeyboardInterrupt:
            status = 128 + signal.SIGINT
        except Exception as error:
            # What a machine did may not happen again: the launcher may try.
            status = 2 if is_user_error(error) and not isinstance(error, MachineError) else 1
            _report(error)
        sys.stdout.flush()
        sys.stderr.flush()
        logging.shutdown()
        os._exit(status)

    return run


def _report(error: Exception) -> None:
    lost = as_lost_contact(error)
    if lost is not None:
        time.sleep(_COURTESY)
    told = lost or error
    message = text = f"{type(told).__name__}: {told}"
    if lost is None and not is_user_error(error):
        text = "".join(traceback.format_exception(error))
    recorded = _record(message, text)
    if not (recorded and os.environ.get(LAUNCHER_PRINTS)):
        print(f"rank {os.environ.get('RANK', '?')}: {text}", file=sys.stderr)


def _record(message: str, text: str) -> bool:
    """Write torchrun's file of the error; False where that is not possible.

    torchrun shows ``py_callstack``, which is its word for ``text``.
    """
    info = {"py_callstack": text, "timestamp": str(int(time.time()))}
    content = json.dumps({"message": {"message": message, "extraInfo": info}})
    try:
        Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(content)
    except OSError:  # a full disk
        return False
    return True
