"""Count what the workers of a data loader leave out where their main process can read it."""

import torch
from torch.utils.data import get_worker_info

_WORKERS = 1024
_SAMPLES = 2**20


class SkipCounts:
    """How often samples were left out and which, counted over all workers of a data loader.

    Lies in shared memory, so what workers add is there for the process that started them; a
    dataset has to own it before. Each worker adds in a place of its own: nothing is lost without
    a lock. A deep copy counts anew.

    Example:
        >>> counts = SkipCounts()
        >>> for index in (7, 3, 7):
        ...     counts.add(index)
        >>> counts.times, counts.samples()
        (3, [3, 7])
    """

    def __init__(self) -> None:
        self._times = torch.zeros(_WORKERS, dtype=torch.int64).share_memory_()
        self._seen = torch.zeros(_SAMPLES, dtype=torch.uint8).share_memory_()

    def add(self, index: int) -> None:
        """Count sample ``index`` (from 0) once more."""
        worker = get_worker_info()
        self._times[0 if worker is None else 1 + worker.id % (_WORKERS - 1)] += 1
        self._seen[index % _SAMPLES] = 1

    @property
    def times(self) -> int:
        """How often a sample was left out, in all processes so far."""
        return int(self._times.sum())

    def samples(self) -> list[int]:
        """The indices that were left out, rising; of a larger set modulo 1,048,576."""
        return self._seen.nonzero().flatten().tolist()

    def __deepcopy__(self, memo: dict) -> "SkipCounts":
        return SkipCounts()
