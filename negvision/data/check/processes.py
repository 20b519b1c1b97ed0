"""Call a function on many numbers in processes that may die."""

from __future__ import annotations

import functools
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import TypeVar

import cv2
import torch

Result = TypeVar("Result")

# Numbers per task, and tasks per worker that may be unfinished or unread: both bound the memory.
_CHUNK = 16
_AHEAD = 4


def call_in_processes(
    function: Callable[[int], Result], count: int, workers: int, died: Callable[[int, str], Result]
) -> Iterator[Result]:
    """Yield ``function(0)``, ..., ``function(count - 1)``, in order.

    A process may die, because of a crashing decoder or the kernel's out-of-memory killer. What the
    pool was working on then runs in processes of its own, until the number at which one dies is
    found.

    Args:
        function: Called in forked processes; its results are pickled, it is not.
        count: How many numbers.
        workers: Processes; 0, and any number on Windows, calls the function in this one.
        died: Given the number and how the process ended, returns what takes the result's place.

    Raises:
        Exception: Whatever ``function`` raises.

    Example:
        >>> list(call_in_processes(lambda n: n * n, 4, 2, died=lambda n, how: None))
        [0, 1, 4, 9]
    """
    if not workers or "fork" not in multiprocessing.get_all_start_methods():
        yield from map(function, range(count))
        return
    chunks = deque(range(i, min(i + _CHUNK, count)) for i in range(0, count, _CHUNK))
    while chunks:
        running: deque[tuple[range, Future]] = deque()
        broken = False
        with _Pool(function, min(workers, len(chunks))) as pool:
            while running or (chunks and not broken):
                try:
                    while chunks and not broken and len(running) < _AHEAD * workers:
                        running.append((chunks[0], pool.submit(chunks[0])))
                        chunks.popleft()
                except BrokenProcessPool:
                    broken = True
                if running:
                    numbers, future = running.popleft()
                    try:
                        results = future.result()
                    except BrokenProcessPool:
                        broken = True
                        results = _call_apart(function, numbers, died)
                    yield from results


def _call_apart(
    function: Callable[[int], Result], numbers: range, died: Callable[[int, str], Result]
) -> list[Result]:
    """The results for ``numbers`` from a process of their own, halved where it dies."""
    with _Pool(function, 1) as pool:
        try:
            return pool.submit(numbers).result()
        except BrokenProcessPool:
            (child,) = pool.children
    # Known for certain once the pool, which waits for its processes in a thread, is shut down.
    code = child.exitcode or 0
    if len(numbers) > 1:
        middle = len(numbers) // 2
        halves = numbers[:middle], numbers[middle:]
        return [result for half in halves for result in _call_apart(function, half, died)]
    if code < 0:
        return [died(numbers[0], f"killed by signal {-code} ({signal.Signals(-code).name})")]
    return [died(numbers[0], f"ended with exit status {code}")]


class _Pool:
    """A process pool whose processes are killed when it is left."""

    def __init__(self, function: Callable[[int], Result], workers: int) -> None:
        self._pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context("fork"), _start_worker, (function,)
        )
        self._others = set(multiprocessing.active_children())
        self.children: list[BaseProcess] = []

    def __enter__(self) -> _Pool:
        return self

    def submit(self, numbers: range) -> Future:
        """The results for ``numbers``; processes start at the first call."""
        future = self._pool.submit(_call_all, numbers)
        if not self.children:
            self.children = [p for p in multiprocessing.active_children() if p not in self._others]
        return future

    def __exit__(self, *_: object) -> None:
        for child in self.children:
            child.kill()
        self._pool.shutdown(cancel_futures=True)


# In a worker: what it was forked to call.
_function: Callable[[int], object] = functools.partial(int)


def _start_worker(function: Callable[[int], object]) -> None:
    global _function
    _function = function
    # Ctrl-C reaches all processes of a terminal; the parent ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The threads of one process would take the cores of the others.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _call_all(numbers: range) -> list:
    return [_function(number) for number in numbers]
