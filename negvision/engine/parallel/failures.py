"""How a rank of torchrun ends: it prints its error and leaves marks for the launcher."""

import faulthandler
import functools
import logging
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from negvision.engine.machine_errors import MachineError
from negvision.engine.parallel.launch import leave_processes
from negvision.errors import is_user_error

# Set by negvision's launcher: the folder of the marks, which are empty files.
JOB_FOLDER = "NEGVISION_JOB_FOLDER"
# A signal reached the launcher; a rank stopped for a signal; a rank found a user error.
INTERRUPTED, STOPPED, USER_ERROR = "interrupted", "stopped", "user_error"

# Makes a rank print the stacks of its threads; not on Windows.
_STACK_SIGNAL = getattr(signal, "SIGUSR2", None)
# sysexits.h; not in Windows' os.
_EX_TEMPFAIL = 75
# Seconds in which the rank that is the cause ends before the ranks that miss it.
_COURTESY = 3.0

# Texts of the RuntimeErrors by which gloo, NCCL and the store report a peer.
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
_SILENT_TEXT = (
    "timed out waiting for another rank, which hangs or is very slow "
    "(env_cfg.dist_cfg.timeout sets the limit in seconds)"
)


def lost_contact(error: BaseException) -> str | None:
    """The message for an error that another rank caused; None for an error of this rank.

    Example:
        >>> lost_contact(RuntimeError("[pair.cc:553] Connection closed by peer [::1]:4242"))
        'lost contact with another rank; see its error'
    """
    if not isinstance(error, RuntimeError):
        return None
    if _SILENT.search(str(error)):
        return _SILENT_TEXT
    return "lost contact with another rank; see its error" if _GONE.search(str(error)) else None


def reports_to_launcher(command: Callable[..., int]) -> Callable[..., int]:
    """Make a command's ``main`` end well as a worker of torchrun; elsewhere it is unchanged.

    A worker exits at once, without the interpreter's shutdown: threads of gloo and NCCL can hang or
    abort it. An error caused by another rank is one line, printed some seconds later, so that the
    cause comes first. Under negvision's launcher, a user error that all ranks find is printed once.
    """

    @functools.wraps(command)
    def run(argv: object = None) -> int:
        if not os.environ.get("TORCHELASTIC_ERROR_FILE"):
            return command(argv)
        faulthandler.enable()
        if _STACK_SIGNAL is not None:
            faulthandler.register(_STACK_SIGNAL, all_threads=True)
        # torchrun also restarts workers that need no second try.
        if _is_marked(INTERRUPTED):
            status = _EX_TEMPFAIL
        elif _is_marked(USER_ERROR):
            status = 2
        else:
            status = _status(command, argv)
        if status == _EX_TEMPFAIL and _mark(STOPPED) is not None:
            # For any other status torchrun ends the ranks that still save, and restarts all.
            status = 0
        sys.stdout.flush()
        sys.stderr.flush()
        logging.shutdown()
        os._exit(status)

    return run


def _status(command: Callable[..., int], argv: object) -> int:
    try:
        status = command(argv)
        leave_processes()
        return status
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        return _report(error)


def _report(error: Exception) -> int:
    """Print ``error``; the exit status of the rank."""
    text = lost_contact(error)
    if text is not None:
        if _STACK_SIGNAL is not None:
            signal.signal(_STACK_SIGNAL, signal.SIG_IGN)  # this rank does not hang
        time.sleep(_COURTESY)
    elif not is_user_error(error):
        text = "".join(traceback.format_exception(error)).rstrip()
    else:
        text = f"{type(error).__name__}: {error}"
        # Another try may help after an error of the machine.
        if not isinstance(error, MachineError):
            if _mark(USER_ERROR) is not False:
                _print(text)
            return 2
    _print(text)
    if text == _SILENT_TEXT:
        _show_stacks_of_hanging_ranks()
    return 1


def _print(text: str) -> None:
    print(f"rank {os.environ.get('RANK', '?')}: {text}", file=sys.stderr, flush=True)


def _show_stacks_of_hanging_ranks() -> None:
    if _STACK_SIGNAL is None:
        return
    for pid in child_processes(os.getppid()):
        if pid != os.getpid():
            os.kill(pid, _STACK_SIGNAL)
    time.sleep(1)


def child_processes(pid: int) -> list[int]:
    """The processes that the main thread of process ``pid`` started and that still exist."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    if listed.exists():
        found = listed.read_text(encoding="utf-8")
    else:  # macOS
        command = ["pgrep", "-P", str(pid)]
        found = subprocess.run(command, capture_output=True, text=True).stdout
    return [int(child) for child in found.split()]


def _mark(name: str) -> bool | None:
    """Leave a mark for the launcher: whether it is the first, None without such a launcher."""
    if JOB_FOLDER not in os.environ:
        return None
    try:
        Path(os.environ[JOB_FOLDER], name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _is_marked(name: str) -> bool:
    return JOB_FOLDER in os.environ and Path(os.environ[JOB_FOLDER], name).exists()
