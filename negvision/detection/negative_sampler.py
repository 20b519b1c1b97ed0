"""Batches with a fixed share of images without an object."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from negvision.errors import ConfigError
from negvision.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class NegativeRatioSampler(Sampler):
    """Spreads images without an object evenly, so that every batch holds the same share of them.

    Of any B images in a row on a rank, ``share`` x B have no object, rounded up or down. An epoch
    shows each image with objects once (a few repeat to fill the last places), and as many images
    without one as the share needs: some of them, or each several times. They take turns over the
    epochs. Images whose objects are all to be ignored count as with objects.

    Batches must be drawn in order: without ``AspectRatioBatchSampler``.

    Args:
        dataset: Its records (``get_data_info``) have ``instances``, as in
            :class:`negvision.CocoDataset` with ``filter_empty_gt=False``, also concatenated.
        share: In (0, 1).
        seed: The same on all ranks; None agrees on a random one.

    Raises:
        ConfigError: ``share`` is out of range, or the data set has no image with, or without, an
            object.

    Source of a fixed share of negatives: Liu et al., "Mitigating Hallucination in Large Multi-Modal
    Models via Robust Instruction Tuning", ICLR 2024, for instructions; for images by analogy.

    Example:
        >>> class Data:
        ...     def __len__(self):
        ...         return 8
        ...     def get_data_info(self, index):
        ...         return {"instances": [{}] * (index < 6)}
        >>> order = list(NegativeRatioSampler(Data(), share=0.25, seed=0))
        >>> [index >= 6 for index in order]
        [False, False, False, True, False, False, False, True]
    """

    def __init__(self, dataset: Any, share: float, seed: int | None = None) -> None:
        if not 0 < share < 1:
            raise ConfigError(
                f"negvision.NegativeRatioSampler: share is {share!r}; it must be above 0 and below "
                "1. To train without images that have no object: filter_empty_gt=True"
            )
        self.rank, self.world_size = get_dist_info()
        self.share = share
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        records = map(dataset.get_data_info, range(len(dataset)))
        empty = np.array([not record.get("instances") for record in records], dtype=bool)
        self._empty, self._others = np.flatnonzero(empty), np.flatnonzero(~empty)
        if not len(self._empty) or not len(self._others):
            kind = "with" if len(self._empty) else "without"
            raise ConfigError(
                f"negvision.NegativeRatioSampler: share is {share:g}, but none of the "
                f"{len(empty):,} images is {kind} an object. Add such images, keep them with "
                "filter_cfg=dict(filter_empty_gt=False), or use another sampler"
            )
        own = -(-len(self._others) // self.world_size)
        # The fewest places that hold all images with objects, wherever the pattern stands.
        self._length = int(own / (1 - share))
        while self._length - np.ceil(self._length * share - 1e-9) < own:
            self._length += 1

    def __len__(self) -> int:
        """The number of samples on this rank."""
        return self._length

    def __iter__(self) -> Iterator[int]:
        """Indices of the dataset, for this rank and epoch."""
        # The pattern, and the images without objects, go on where the last epoch has ended.
        places = self.epoch * self._length + np.arange(self._length + 1)
        before = np.floor(places * self.share + 1e-9).astype(np.int64)
        turns = np.diff(before) > 0
        order = np.empty(self._length, dtype=np.int64)
        random = np.random.default_rng([self.seed, self.epoch])
        others = np.resize(random.permutation(self._others), (~turns).sum() * self.world_size)
        order[~turns] = others[self.rank :: self.world_size]
        wanted = np.arange(before[0], before[-1]) * self.world_size + self.rank
        rounds, place = np.divmod(wanted, len(self._empty))
        empty = np.empty(len(wanted), dtype=np.int64)
        for turn in np.unique(rounds):
            shuffled = np.random.default_rng([self.seed, turn, 1]).permutation(self._empty)
            empty[rounds == turn] = shuffled[place[rounds == turn]]
        order[turns] = empty
        yield from order.tolist()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order and the draws."""
        self.epoch = epoch
