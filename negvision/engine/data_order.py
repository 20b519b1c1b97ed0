"""Order and augmentation of samples that depend only on the seed and the position.

The number of workers and interruptions do not change them: each sample is drawn with random numbers
seeded by the run's seed, the epoch, the batch and its own index, in whichever process.
"""

import functools
import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from negvision.engine.checkpoints.training_state import random_state_kept
from negvision.unexpected import of_sample


class SeededIndex(int):
    """An index of a dataset with the seed for drawing its sample."""

    seed: int

    def __new__(cls, index: int, seed: int) -> "SeededIndex":
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __reduce__(self) -> tuple:
        return SeededIndex, (int(self), self.seed)


class SeededBatches:
    """The batches of a batch sampler, starting at any of them, with a seed for each index.

    Replaces ``batch_sampler`` in a DataLoader; other attributes come from the batch sampler.

    Args:
        batches: A batch sampler, such as :class:`torch.utils.data.BatchSampler`.
        seed: The seed of the run, the same on all ranks.

    Example:
        >>> from torch.utils.data import BatchSampler, SequentialSampler
        >>> batches = SeededBatches(BatchSampler(SequentialSampler(range(5)), 2, False), seed=0)
        >>> batches.begin(epoch=3, batch=1)
        >>> list(batches)
        [[2, 3], [4]]
    """

    def __init__(self, batches: Any, seed: int) -> None:
        self._batches, self._seed = batches, seed
        self._epoch = self._first = 0

    def begin(self, epoch: int, batch: int = 0, seed: int | None = None) -> None:
        """Choose where the next iteration starts; skipped batches are not loaded."""
        sampler = getattr(self._batches, "sampler", None)
        if seed is not None and seed != self._seed:
            self._seed = seed
            if hasattr(sampler, "seed"):
                sampler.seed = seed
        self._epoch, self._first = epoch, batch
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)

    @property
    def endless(self) -> bool:
        """Whether the sampler never ends; other samplers have an epoch."""
        return not hasattr(getattr(self._batches, "sampler", None), "epoch")

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        first, self._first = self._first, 0
        for number, batch in enumerate(itertools.islice(self._batches, first, None), first):
            yield self._with_seeds(batch, number)

    def __len__(self) -> int:
        return len(self._batches)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._batches, name)

    def _with_seeds(self, batch: Sequence[int], number: int) -> list[SeededIndex]:
        # An index that occurs twice in a batch gets two seeds.
        before: Counter[int] = Counter()
        seeded = []
        for index in batch:
            key = (self._seed, self._epoch, number, int(index), before[index])
            seeded.append(SeededIndex(index, _seed_of(key)))
            before[index] += 1
        return seeded


def is_endless(loader: DataLoader) -> bool:
    """Whether the batches of ``loader`` never end."""
    batches = loader.batch_sampler
    return isinstance(batches, SeededBatches) and batches.endless


def seed_batches(loader: DataLoader, seed: int) -> None:
    """Give every sample of ``loader`` its own seed; see the module.

    The loader also gets its own generator, since it draws the seeds of its workers. Samplers,
    datasets and workers do not change.
    """
    batches = SeededBatches(loader.batch_sampler, seed)
    # DataLoader refuses a new batch sampler, since the batch size could change; here it does not.
    vars(loader)["batch_sampler"] = batches
    loader.generator = torch.Generator().manual_seed(seed)
    # DataLoader's documented way to fetch a whole batch at once.
    draw = functools.partial(draw_seeded, loader.dataset)
    setattr(loader.dataset, "__getitems__", draw)  # noqa: B010


def draw_seeded(dataset: Dataset, indices: Sequence[int]) -> list:
    """``[dataset[i] for i in indices]``, each drawn with the seed of its index.

    Raises:
        DatasetError: Anything raised for a sample, with its name. Errors of the machine stay.
    """
    if get_worker_info() is not None:
        return [_draw(dataset, index) for index in indices]
    # In the process of the training its random state is kept.
    with random_state_kept():
        return [_draw(dataset, index) for index in indices]


def _draw(dataset: Dataset, index: int) -> Any:
    if isinstance(index, SeededIndex):
        random.seed(index.seed)
        np.random.seed(index.seed & 0xFFFFFFFF)  # noqa: NPY002
        # torch.manual_seed would also seed the GPUs.
        torch.default_generator.manual_seed(index.seed)
    try:
        return dataset[int(index)]
    except Exception as error:
        named = of_sample(error, f"sample {int(index)} of {type(dataset).__name__}")
        if named is None:
            raise
        raise named from error


def _seed_of(key: tuple[int, ...]) -> int:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
