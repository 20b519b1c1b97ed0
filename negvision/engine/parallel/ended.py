"""How a worker process ended, in words: for whoever reads why a job is over."""

import json
import os
import signal
from pathlib import Path
from typing import NamedTuple

from negvision.engine.parallel.failures import LostContactError, SilentRankError

_HINTS = {
    signal.SIGKILL: ", perhaps out of memory",
    signal.SIGBUS: ", perhaps no room in shared memory (/dev/shm)",
    signal.SIGABRT: "; see what it printed. NCCL so ends a rank that waited in vain for another",
}


class Ended(NamedTuple):
    """A worker that ended: ``status`` is its exit status, or minus the signal that killed it.

    ``message`` ("ValueError: ...") and ``text``, the same or a traceback, are what it left in its
    error file, "" if nothing.
    """

    rank: int
    status: int
    message: str = ""
    text: str = ""

    @property
    def is_silent_peer(self) -> bool:
        """Whether it waited in vain for another rank."""
        return self.message.startswith(f"{SilentRankError.__name__}: ")

    @property
    def is_lost_contact(self) -> bool:
        """Whether it only says that another rank is gone, or silent."""
        return self.is_silent_peer or self.message.startswith(f"{LostContactError.__name__}: ")

    @property
    def is_user_error(self) -> bool:
        """Whether its error is the user's to put right, so that trying again is of no use."""
        return self.status == 2 and bool(self.message)

    @property
    def is_interrupted(self) -> bool:
        """Whether a signal ended it and its state is saved."""
        return self.status == os.EX_TEMPFAIL  # negvision.engine.interruption.EXIT_INTERRUPTED

    def words(self) -> str:
        """Why it ended; several lines where there is a traceback.

        Example:
            >>> Ended(1, -9).words()
            'rank 1 died: killed by signal 9 (SIGKILL), perhaps out of memory'
        """
        if self.is_lost_contact:
            return f"rank {self.rank}: {self.message.partition(': ')[2]}"
        if self.is_user_error:
            return f"rank {self.rank}: {self.message}"
        if self.message:
            trace = "" if self.text == self.message else f"\n{self.text}".rstrip()
            return f"rank {self.rank} died: {self.message}{trace}"
        if self.status < 0:
            number = -self.status
            names = {known.value: known.name for known in signal.Signals}
            name, hint = names.get(number, "without a name"), _HINTS.get(number, "")
            return f"rank {self.rank} died: killed by signal {number} ({name}){hint}"
        return f"rank {self.rank} died: exit status {self.status}; what it printed is above"


def ended(rank: int, pid: int, error_file: str | None) -> Ended | None:
    """How child process ``pid`` ended, without collecting it; None while it runs."""
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    status = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
    return Ended(rank, status, *_left_in(error_file))


def _left_in(error_file: str | None) -> tuple[str, str]:
    try:
        left = json.loads(Path(error_file or "").read_text())["message"]
        return left["message"], left["extraInfo"]["py_callstack"]
    except (OSError, ValueError, KeyError, TypeError):  # none, or half of one: killed while writing
        return "", ""
