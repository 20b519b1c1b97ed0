"""Inspect a dataset without changing it or the random states of a run."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator

import numpy as np
import torch

# Annotations in datasets of MMEngine: large, and only read.
_SHARED = ("data_bytes", "data_address", "data_list", "cat_img_map", "coco")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, NumPy, and torch; restore their random states afterwards.

    Example:
        >>> with seeded(0):
        ...     inside = random.random()
        >>> with seeded(0):
        ...     inside == random.random()
        True
    """
    # Transforms use NumPy's global state.
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def copy_for_looking(dataset):
    """A copy whose pipeline may run without changing caches and counters of the original.

    It shares the annotations, which can take gigabytes.
    """
    memo: dict = {}
    for part in parts_of(dataset):
        for value in (getattr(part, name, None) for name in _SHARED):
            if value is not None:
                memo[id(value)] = value
    return copy.deepcopy(dataset, memo)


def parts_of(dataset) -> Iterator:
    """``dataset`` and the datasets it wraps."""
    yield dataset
    inner = getattr(dataset, "dataset", None)
    for part in [*([inner] if inner is not None else []), *getattr(dataset, "datasets", [])]:
        yield from parts_of(part)


def evenly_spaced(size: int, count: int) -> list[int]:
    """``count`` indices below ``size``, from the first to the last; all if there are fewer.

    Example:
        >>> evenly_spaced(100, 4), evenly_spaced(2, 4)
        ([0, 33, 66, 99], [0, 1])
    """
    count = min(count, size)
    if count < 2:
        return list(range(count))
    return [index * (size - 1) // (count - 1) for index in range(count)]
