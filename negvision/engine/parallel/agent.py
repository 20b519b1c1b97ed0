"""torchrun's agent of one machine, which says first what was first and lets interrupted ranks save.

torch's own ends the other workers as soon as one ended, kills them after 30 seconds, and starts
them again whatever the exit status was.
"""

import os
import signal
import socket
import sys
import time

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import LogsDest, LogsSpecs

from negvision.engine.parallel.ended import Ended, ended
from negvision.engine.parallel.failures import STACK_SIGNAL

# Once a rank ended by the code of an interruption: how long the others may write.
_SAVING = 300.0
# Once a rank lost contact with another: how long the other's end may take to be seen.
_CAUSE = 10.0


class JobEnded(Exception):
    """The job is over, and starting it again is of no use; ``status`` is for the launcher."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class ErrorFiles(LogsSpecs):
    """The logs of ``inner``; keeps where each local rank will write its error."""

    def __init__(self, inner: LogsSpecs) -> None:
        self.inner = inner
        self.of_rank: dict[int, str] = {}

    @property
    def root_log_dir(self) -> str:
        return self.inner.root_log_dir

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        places = self.inner.reify(envs)
        self.of_rank = dict(places.error_files)
        return places


class Agent(LocalElasticAgent):
    """Starts, watches and ends the workers of this machine.

    Signals that :meth:`pass_on` is the handler of reach the workers, which save and end by
    themselves. Where all that ended did so for that, :class:`JobEnded` has status 75; after an
    error of the user's 2. Other failures are printed as they are seen, and the workers started
    again while ``max_restarts`` allows.
    """

    def __init__(self, spec, logs_specs: ErrorFiles, **kwargs) -> None:
        super().__init__(spec, logs_specs, **kwargs)
        self._error_files = logs_specs
        self._restarts = 0
        self._signals: list[signal.Signals] = []
        self._passed_on: set[signal.Signals] = set()
        self._watching = False
        self._since: float | None = None

    def pass_on(self, number: int, frame: object) -> None:
        """Handler of a signal that is the workers' to answer.

        Raises:
            JobEnded: There are no workers yet; the launcher waits for other machines.
        """
        if not self._watching:
            raise self._interrupted(signal.Signals(number))
        self._signals.append(signal.Signals(number))

    def _start_workers(self, worker_group: WorkerGroup) -> dict:
        if self._signals:
            raise self._interrupted(*self._signals)
        self._since = None
        workers = super()._start_workers(worker_group)
        self._watching = True
        return workers

    def _stop_workers(self, worker_group: WorkerGroup, *args, **kwargs) -> None:
        super()._stop_workers(worker_group, *args, **kwargs)
        self._watching = False

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        while self._signals:
            number = self._signals.pop(0)
            self._passed_on.add(number)
            for worker in worker_group.workers:
                # To it alone, not to its group: data workers have nothing to save.
                os.kill(worker.id, number)
        seen = [
            ended(worker.global_rank, worker.id, self._error_files.of_rank.get(worker.local_rank))
            for worker in worker_group.workers
        ]
        failed = [end for end in seen if end is not None and end.status != 0]
        if failed:
            if not self._is_settled(failed, seen):
                return RunResult(state=WorkerState.HEALTHY)
            self._conclude(failed, worker_group)
        elif None in seen:
            return RunResult(state=WorkerState.HEALTHY)
        return super()._monitor_workers(worker_group)

    def _is_settled(self, failed: list[Ended], seen: list[Ended | None]) -> bool:
        """Whether there is nothing more to wait for before the other workers are ended."""
        self._since = self._since or time.monotonic()
        waited = time.monotonic() - self._since
        if all(self._is_interruption(end) for end in failed):
            return None not in seen or waited > _SAVING
        if all(end.is_lost_contact or self._is_interruption(end) for end in failed):
            return None not in seen or waited > _CAUSE
        return True

    def _is_interruption(self, end: Ended) -> bool:
        # A rank that got a signal before it could answer it had nothing to save.
        return end.is_interrupted or (end.status < 0 and -end.status in self._passed_on)

    def _conclude(self, failed: list[Ended], group: WorkerGroup) -> None:
        interrupted = any(self._is_interruption(end) for end in failed)
        if interrupted and all(self._is_interruption(end) or end.is_lost_contact for end in failed):
            saved = any(end.is_interrupted for end in failed)
            raise JobEnded(os.EX_TEMPFAIL, "") if saved else self._interrupted(*self._passed_on)
        causes = [end for end in failed if not end.is_lost_contact]
        where = f" ({socket.gethostname()})" if group.group_world_size > 1 else ""
        first, *others = causes or failed
        # What the user is to put right, several ranks may find at the same moment.
        others = [end for end in others if not (end.is_user_error and end.message == first.message)]
        _say(first.words().replace(f"rank {first.rank}", f"rank {first.rank}{where}", 1))
        if not causes and any(end.is_silent_peer for end in failed):
            self._show_who_hangs({end.rank for end in failed}, group)
        for end in others + [end for end in failed if causes and end.is_lost_contact]:
            _say(end.words().partition("\n")[0])
        if any(end.is_user_error for end in causes):
            raise JobEnded(2, "")
        if self._restarts < group.spec.max_restarts:
            self._restarts += 1
            _say(f"starting all ranks again ({self._restarts} of {group.spec.max_restarts})")

    def _show_who_hangs(self, failed: set[int], group: WorkerGroup) -> None:
        hanging = [worker for worker in group.workers if worker.global_rank not in failed]
        for worker in hanging:
            _say(f"rank {worker.global_rank} hangs; it is at:")
            os.kill(worker.id, STACK_SIGNAL)
            time.sleep(1)

    def _interrupted(self, *signals: signal.Signals) -> JobEnded:
        names = " and ".join(sorted(number.name for number in signals))
        return JobEnded(
            os.EX_TEMPFAIL,
            f"interrupted by {names} before there was anything to save; the same command goes on "
            "with --resume auto",
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
