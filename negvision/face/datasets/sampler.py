"""Batches of P identities with K images each."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Dataset, Sampler

from negvision.errors import DatasetError
from negvision.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class IdentityBalancedSampler(Sampler):
    """Draws identities in random order, K images of each in a row.

    The batch of one rank holds P identities, so the dataloader's ``batch_size`` must be P x K.
    Every identity comes once per epoch. So that all ranks have the same number of full batches,
    the last ones are filled with identities from the start of the order. All ranks use one order
    and take its batches in turn, so the ranks of one global batch have different identities.

    The K images are drawn in each epoch without repetition; an identity with fewer images repeats
    each of them about equally often. An epoch is thus C x K images long. With the same global
    batch, one rank and many see the same images.

    Args:
        dataset: Has ``labels``, int64 of shape (N,), or returns ``label`` in ``get_data_info``;
            may be wrapped in MMEngine's ``ConcatDataset``.
        identities_per_batch: P, on one rank.
        images_per_identity: K, at least 2 for positive pairs.
        seed: The same on all ranks; None agrees on a random one.

    Example::

        train_dataloader = dict(
            batch_size=128,
            sampler=dict(type="negvision.IdentityBalancedSampler",
                         identities_per_batch=32, images_per_identity=4), ...)
    """

    def __init__(
        self,
        dataset: Dataset,
        identities_per_batch: int,
        images_per_identity: int,
        seed: int | None = None,
    ) -> None:
        sizes = (identities_per_batch, images_per_identity)
        if not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise ValueError(
                "identities_per_batch and images_per_identity must be integers of at least 1, got "
                f"{identities_per_batch!r} and {images_per_identity!r}"
            )
        self.rank, self.world_size = get_dist_info()
        self.identities_per_batch = identities_per_batch
        self.images_per_identity = images_per_identity
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        labels = _labels_of(dataset)
        if (labels < 0).any():
            raise DatasetError(
                f"{(labels < 0).sum():,} of {len(labels):,} samples have no identity (label -1), "
                "so they cannot be sampled by identity."
            )
        # The images of identity i are order[starts[i] : starts[i + 1]].
        self._order = np.argsort(labels, kind="stable")
        counts = np.unique(labels, return_counts=True)[1]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        together = identities_per_batch * self.world_size
        if len(counts) < together:
            raise DatasetError(
                f"The dataset has {len(counts)} identities, and one batch on each of "
                f"{self.world_size} ranks needs {together}. Lower identities_per_batch "
                f"({identities_per_batch})."
            )
        self.num_batches = -(-len(counts) // together)

    def __len__(self) -> int:
        """The number of samples on this rank."""
        return self.num_batches * self.identities_per_batch * self.images_per_identity

    def __iter__(self) -> Iterator[int]:
        """Indices of the dataset, for this rank and epoch."""
        identities = len(self._starts) - 1
        order = np.random.default_rng([self.seed, self.epoch]).permutation(identities)
        per_batch, together = self.identities_per_batch, self.identities_per_batch * self.world_size
        for batch in range(self.num_batches):
            start = batch * together + self.rank * per_batch
            for place in range(start, start + per_batch):
                yield from self._draw(order[place % identities], place)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order and the draws."""
        self.epoch = epoch

    def _draw(self, identity: int, place: int) -> list[int]:
        images = self._order[self._starts[identity] : self._starts[identity + 1]]
        rng = np.random.default_rng([self.seed, self.epoch, place])
        rounds = -(-self.images_per_identity // len(images))
        drawn = np.concatenate([rng.permutation(images) for _ in range(rounds)])
        return drawn[: self.images_per_identity].tolist()


def _labels_of(dataset: Any) -> np.ndarray:
    """Shape (N,), int64: the label of each sample of a dataset or of concatenated ones."""
    if hasattr(dataset, "labels"):
        return np.asarray(dataset.labels, dtype=np.int64)
    if hasattr(dataset, "datasets"):
        return np.concatenate([_labels_of(part) for part in dataset.datasets])
    labels = [dataset.get_data_info(i)["label"] for i in range(len(dataset))]
    return np.array(labels, dtype=np.int64)
