"""The order of samples and their augmentation: a function of the seed and the place alone.

Neither the number of workers nor an interruption changes them: each sample is drawn with random
numbers seeded by the run's seed, the epoch, the batch and its own index, whichever process does it.
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
from torch.utils.data import BatchSampler, DataLoader, Dataset, get_worker_info

from negvision.engine.checkpoints.training_state import random_state_kept


class SeededIndex(int):
    """An index of a dataset that carries the seed its sample is drawn with."""

    seed: int

    def __new__(cls, index: int, seed: int) -> "SeededIndex":
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __reduce__(self) -> tuple:
        return SeededIndex, (int(self), self.seed)


class SeededBatches:
    """The batches of a batch sampler, each index with its seed, from any of them on.

    Takes the place of ``batch_sampler`` in a DataLoader; what else is asked of it, the batch
    sampler answers.

    Args:
        batches: A batch sampler, such as :class:`torch.utils.data.BatchSampler`.
        seed: The run's, the same on all ranks.

    Example:
        >>> from torch.utils.data import SequentialSampler
        >>> batches = SeededBatches(BatchSampler(SequentialSampler(range(5)), 2, False), seed=0)
        >>> batches.begin(epoch=3, batch=1)
        >>> list(batches)
        [[2, 3], [4]]
    """

    def __init__(self, batches: BatchSampler, seed: int) -> None:
        self._batches, self._seed = batches, seed
        self._epoch = self._first = 0

    def begin(self, epoch: int, batch: int = 0, seed: int | None = None) -> None:
        """Choose where the next iteration begins; nothing of what is left out is loaded."""
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
        """Whether the sampler never ends: those that do have an epoch."""
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
        # An index that comes twice in a batch is drawn differently each time.
        before: Counter[int] = Counter()
        seeded = []
        for index in batch:
            key = (self._seed, self._epoch, number, int(index), before[index])
            seeded.append(SeededIndex(index, _seed_of(key)))
            before[index] += 1
        return seeded


def seed_batches(loader: DataLoader, seed: int) -> None:
    """Give every sample of ``loader`` its own seed; see the module.

    The loader's own draw, of the seeds of its workers, is taken from the run's generator too: it
    gets another one. Samplers, datasets and workers stay what they are.
    """
    batches = SeededBatches(loader.batch_sampler, seed)
    # DataLoader refuses to have its batch sampler set, since it would not be told of another batch
    # size; here that does not change.
    vars(loader)["batch_sampler"] = batches
    loader.generator = torch.Generator().manual_seed(seed)
    # DataLoader's documented way to fetch a whole batch at once.
    loader.dataset.__getitems__ = functools.partial(draw_seeded, loader.dataset)


def draw_seeded(dataset: Dataset, indices: Sequence[int]) -> list:
    """``[dataset[i] for i in indices]``, each drawn with the seed that the index carries."""
    if get_worker_info() is not None:
        return [_draw(dataset, index) for index in indices]
    # In the training's own process its generators must not notice.
    with random_state_kept():
        return [_draw(dataset, index) for index in indices]


def _draw(dataset: Dataset, index: int) -> Any:
    if isinstance(index, SeededIndex):
        random.seed(index.seed)
        np.random.seed(index.seed & 0xFFFFFFFF)  # noqa: NPY002
        # Not torch.manual_seed, which seeds the GPUs as well.
        torch.default_generator.manual_seed(index.seed)
    return dataset[int(index)]


def _seed_of(key: tuple[int, ...]) -> int:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
