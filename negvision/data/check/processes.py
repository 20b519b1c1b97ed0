"""Call a function on many numbers in processes that may die of it."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Generic, NamedTuple, TypeVar

import cv2
import torch

Result = TypeVar("Result")

# Numbers that a process is handed at a time, and chunks of them that may be done ahead of the
# oldest that is not: what is kept in memory is bounded by both.
_CHUNK = 16
_AHEAD = 4


class _Range(NamedTuple):
    start: int
    stop: int


class _Worker(Generic[Result]):
    """A forked process that answers ranges with lists of results."""

    def __init__(self, function: Callable[[int], Result], others: list[_Worker]) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, answering = context.Pipe()
        # Were they open in a sibling as well, the death of this process would not close them.
        foreign = [self.connection, *(other.connection for other in others)]
        self.process = context.Process(
            target=_answer, args=(function, answering, foreign), daemon=True
        )
        self.process.start()
        answering.close()
        self.busy: _Range | None = None

    def ask(self, numbers: _Range) -> None:
        self.busy = numbers
        self.connection.send(numbers)

    def answer(self) -> list[Result] | None:
        """The results that were asked for; None where the process died of them."""
        try:
            results, error = self.connection.recv()
        except (EOFError, ConnectionResetError):
            return None
        if error:
            raise RuntimeError(f"a process of the check failed:\n{error}")
        return results

    def end(self) -> str:
        """Kill the process, and say how it had ended before in a few words."""
        self.process.join(timeout=1)
        code = self.process.exitcode
        self.process.kill()
        self.process.join()
        self.connection.close()
        if code is not None and code < 0:
            return f"killed by signal {-code} ({signal.Signals(-code).name})"
        return f"ended with exit status {code}"


def _answer(function: Callable[[int], object], connection: Connection, foreign: list) -> None:
    for other in foreign:
        other.close()
    # Ctrl-C reaches all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The threads of one process would take the cores of the others.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    while True:
        try:
            numbers = connection.recv()
        except EOFError:
            return
        try:
            connection.send(([function(number) for number in range(*numbers)], ""))
        except Exception:
            connection.send(([], traceback.format_exc()))


def call_in_processes(
    function: Callable[[int], Result],
    count: int,
    workers: int,
    died: Callable[[int, str], Result],
) -> Iterator[Result]:
    """``function(0)``, ..., ``function(count - 1)``, in order.

    A process that dies, as decoders do of some files and as the kernel's memory killer has it, is
    replaced, and the number that it died of is found.

    Args:
        function: Called in forked processes; what it returns is pickled.
        count: How many numbers.
        workers: Processes; with 0 all is called in this one.
        died: Given the number and how the process ended, what stands in the result's place.

    Example:
        >>> list(call_in_processes(lambda n: n * n, 4, 2, died=lambda n, how: None))
        [0, 1, 4, 9]
    """
    if not workers:
        yield from map(function, range(count))
        return
    todo = deque(_Range(i, min(i + _CHUNK, count)) for i in range(0, count, _CHUNK))
    done: dict[int, list[Result]] = {}
    position = 0
    team: list[_Worker[Result]] = []
    try:
        for _ in range(min(workers, len(todo))):
            team.append(_Worker(function, team))
        while position < count:
            for worker in team:
                near = todo and todo[0].start < position + _CHUNK * _AHEAD * workers
                if worker.busy is None and near:
                    worker.ask(todo.popleft())
            busy = {worker.connection: worker for worker in team if worker.busy}
            for connection in wait(list(busy)):
                worker = busy[connection]
                results = worker.answer()
                if results is None:
                    team.remove(worker)
                    results = _after_death(worker, todo, died)
                    team.append(_Worker(function, team))
                if results is not None:
                    done[worker.busy.start] = results
                worker.busy = None
            while position in done:
                results = done.pop(position)
                position += len(results)
                yield from results
    finally:
        for worker in team:
            worker.process.kill()
        for worker in team:
            worker.end()


def _after_death(
    worker: _Worker[Result], todo: deque[_Range], died: Callable[[int, str], Result]
) -> list[Result] | None:
    """Halve what a process died of, or give up the one number that it was."""
    how, (start, stop) = worker.end(), worker.busy
    if stop - start == 1:
        return [died(start, how)]
    middle = (start + stop) // 2
    todo.extendleft([_Range(middle, stop), _Range(start, middle)])
    return None
