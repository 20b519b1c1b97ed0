"""The states of all random number generators that a training draws from."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def random_state() -> dict:
    """States of Python's, NumPy's and PyTorch's generators, in tensors and plain numbers.

    A checkpoint can hold it: loading it runs nothing.
    """
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    state = {
        "python": (version, torch.tensor(numbers, dtype=torch.int64), gauss),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict) -> None:
    """Put back what :func:`random_state` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    # Loading a checkpoint may have moved it to a GPU.
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


@contextlib.contextmanager
def random_state_kept() -> Iterator[dict]:
    """What is drawn inside of the block changes nothing outside of it; yields the state kept."""
    state = random_state()
    try:
        yield state
    finally:
        set_random_state(state)
