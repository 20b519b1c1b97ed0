"""Batches of P identities with K images each."""

from collections.abc import Iterator

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Dataset, Sampler

from negvision.errors import DatasetError
from negvision.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class IdentityBalancedSampler(Sampler):
    """Identities in random order, K images of each in a row.

    P identities form the batch of one rank, so the dataloader's ``batch_size`` has to be P x K.
    In an epoch every identity comes once; so that all ranks have as many whole batches, the last
    ones are filled up with identities from the start of the order, which then come twice. Ranks
    take turns batch by batch in one order that is the same everywhere, so those that train on one
    global batch have different identities.

    The K images are drawn anew each epoch without repetition; an identity of fewer images repeats
    each of them about equally often. An epoch is thus C x K images long, whatever the number of
    images. The draw depends on the seed, the epoch and the place in the order: with the same
    global batch, one rank and many see the same images.

    Args:
        dataset: Has ``labels``, int64 of shape (N,), or gives ``label`` in ``get_data_info``; may
            be wrapped by MMEngine's ``ConcatDataset``.
        identities_per_batch: P, on one rank.
        images_per_identity: K, 2 or more for positive pairs.
        seed: The same on all ranks; None agrees on a random one.

    Raises:
        DatasetError: a label is negative, or there are fewer identities than one global batch
            takes.

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
        for name, value in (
            ("identities_per_batch", identities_per_batch),
            ("images_per_identity", images_per_identity),
        ):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be a whole number from 1 up")
        self.rank, self.world_size = get_dist_info()
        self.identities_per_batch = identities_per_batch
        self.images_per_identity = images_per_identity
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        labels = labels_of(dataset)
        if (labels < 0).any():
            raise DatasetError(
                f"{(labels < 0).sum():,} of {len(labels):,} samples have no identity (label -1), "
                "so they cannot be sampled by it."
            )
        # The images of identity i are order[starts[i] : starts[i + 1]].
        self._order = np.argsort(labels, kind="stable")
        counts = np.unique(labels, return_counts=True)[1]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        together = identities_per_batch * self.world_size
        if len(counts) < together:
            raise DatasetError(
                f"The dataset has {len(counts)} identities, and one batch on each of "
                f"{self.world_size} ranks takes {together}. Lower identities_per_batch "
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
        """Choose the order and the draws of ``epoch``."""
        self.epoch = epoch

    def _draw(self, identity: int, place: int) -> list[int]:
        images = self._order[self._starts[identity] : self._starts[identity + 1]]
        rng = np.random.default_rng([self.seed, self.epoch, place])
        rounds = -(-self.images_per_identity // len(images))
        drawn = np.concatenate([rng.permutation(images) for _ in range(rounds)])
        return drawn[: self.images_per_identity].tolist()


def labels_of(dataset: Dataset) -> np.ndarray:
    """Shape (N,), int64: the label of each sample of a dataset or of a chain of them."""
    if hasattr(dataset, "labels"):
        return np.asarray(dataset.labels, dtype=np.int64)
    if hasattr(dataset, "datasets"):
        return np.concatenate([labels_of(part) for part in dataset.datasets])
    return np.array(
        [dataset.get_data_info(i)["label"] for i in range(len(dataset))], dtype=np.int64
    )
